"""One snapshot file: written from chunks, checked in one pass, read where it is wanted.

::

    SnapshotFile { uint32 crc = 1; bytes data = 2; }                   CRC-32C of data
    Snapshot     { bytes data = 1; SnapshotMetadata metadata = 2; }    what data is

No more than a few chunks of it are in memory, whatever its size.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raftwal.errors import ReadFailedError, RecordFormatError, SnapshotFileError
from raftwal.fs import File, FileSystem
from raftwal.model import SnapshotMetadata
from raftwal.spool import CHUNK_BYTES, SizedChunks
from raftwal.wire.fields import Read, fields_of, split
from raftwal.wire.frames import extend_crc
from raftwal.wire.messages import decode_snapshot, snapshot_around, snapshot_file_head

SYNC_BYTES = 16 << 20
"""How much is written before it is synced.  A node waits for its log's sync, and that can have
to wait for all that is dirty on the same disk."""

# Keys: a field's number and its wire type, 0 for a number, 2 for bytes.
_CRC = 1 << 3
_FILE_DATA = 2 << 3 | 2
_STATE = 1 << 3 | 2
_METADATA = 2 << 3 | 2


class ChunksOf(SizedChunks):
    """Bytes that are in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        for offset in range(0, len(self._data), CHUNK_BYTES):
            yield self._data[offset : offset + CHUNK_BYTES]


class SnapshotEncoding:
    """What stands in the file of a snapshot, head and all.

    Raises ``ValueError`` when the metadata do not fit the format.
    """

    def __init__(self, metadata: SnapshotMetadata, data: SizedChunks) -> None:
        self._data = data
        self._before, self._after = snapshot_around(metadata, data.size)

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes.  The data are read twice: their checksum stands before them."""
        crc = 0
        for chunk in self._message():
            crc = extend_crc(crc, chunk)
        yield snapshot_file_head(crc, len(self._before) + self._data.size + len(self._after))
        yield from self._message()

    def _message(self) -> Iterator[bytes]:
        yield self._before
        yield from self._data
        yield self._after


class Written(NamedTuple):
    """How many bytes were written, and how many seconds their syncs took."""

    bytes: int
    sync_seconds: float


def write_and_sync(file: File, chunks: Iterable[bytes]) -> Written:
    """Fill an empty file and make it durable, a portion at a time.  Raises ``OSError``."""
    written = unsynced = 0
    sync_seconds = 0.0
    for portion in _portions(chunks):
        if unsynced >= SYNC_BYTES:
            started = time.perf_counter()
            file.sync_data()
            sync_seconds += time.perf_counter() - started
            unsynced = 0
        file.write(written, portion)
        written += len(portion)
        unsynced += len(portion)
    started = time.perf_counter()
    file.sync()
    return Written(written, sync_seconds + time.perf_counter() - started)


def _portions(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces: a small snapshot is one write."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Layout(NamedTuple):
    """What a whole snapshot file says, and where its data are."""

    metadata: SnapshotMetadata
    start: int
    end: int


class SnapshotReader:
    """A snapshot whose file is whole, its data read piece by piece.

    Made by `raftwal.Snapshotter.open`.  The file may be removed meanwhile.  ``close`` it; it is
    a context manager, too.
    """

    def __init__(self, file: File, layout: _Layout) -> None:
        self.metadata = layout.metadata
        self.path = file.path
        self._file = file
        self._start = layout.start
        self._size = layout.end - layout.start

    @property
    def size(self) -> int:
        """How many bytes the data are."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes of the data from ``offset``; fewer only at the end.

        Raises `ReadFailedError`.
        """
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        data = _reads(self._file)(self._start + offset, length)
        if len(data) < length:
            raise ReadFailedError("the snapshot's file has become shorter", path=self.path)
        return data

    def chunks(self) -> Iterator[bytes]:
        """All of the data.  Raises `ReadFailedError`."""
        for offset in range(0, self._size, CHUNK_BYTES):
            yield self.read(offset, CHUNK_BYTES)

    def close(self) -> None:
        """Let go of the file.  Idempotent."""
        self._file.close()

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ReadStream(io.RawIOBase):
    """``size`` bytes that ``read(offset, length)`` gives, as a stream; seekable."""

    def __init__(self, read: Read, size: int) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """``True``."""
        return True

    def seekable(self) -> bool:
        """``True``."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` from the start, the position or the end."""
        base = (0, self._position, self._size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # its Buffer is of 3.12
        """Fill ``buffer`` as far as there are bytes left; how many.  Raises `ReadFailedError`."""
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        data = self._read(self._position, length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def buffered(read: Read, size: int) -> io.BufferedReader:
    """``size`` bytes that ``read(offset, length)`` gives, as a file that is open for reading."""
    return io.BufferedReader(ReadStream(read, size), CHUNK_BYTES)


def open_snapshot_file(fs: FileSystem, path: str, name: tuple[int, int]) -> SnapshotReader:
    """The snapshot in the file ``path`` once all of it was read and found whole.

    ``name`` is the term and the index that its name states.

    Raises `SnapshotFileError`, `ReadFailedError`.
    """
    try:
        file = fs.open_read_only(path)
    except OSError as error:
        raise _read_failed(error, path) from error
    try:
        try:
            size = file.size()
        except OSError as error:
            raise _read_failed(error, path) from error
        return SnapshotReader(file, check_snapshot_file(_reads(file), size, path, name))
    except BaseException:
        file.close()
        raise


def check_snapshot_file(read: Read, size: int, path: str, name: tuple[int, int]) -> _Layout:
    """Where the data are in a snapshot file of ``size`` bytes, after all of it was checked.

    Raises `SnapshotFileError`, and what ``read`` raises.
    """
    if size == 0:
        raise SnapshotFileError("the snapshot file is empty", path=path)
    try:
        crc, start, end = 0, 0, 0
        for field in fields_of(read, 0, size, (_CRC, _FILE_DATA)):
            if field.key == _CRC:
                crc = field.value & 0xFFFFFFFF
            else:
                start, end = field.content, field.end
        if start == end:
            raise RecordFormatError("no data in it")
        if _crc_of(read, start, end) != crc:
            raise SnapshotFileError("the snapshot's checksum does not match", path=path)
        state = split(read, start, end, _STATE, (_STATE, _METADATA))
        metadata = decode_snapshot(state.others).metadata
    except RecordFormatError as error:
        raise SnapshotFileError(f"the snapshot does not parse: {error.what}", path=path) from error
    if (metadata.term, metadata.index) != name:
        raise SnapshotFileError(
            f"the snapshot is of index {metadata.index}, term {metadata.term}, "
            "not what its name says",
            path=path,
        )
    return _Layout(metadata, state.start, state.end)


def _crc_of(read: Read, start: int, end: int) -> int:
    crc = 0
    for offset in range(start, end, CHUNK_BYTES):
        crc = extend_crc(crc, read(offset, min(CHUNK_BYTES, end - offset)))
    return crc


def _reads(file: File) -> Read:
    def read(offset: int, length: int) -> bytes:
        try:
            return file.read(offset, length)
        except OSError as error:
            raise _read_failed(error, file.path) from error

    return read


def _read_failed(error: OSError, path: str) -> ReadFailedError:
    return ReadFailedError(f"cannot read the snapshot: {error.strerror or error}", path=path)
