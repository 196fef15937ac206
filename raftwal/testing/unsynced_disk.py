"""The real disk without its syncs, for data that may be lost."""

from __future__ import annotations

from typing import Any

from raftwal.fs import DISK, Descriptor, DiskFile, File, FileSystem, descriptor_of


class UnsyncedDisk:
    """A `raftwal.fs.FileSystem` that reports every sync as done and does none.

    For tests, and for data that a power cut may take (etcd's ``SetUnsafeNoFsync``): give
    it as ``fs``.  A process that is killed still loses nothing.
    """

    def __init__(self, disk: FileSystem = DISK) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def open(self, path: str) -> File:
        """Open an existing file to read and write."""
        return _UnsyncedFile(self._disk.open(path))

    def create(self, path: str) -> File:
        """Open a file to write, empty."""
        return _UnsyncedFile(self._disk.create(path))

    def sync_directory(self, path: str) -> None:
        """Nothing."""


class _UnsyncedFile:
    def __init__(self, file: File) -> None:
        self._file = file
        if isinstance(file, DiskFile):
            file.is_to_be_synced = False
        self.path = file.path
        # The one that is called all the time.
        self.write = file.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def descriptor(self) -> Descriptor | None:
        descriptor = descriptor_of(self._file)
        return None if descriptor is None else descriptor._replace(syncs=False)

    def sync(self) -> None: ...

    def sync_data(self) -> None: ...

    def write_back(self, offset: int, length: int) -> None: ...
