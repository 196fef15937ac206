"""What a node has promised and what it holds, in whatever form it lies on the disk."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from raftwal.errors import ReadFailedError
from raftwal.fs import FileSystem
from raftwal.model import HardState
from raftwal.pysyncobj.dump import DumpDescription
from raftwal.pysyncobj.journal import JournalEntry
from raftwal.snapshot_files import buffered
from raftwal.spool import CHUNK_BYTES, SizedChunks
from raftwal.wire.fields import Read


class StateDump(NamedTuple):
    """A dump: what it says beside the state, and what tells its bytes from others."""

    description: DumpDescription
    size: int
    sha256: str


class NodeState(NamedTuple):
    """Term, vote and commit index, the dump, and the entries that follow on it, or on nothing."""

    hard_state: HardState
    dump: StateDump | None
    entries: list[JournalEntry]

    @property
    def last_index(self) -> int:
        """The index of the last entry, in the dump or behind it; 0 for none."""
        return self._last[1]

    @property
    def last_term(self) -> int:
        """The term of the last entry; 0 for none."""
        return self._last[2]

    @property
    def _last(self) -> JournalEntry:
        if self.entries:
            return self.entries[-1]
        return (b"", 0, 0) if self.dump is None else self.dump.description.last

    def digest(self) -> str:
        """Equal for equal states, and in practice for no others."""
        return digest_of(f"{self.hard_state}{self.dump}", self.entries)


def digest_of(about: str, entries: Iterable[JournalEntry]) -> str:
    """A digest of a text and of entries."""
    digest = hashlib.sha256(about.encode())
    for command, index, term in entries:
        digest.update(struct.pack("<QQQ", index, term, len(command)))
        digest.update(command)
    return digest.hexdigest()


class Content(SizedChunks):
    """Bytes that stay where they lie and are read in pieces."""

    def __init__(self, read: Read, size: int) -> None:
        self.read = read
        self._size = size

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        for offset in range(0, self._size, CHUNK_BYTES):
            yield self.read(offset, min(CHUNK_BYTES, self._size - offset))

    def stream(self) -> io.BufferedReader:
        """All of them, as a file that is open for reading."""
        return buffered(self.read, self._size)

    def sha256(self) -> str:
        """Their digest."""
        digest = hashlib.sha256()
        for chunk in self:
            digest.update(chunk)
        return digest.hexdigest()


@contextmanager
def content_of(fs: FileSystem, path: str | None) -> Iterator[Content | None]:
    """What is in a file; ``None`` where there is none.

    Raises `ReadFailedError`, also while it is read.
    """
    try:
        file = None if path is None else fs.open_read_only(path)
        size = 0 if file is None else file.size()
    except FileNotFoundError:
        file = None
    except OSError as error:
        raise _read_failed(error, path) from error
    if file is None:
        yield None
        return

    def read(offset: int, length: int) -> bytes:
        try:
            return file.read(offset, length)
        except OSError as error:
            raise _read_failed(error, path) from error

    try:
        yield Content(read, size)
    finally:
        file.close()


def _read_failed(error: OSError, path: str | None) -> ReadFailedError:
    return ReadFailedError(f"cannot read: {error.strerror or error}", path=path)
