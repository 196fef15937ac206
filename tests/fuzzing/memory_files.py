"""A file system in memory: no disk, no syncs to wait for, thousands of logs a second."""

from __future__ import annotations

import errno
import os

DIRECTORY = "/log"


class MemoryFiles:
    """One directory of files, as `raftwal.fs.FileSystem`.

    ``changes`` counts the calls that changed a file or a name.
    """

    def __init__(self, files: dict[str, bytes], directory: str = DIRECTORY) -> None:
        self.directory = directory
        self.changes = 0
        self._files = {os.path.join(directory, name): _Inode(files[name]) for name in files}

    def contents(self) -> dict[str, bytes]:
        """Every file's bytes, by its name."""
        return {os.path.basename(path): inode.data for path, inode in self._files.items()}

    def locked(self) -> list[str]:
        """The names of the files that somebody holds the lock of."""
        return [os.path.basename(path) for path, inode in self._files.items() if inode.is_locked]

    def open(self, path: str) -> MemoryFile:
        return MemoryFile(self, path, self._inode(path))

    open_read_only = open

    def create(self, path: str) -> MemoryFile:
        self.changes += 1
        inode = self._files.setdefault(path, _Inode(b""))
        inode.data = b""
        return MemoryFile(self, path, inode)

    def make_directory(self, path: str) -> None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def exists(self, path: str) -> bool:
        return path in self._files or self.is_directory(path)

    def is_directory(self, path: str) -> bool:
        return path in (self.directory, os.path.dirname(self.directory))

    def list(self, path: str) -> list[str]:
        return sorted(map(os.path.basename, self._files))

    def rename(self, source: str, target: str) -> None:
        self.changes += 1
        self._files[target] = self._inode(source)
        del self._files[source]

    def remove(self, path: str) -> None:
        self.changes += 1
        self._inode(path)
        del self._files[path]

    def remove_tree(self, path: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    def sync_directory(self, path: str) -> None: ...

    def _inode(self, path: str) -> _Inode:
        try:
            return self._files[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


class _Inode:
    """What a name stands for: a rename does not change it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.is_locked = False


class MemoryFile:
    """An open file of `MemoryFiles`, as `raftwal.fs.File`."""

    def __init__(self, fs: MemoryFiles, path: str, inode: _Inode) -> None:
        self.path = path
        self._fs = fs
        self._inode = inode
        self._has_lock = False

    def size(self) -> int:
        return len(self._inode.data)

    def read(self, offset: int, length: int) -> bytes:
        # The whole file as it is: a reader that asks for all of it gets no copy.
        data = self._inode.data
        return data if offset == 0 and length == len(data) else data[offset : offset + length]

    def write(self, offset: int, *pieces: bytes | bytearray) -> None:
        data = b"".join(pieces)
        before = self._inode.data
        self._put(before[:offset].ljust(offset, b"\0") + data + before[offset + len(data) :])

    def sync_data(self) -> None: ...

    def write_back(self, offset: int, length: int) -> None: ...

    def sync(self) -> None: ...

    def truncate(self, size: int) -> None:
        self._put(self._inode.data[:size])

    def allocate(self, size: int) -> None:
        self._put(self._inode.data.ljust(size, b"\0"))

    def first_hole(self, offset: int) -> int:
        return len(self._inode.data)

    def next_data(self, offset: int) -> int:
        return offset

    def try_lock(self) -> bool:
        if self._inode.is_locked and not self._has_lock:
            return False
        self._inode.is_locked = self._has_lock = True
        return True

    def close(self) -> None:
        if self._has_lock:
            self._inode.is_locked = self._has_lock = False

    def _put(self, data: bytes) -> None:
        self._fs.changes += 1
        self._inode.data = data
