"""`Spool`: bytes of an unknown number, kept until all are there; in a scratch file if many."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator

from raftwal.errors import ReadFailedError, WriteFailedError
from raftwal.fs import File, FileSystem, make_directories

CHUNK_BYTES = 1 << 20
"""How much is held in memory of what is copied."""
SPOOL_SUFFIX = ".spool.tmp"


class SizedChunks(abc.ABC):
    """Bytes in chunks, as often as they are asked for, whose number is known before."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many bytes they are."""

    @abc.abstractmethod
    def __iter__(self) -> Iterator[bytes]:
        """The chunks, none of them much larger than `CHUNK_BYTES`."""


class Spool(SizedChunks):
    """What is appended is there to be read until `close`, and never again.

    Nothing is synced: a crash loses it, and leaves a file to be removed.  For one thread at a
    time.  ``memory_bytes`` of it are held in memory before there is a file.
    """

    def __init__(self, fs: FileSystem, path: str, *, memory_bytes: int) -> None:
        self.path = path
        self._fs = fs
        self._memory_bytes = memory_bytes
        self._memory = bytearray()
        self._file: File | None = None
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes were appended."""
        return self._size

    def append(self, data: bytes) -> None:
        """Add to the end.  Raises `WriteFailedError`; the spool is then of no more use."""
        if self._file is None:
            if self._size + len(data) <= self._memory_bytes:
                self._memory += data
                self._size += len(data)
                return
            data = bytes(self._memory) + data
            self._size = 0
        try:
            if self._file is None:
                make_directories(self._fs, os.path.dirname(self.path))
                self._file = self._fs.create(self.path)
                self._memory = bytearray()
            self._file.write(self._size, data)
        except OSError as error:
            raise WriteFailedError(
                f"cannot write what is to become a snapshot: {error.strerror or error}",
                path=self.path,
                advice="Free space, or replace the disk",
            ) from error
        self._size += len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end.

        Raises `ReadFailedError`.
        """
        if self._file is None:
            return bytes(self._memory[offset : offset + length])
        try:
            return self._file.read(offset, min(length, max(0, self._size - offset)))
        except OSError as error:
            raise ReadFailedError(
                f"cannot read what is to become a snapshot: {error.strerror or error}",
                path=self.path,
            ) from error

    def __iter__(self) -> Iterator[bytes]:
        """Raises `ReadFailedError`."""
        for offset in range(0, self._size, CHUNK_BYTES):
            yield self.read(offset, CHUNK_BYTES)

    def close(self) -> None:
        """Let go of it.  Idempotent."""
        self._memory = bytearray()
        self._size = 0
        file, self._file = self._file, None
        if file is not None:
            file.close()
            # One that stays is removed when the storage is opened next.
            with contextlib.suppress(OSError):
                self._fs.remove(self.path)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
