"""PySyncObj's own FileJournal and dump on a simulated disk: the system calls they make."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import types
from typing import TYPE_CHECKING, Any

import pysyncobj.journal
import pysyncobj.serializer
import pysyncobj.syncobj

from raftwal.testing import SimulatedDisk

if TYPE_CHECKING:
    from integration.simulation.world import World


_MOST_BYTES = 1 << 23


class _File(io.RawIOBase):
    """``open(path, mode)`` of the built-in kind, unbuffered."""

    def __init__(self, disk: SimulatedDisk, path: str, mode: str) -> None:
        super().__init__()
        if "w" in mode or ("a" in mode and not disk.exists(path)):
            self._file = disk.create(path)
        else:
            self._file = disk.open(path)
        self._position = self._file.size() if "a" in mode else 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._file.size())[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._file.write(self._position, data)
        self._position += len(data)
        return len(data)

    def fileno(self) -> Any:
        return self

    @property
    def simulated(self) -> Any:
        return self._file


class _Map:
    """``mmap.mmap(fileno, 0)``: what is put in is written at once, synced by ``flush``."""

    def __init__(self, file: _File, length: int) -> None:
        self._file = file.simulated

    def size(self) -> int:
        return self._file.size()

    def resize(self, size: int) -> None:
        if size > _MOST_BYTES:
            # FileJournal reads lengths that no checksum covers, and believes them.
            raise MemoryError(f"a journal of {size} bytes")
        if size < self._file.size():
            self._file.truncate(size)
        else:
            self._file.allocate(size)

    def __getitem__(self, item: slice) -> bytes:
        return self._file.read(item.start, item.stop - item.start)

    def __setitem__(self, item: slice, data: bytes) -> None:
        self._file.write(item.start, data)

    def flush(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def replacements(world: World) -> list[tuple[Any, str, Any]]:
    """For `seams.replaced`: files are on the disk of the machine at hand."""

    def disk() -> SimulatedDisk:
        return world.process_at_hand().machine.disk

    def open_file(path: str, mode: str) -> Any:
        return _File(disk(), path, mode)

    def rename(source: str, target: str) -> None:
        disk().rename(source, target)

    def waitpid(*arguments: Any) -> Any:
        raise OSError(errno.ECHILD, os.strerror(errno.ECHILD))

    paths = types.SimpleNamespace(
        exists=lambda path: disk().exists(path), isfile=lambda path: _is_file(disk(), path)
    )
    system = types.SimpleNamespace(path=paths, waitpid=waitpid)
    return [
        (pysyncobj.journal, "open", open_file),
        (pysyncobj.journal, "os", system),
        (pysyncobj.journal, "mmap", types.SimpleNamespace(mmap=_Map)),
        (pysyncobj.journal, "shutil", types.SimpleNamespace(move=rename)),
        (pysyncobj.serializer, "open", open_file),
        (pysyncobj.serializer, "os", system),
        (pysyncobj.serializer, "atomicReplace", rename),
        (pysyncobj.syncobj, "os", system),
    ]


def _is_file(disk: SimulatedDisk, path: str) -> bool:
    if not path:
        return False
    with contextlib.suppress(OSError):
        return disk.exists(path) and not disk.is_directory(path)
    return False
