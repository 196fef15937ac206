"""What a disk holds after a power cut, whoever writes to it: only what was synced.

Works below raftwal's own seam, on Python's ``os.fsync`` and ``os.fdatasync`` and what the native
tail says that it has synced, so that other libraries are judged by the same rule: a file's
bytes are durable as of its last sync, a name as of its directory's last sync, and nothing else
is.  POSIX allows that; a kernel that writes back by itself is kinder, a few seconds later.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from raftwal.wal import direct


class PowerCut:
    """Watches the syncs below ``root`` from ``__enter__`` on; see `image`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        # Held open so that no inode number is given to another file meanwhile.
        self._held: dict[int, int] = {}
        self._direct = None

    def __enter__(self) -> PowerCut:
        self._fsync, self._fdatasync = os.fsync, os.fdatasync
        os.fsync = self._watched(self._fsync)
        os.fdatasync = self._watched(self._fdatasync)
        codec = direct.codec
        if hasattr(codec, "Tail"):
            watched = SimpleNamespace(
                Tail=lambda *settings: _WatchedTail(self, codec.Tail(*settings))
            )
            self._direct = mock.patch.object(direct, "codec", watched)
            self._direct.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._direct is not None:
            self._direct.stop()
        os.fsync, os.fdatasync = self._fsync, self._fdatasync
        for fd in self._held.values():
            os.close(fd)

    def _watched(self, original):
        def sync(fd) -> None:
            original(fd)
            self.note(fd if isinstance(fd, int) else fd.fileno())

        return sync

    def note(self, fd: int) -> None:
        """What the file has now is durable."""
        status = os.fstat(fd)
        inode = status.st_ino
        if inode not in self._held:
            self._held[inode] = os.dup(fd)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(fd) as entries:
                self._names[inode] = {entry.name: entry.inode() for entry in entries}
        else:
            size = status.st_size
            reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
            try:
                self._contents[inode] = os.pread(reader, size, 0)
            finally:
                os.close(reader)

    def write_back(self) -> None:
        """Make everything durable, as the kernel does when left alone for long enough."""
        for directory, _, names in os.walk(self._root):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def image(self, target: Path) -> None:
        """Write what would be there after a power cut now into the directory ``target``."""
        target.mkdir()
        self._restore(os.stat(self._root).st_ino, target)

    def _restore(self, directory: int, target: Path) -> None:
        for name, inode in self._names.get(directory, {}).items():
            if inode in self._names or (inode not in self._contents and self._is_directory(inode)):
                (target / name).mkdir()
                self._restore(inode, target / name)
            else:
                (target / name).write_bytes(self._contents.get(inode, b""))

    def _is_directory(self, inode: int) -> bool:
        return any(os.stat(d).st_ino == inode for d, _, _ in os.walk(self._root))


class _WatchedTail:
    """A native tail whose syncs are noted: each save that has to be durable returns after one."""

    def __init__(self, power_cut: PowerCut, tail) -> None:
        object.__setattr__(self, "_power_cut", power_cut)
        object.__setattr__(self, "_tail", tail)
        object.__setattr__(self, "_fd", None)

    def __getattr__(self, name: str):
        return getattr(self._tail, name)

    def __setattr__(self, name: str, value) -> None:
        setattr(self._tail, name, value)

    def open(self, fd: int, *arguments) -> None:
        object.__setattr__(self, "_fd", fd)
        self._tail.open(fd, *arguments)

    def save(self, hard_state, entries):
        offset = self._tail.offset
        answer = self._tail.save(hard_state, entries)
        if self._tail.offset != offset:
            self._power_cut.note(self._fd)
        return answer

    def commit(self, write: int):
        answer = self._tail.commit(write)
        self._power_cut.note(self._fd)
        return answer
