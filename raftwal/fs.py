"""The only module through which the log and the snapshots touch a disk.

`FileSystem` and `File` are the seam: everything above works on them, so a simulated
disk that drops, reorders or tears what was not synced can take their place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from raftwal.native import codec

try:
    import fcntl
except ImportError:  # pragma: no cover - only on systems without POSIX locks
    fcntl = None  # type: ignore[assignment]  # the lock is then refused, see DiskFile.try_lock

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class Descriptor(NamedTuple):
    """A file as the system knows it, and whether a data sync of it is to reach the disk."""

    number: int
    syncs: bool


class File(Protocol):
    """An open file.  Every method raises ``OSError`` when the system does."""

    path: str

    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end of the file."""

    def write(self, offset: int, *pieces: bytes | bytearray) -> None:
        """Write all of ``pieces``, one behind the other, from ``offset`` on; not durable until
        a sync returns.
        """

    def sync_data(self) -> None:
        """Make the bytes, and the size needed to read them, durable."""

    def write_back(self, offset: int, length: int) -> None:
        """Have ``length`` bytes from ``offset`` on written to the disk, so that the next sync has
        less to do: without one they are not durable.
        """

    def sync(self) -> None:
        """Make the bytes and all metadata durable."""

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""

    def allocate(self, size: int) -> None:
        """Extend the file with zeros to ``size`` bytes, blocks reserved where possible."""

    def first_hole(self, offset: int) -> int:
        """The first place from ``offset`` on for which nothing was written, though it may be
        reserved: it reads as zeros.  The size of the file where there is none, ``offset``
        where the system cannot tell.
        """

    def next_data(self, offset: int) -> int:
        """The first place from ``offset`` on for which something may have been written: before it
        the file reads as zeros.  The size of the file where there is none, ``offset`` where the
        system cannot tell.
        """

    def try_lock(self) -> bool:
        """Take the exclusive lock; ``False`` when another open file holds it."""

    def close(self) -> None:
        """Close, releasing the lock."""


class FileSystem(Protocol):
    """The operations on names.  A new name is durable after `sync_directory`."""

    def open(self, path: str) -> File:
        """Open an existing file to read and write."""

    def open_read_only(self, path: str) -> File:
        """Open an existing file to read."""

    def create(self, path: str) -> File:
        """Open a file to write, empty: made if absent, cleared if present."""

    def make_directory(self, path: str) -> None:
        """Make a directory; its parent must exist and it must not."""

    def exists(self, path: str) -> bool:
        """Whether the name exists."""

    def is_directory(self, path: str) -> bool:
        """Whether the name is a directory."""

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name, replacing a file of that name."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def remove_tree(self, path: str) -> None:
        """Remove a directory and all in it."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""


_begin_write_back = getattr(codec, "begin_write_back", None)
_write_back = getattr(codec, "write_back", None)
# struct flock of 64-bit Linux: type, whence, start, length, pid.
_OFD_WRITE_LOCK = struct.pack("hhqqi4x", getattr(fcntl, "F_WRLCK", 1), os.SEEK_SET, 0, 0, 0)
_HAS_PWRITEV = hasattr(os, "pwritev")
# IOV_MAX of Linux and macOS.
_MOST_PIECES = 1024
# A megabyte is slower on ext4, now and then ten times: it asks for memory in one piece. And while
# one part is copied, the disk can have the one before.
_MOST_AT_ONCE = 1 << 19
_HAS_OFD_LOCKS = (
    sys.platform.startswith("linux") and struct.calcsize("P") == 8 and hasattr(fcntl, "F_OFD_SETLK")
)


def _portions(
    pieces: Sequence[bytes | bytearray],
) -> Iterator[tuple[list[bytes | bytearray], int]]:
    """The pieces in lists that one call takes, and how many bytes each is."""
    some: list[bytes | bytearray] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= _MOST_AT_ONCE or len(some) == _MOST_PIECES:
            yield some, size
            some, size = [], 0
    if some:
        yield some, size


class DiskFile:
    """A file of the operating system."""

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.is_to_be_synced = True
        """Whether what is written is soon to be durable: the disk may begin at once."""
        self._fd = -1
        self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), FILE_MODE)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        first = os.pread(self._fd, length, offset)
        if len(first) == length or not first:
            return first
        chunks = [first]
        have = len(first)
        while have < length and (chunk := os.pread(self._fd, length - have, offset + have)):
            chunks.append(chunk)
            have += len(chunk)
        return b"".join(chunks)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """What `read_into` does."""
        have = 0
        while have < len(buffer):
            count = os.preadv(self._fd, [buffer[have:]], offset + have)
            if count == 0:
                break
            have += count
        return have

    def write(self, offset: int, *pieces: bytes | bytearray) -> None:
        if len(pieces) == 1:
            data = pieces[0]
            if len(data) <= _MOST_AT_ONCE:
                written = os.pwrite(self._fd, data, offset)
                if written == len(data):
                    return
            else:
                written = 0
            self._write(offset + written, memoryview(data)[written:])
        elif not _HAS_PWRITEV:
            self._write(offset, memoryview(b"".join(pieces)))
        else:
            before = 0
            for some, size in _portions(pieces):
                self._begin_write_back(offset - before, before)
                written = os.pwritev(self._fd, some, offset)
                if written < size:
                    self._write(offset + written, memoryview(b"".join(some))[written:])
                offset += size
                before = size

    def _write(self, offset: int, data: memoryview) -> None:
        before = 0
        while data:
            self._begin_write_back(offset - before, before)
            count = os.pwrite(self._fd, data[:_MOST_AT_ONCE], offset)
            if count == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
            data = data[count:]
            offset += count
            before = count

    def _begin_write_back(self, offset: int, length: int) -> None:
        """Have the disk at work on a part while the next one is copied."""
        if length and self.is_to_be_synced and _begin_write_back is not None:
            _begin_write_back(self._fd, offset, length)

    def sync_data(self) -> None:
        if sys.platform == "darwin":
            # fsync on macOS stops at the drive's cache; F_FULLFSYNC goes through it.
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._fd)

    def write_back(self, offset: int, length: int) -> None:
        if _write_back is None:
            self.sync_data()
        else:
            # No flush of the disk's cache, for which syncs of other files would have to wait.
            _write_back(self._fd, offset, length)

    def sync(self) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(self._fd)

    def descriptor(self) -> Descriptor:
        """What `descriptor_of` gives."""
        return Descriptor(self._fd, syncs=True)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def allocate(self, size: int) -> None:
        if size <= self.size():
            return
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
        os.ftruncate(self._fd, size)

    def first_hole(self, offset: int) -> int:
        if not hasattr(os, "SEEK_HOLE"):
            return offset
        try:
            # Nothing here depends on the position that this moves.
            return os.lseek(self._fd, offset, os.SEEK_HOLE)
        except OSError:
            return offset

    def next_data(self, offset: int) -> int:
        if not hasattr(os, "SEEK_DATA"):
            return offset
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            return max(offset, self.size()) if error.errno == errno.ENXIO else offset

    def try_lock(self) -> bool:
        if fcntl is None:  # pragma: no cover - see the import
            raise OSError(errno.ENOSYS, "this system has no POSIX file locks", self.path)
        try:
            if _HAS_OFD_LOCKS:
                # etcd takes an OFD lock on Linux, which a flock would not exclude.
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _OFD_WRITE_LOCK)
            else:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def __del__(self) -> None:
        # A log that was dropped without close() must not keep its lock.
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def descriptor_of(file: File) -> Descriptor | None:
    """Where native code may write to a file and sync it, or `None` where all has to come by the
    file's methods: it is of a class that does not say so itself, but wraps or extends another.
    """
    descriptor = vars(type(file)).get("descriptor")
    return None if descriptor is None else descriptor(file)


def read_into(file: File, offset: int, buffer: memoryview) -> int:
    """Read into memory that is there already, which is cheaper than new one; how many bytes, fewer
    than there is room for only at the end of the file.
    """
    own = vars(type(file)).get("read_into")
    if own is not None and hasattr(os, "preadv"):
        return int(own(file, offset, buffer))
    data = file.read(offset, len(buffer))
    buffer[: len(data)] = data
    return len(data)


class DiskFileSystem:
    """The operating system's files."""

    def open(self, path: str) -> File:
        return DiskFile(path, os.O_RDWR)

    def open_read_only(self, path: str) -> File:
        return DiskFile(path, os.O_RDONLY)

    def create(self, path: str) -> File:
        return DiskFile(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def make_directory(self, path: str) -> None:
        os.mkdir(path, DIRECTORY_MODE)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


DISK: FileSystem = DiskFileSystem()


def make_directories(fs: FileSystem, path: str) -> None:
    """Make ``path`` and what is missing above it, each durable in its parent."""
    if fs.is_directory(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    if parent != path:
        make_directories(fs, parent)
    with contextlib.suppress(FileExistsError):
        fs.make_directory(path)
    fs.sync_directory(parent)


def copy_file(fs: FileSystem, source: str, target: str, *, chunk_bytes: int = 1 << 20) -> None:
    """Copy a file and make the copy durable, name included."""
    reading = fs.open_read_only(source)
    try:
        writing = fs.create(target)
        try:
            offset = 0
            while chunk := reading.read(offset, chunk_bytes):
                writing.write(offset, chunk)
                offset += len(chunk)
            writing.sync()
        finally:
            writing.close()
    finally:
        reading.close()
    fs.sync_directory(os.path.dirname(target) or ".")
