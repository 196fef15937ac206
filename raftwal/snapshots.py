"""Snapshot files: ``{term:016x}-{index:016x}.snap``, one checksummed message each."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

from raftwal.errors import (
    InvalidSnapshotError,
    NoSnapshotError,
    ReadFailedError,
    SnapshotFileError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.fs import DISK, FileSystem, make_directories
from raftwal.metrics import NO_SNAPSHOT_METRICS, SnapshotMetrics
from raftwal.model import Snapshot, SnapshotMetadata
from raftwal.snapshot_files import (
    ChunksOf,
    SnapshotEncoding,
    SnapshotReader,
    check_snapshot_file,
    open_snapshot_file,
    write_and_sync,
)
from raftwal.spool import CHUNK_BYTES, SPOOL_SUFFIX, SizedChunks, Spool

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap")
_DATABASE_NAME = re.compile(r"([0-9a-f]{16})\.snap\.db")
_UNFINISHED = (".snap.tmp", ".snap.db.tmp", SPOOL_SUFFIX)

_Found = TypeVar("_Found")


class SnapshotName(NamedTuple):
    """A snapshot file's name sorts by term, then index: the newest last."""

    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index

    def __str__(self) -> str:
        return f"{self.term:016x}-{self.index:016x}.snap"

    @classmethod
    def parse(cls, file_name: str) -> SnapshotName | None:
        """The parts of a snapshot's file name, or ``None`` for any other name."""
        match = _NAME.fullmatch(file_name)
        return None if match is None else cls(int(match[1], 16), int(match[2], 16))


class Snapshotter:
    """Saves snapshots into a directory, made if absent, and loads the newest whole one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fs: FileSystem = DISK,
        metrics: SnapshotMetrics = NO_SNAPSHOT_METRICS,
    ) -> None:
        self._fs = fs
        self._directory = os.fspath(path)
        self._metrics = metrics
        self._spools = itertools.count(1)

    def save(self, snapshot: Snapshot) -> str:
        """Save a snapshot; its file is whole and durable when this returns its path.

        Written under another name, synced, renamed, the directory synced: a crash
        leaves the whole file or none.

        Raises `InvalidSnapshotError` before anything is written when its metadata do not
        fit the format, and `WriteFailedError`; then there is no file of that name, or, when
        only the last directory sync failed, perhaps the new one in place of one that was
        there.
        """
        return self._save(snapshot.metadata, ChunksOf(snapshot.data))

    def save_stream(self, metadata: SnapshotMetadata, chunks: Iterable[bytes]) -> str:
        """Save a snapshot whose data come in pieces, of any size, as `save` does.

        The file is the one that `save` makes of the same data, and no more than a few MiB
        of it are in memory.  Its head tells size and checksum, so chunks that are not
        `SizedChunks` first go into a scratch file: while it is made, the snapshot takes
        twice its room on the disk.

        Raises as `save` does, and what ``chunks`` raises; there is then no file.
        """
        if isinstance(chunks, SizedChunks):
            return self._save(metadata, chunks)
        self._encoding(metadata, ChunksOf(b""))  # raises: before anything is written
        with self.spool() as spool:
            for chunk in chunks:
                spool.append(chunk)
            return self._save(metadata, spool)

    def spool(self) -> Spool:
        """A place for what may become a snapshot, beside them; one per use."""
        name = f"{next(self._spools):x}{SPOOL_SUFFIX}"
        return Spool(self._fs, os.path.join(self._directory, name), memory_bytes=CHUNK_BYTES)

    def _save(self, metadata: SnapshotMetadata, data: SizedChunks) -> str:
        started = time.perf_counter()
        encoding = self._encoding(metadata, data)
        path = os.path.join(self._directory, str(SnapshotName(metadata.term, metadata.index)))
        in_writing = f"{path}.tmp"
        undo = in_writing
        try:
            make_directories(self._fs, self._directory)
            file = self._fs.create(in_writing)
            try:
                written = write_and_sync(file, encoding.chunks())
            finally:
                file.close()
            self._metrics.sync_seconds.observe(written.sync_seconds)
            is_new = not self._fs.exists(path)
            self._fs.rename(in_writing, path)
            if is_new:
                undo = path
            self._fs.sync_directory(self._directory)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._fs.remove(undo)
            if not isinstance(error, OSError):
                raise
            log.error("snapshot_failed", path=path, error=str(error))
            raise WriteFailedError(
                f"cannot save the snapshot: {error.strerror or error}",
                path=path,
                index=metadata.index,
            ) from error
        seconds = time.perf_counter() - started
        self._metrics.save_seconds.observe(seconds)
        self._metrics.saved.inc()
        log.info(
            "snapshot_saved",
            path=path,
            index=metadata.index,
            term=metadata.term,
            bytes=written.bytes,
            seconds=round(seconds, 6),
        )
        return path

    def _encoding(self, metadata: SnapshotMetadata, data: SizedChunks) -> SnapshotEncoding:
        try:
            return SnapshotEncoding(metadata, data)
        except ValueError as error:
            raise InvalidSnapshotError(
                f"the snapshot's metadata do not fit the format: {error}",
                path=self._directory,
                index=metadata.index,
            ) from error

    def names(self) -> list[SnapshotName]:
        """The snapshot files there are, newest first; whole or not.

        Raises `ReadFailedError`.
        """
        if not self._fs.is_directory(self._directory):
            return []
        try:
            file_names = self._fs.list(self._directory)
        except OSError as error:
            raise ReadFailedError(
                f"cannot list the directory: {error.strerror}", path=self._directory
            ) from error
        names = (SnapshotName.parse(file_name) for file_name in file_names)
        return sorted((name for name in names if name is not None), reverse=True)

    def path_of(self, name: SnapshotName) -> str:
        """The path of a snapshot's file."""
        return os.path.join(self._directory, str(name))

    def load(self) -> Snapshot:
        """The newest snapshot that is whole.  See `load_newest` for what else happens."""
        return self._first_whole(self.names(), self.read)

    def load_newest(self, valid_snapshots: Iterable[SnapshotMetadata]) -> Snapshot:
        """The newest whole snapshot among those that the log vouches for.

        Same index and same term count; memberships are not compared.  A file that is
        not whole is renamed to ``<name>.broken`` and the next one is tried.

        Raises `NoSnapshotError` when none is left, `ReadFailedError`.
        """
        return self._first_whole(self._vouched_for(valid_snapshots), self.read)

    def open_newest(self, valid_snapshots: Iterable[SnapshotMetadata]) -> SnapshotReader:
        """The snapshot that `load_newest` would give, to be read in pieces.  Raises as it does."""
        return self._first_whole(self._vouched_for(valid_snapshots), self.open)

    def read(self, name: SnapshotName) -> Snapshot:
        """One snapshot.  Raises `SnapshotFileError`, `ReadFailedError`."""
        path = self.path_of(name)
        try:
            file = self._fs.open_read_only(path)
            try:
                content = file.read(0, file.size())
            finally:
                file.close()
        except OSError as error:
            raise ReadFailedError(
                f"cannot read the snapshot: {error.strerror}", path=path
            ) from error

        def read(offset: int, length: int) -> bytes:
            return content[offset : offset + length]

        metadata, start, end = check_snapshot_file(read, len(content), path, name)
        return Snapshot(metadata, content[start:end])

    def open(self, name: SnapshotName) -> SnapshotReader:
        """One snapshot, to be read in pieces, once its whole file was read and found whole.

        Raises `SnapshotFileError`, `ReadFailedError`.
        """
        return open_snapshot_file(self._fs, self.path_of(name), name)

    def _vouched_for(self, valid_snapshots: Iterable[SnapshotMetadata]) -> list[SnapshotName]:
        vouched = {(snapshot.term, snapshot.index) for snapshot in valid_snapshots}
        return [name for name in self.names() if name in vouched]

    def _first_whole(
        self, names: list[SnapshotName], find: Callable[[SnapshotName], _Found]
    ) -> _Found:
        for name in names:
            try:
                return find(name)
            except SnapshotFileError as error:
                path = self.path_of(name)
                log.warning("snapshot_set_aside", path=path, reason=error.what)
                # The next one is tried even where the directory cannot be written.
                with contextlib.suppress(OSError):
                    self._fs.rename(path, f"{path}.broken")
        raise NoSnapshotError("there is no whole snapshot that can be used", path=self._directory)

    def purge(self, newest: SnapshotMetadata, keep: int) -> int:
        """Remove all but ``keep`` of the snapshots up to ``newest``; how many went.

        Newer files stay: the log may yet vouch for them.

        Raises ``OSError``.
        """
        bound = SnapshotName(newest.term, newest.index)
        names = self.names()
        old = [name for name in names if name <= bound][max(1, keep) :]
        for name in old:
            self._fs.remove(self.path_of(name))
            log.info("snapshot_purged", path=self.path_of(name))
        if old:
            self._fs.sync_directory(self._directory)
        kept = set(names).difference(old)
        self.release_databases(min((name.index for name in kept), default=0))
        return len(old)

    def save_database(self, stream: BinaryIO, index: int) -> int:
        """Save the state of snapshot ``index`` beside it, whatever its size; how many bytes.

        For a state that is too large for a message: it is copied from ``stream`` in
        pieces, into ``{index:016x}.snap.db``, and is whole and durable when this returns.
        Save it before the snapshot that needs it.  One that is there already stays.
        (etcd: ``Snapshotter.SaveDBFrom``.)

        Raises `WriteFailedError`, and what reading ``stream`` raises; there is then no
        file of that name, or, when only the last directory sync failed, perhaps a whole one.
        """
        started = time.perf_counter()
        path = self._path_of_database(index)
        in_writing = f"{path}.tmp"
        try:
            make_directories(self._fs, self._directory)
            file = self._fs.create(in_writing)
            try:
                size = 0
                for chunk in _chunks_of(stream):
                    file.write(size, chunk)
                    size += len(chunk)
                sync_started = time.perf_counter()
                file.sync()
                self._metrics.database_sync_seconds.observe(time.perf_counter() - sync_started)
            finally:
                file.close()
            if self._fs.exists(path):
                self._fs.remove(in_writing)
            else:
                self._fs.rename(in_writing, path)
            # For one that was there, too: a crash may have come before this line.
            self._fs.sync_directory(self._directory)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._fs.remove(in_writing)
            if isinstance(error, _StreamFailedError):
                raise error.cause from None
            if not isinstance(error, OSError):
                raise
            log.error("snapshot_database_failed", path=path, error=str(error))
            raise WriteFailedError(
                f"cannot save the snapshot's database: {error.strerror or error}",
                path=path,
                index=index,
            ) from error
        seconds = time.perf_counter() - started
        self._metrics.database_save_seconds.observe(seconds)
        log.info(
            "snapshot_database_saved", path=path, index=index, bytes=size, seconds=round(seconds, 6)
        )
        return size

    def database_path(self, index: int) -> str:
        """The file that `save_database` saved.  Raises `NoSnapshotError` without one."""
        path = self._path_of_database(index)
        if not self._fs.exists(path):
            raise NoSnapshotError("there is no database of this snapshot", path=path, index=index)
        return path

    def release_databases(self, index: int) -> int:
        """Remove the databases of snapshots below ``index``; how many went.

        `purge` does it for those below the oldest snapshot that it keeps.

        Raises ``OSError``.
        """
        if not self._fs.is_directory(self._directory):
            return 0
        old = [
            file_name
            for file_name in self._fs.list(self._directory)
            if (match := _DATABASE_NAME.fullmatch(file_name)) and int(match[1], 16) < index
        ]
        for file_name in old:
            path = os.path.join(self._directory, file_name)
            self._fs.remove(path)
            log.info("snapshot_database_released", path=path)
        if old:
            self._fs.sync_directory(self._directory)
        return len(old)

    def _path_of_database(self, index: int) -> str:
        return os.path.join(self._directory, f"{index:016x}.snap.db")

    def remove_unfinished(self) -> None:
        """Remove what a save that a crash interrupted left.  Raises ``OSError``."""
        if self._fs.is_directory(self._directory):
            for file_name in self._fs.list(self._directory):
                if file_name.endswith(_UNFINISHED):
                    self._fs.remove(os.path.join(self._directory, file_name))


class _StreamFailedError(Exception):
    """Reading failed with ``cause``: an ``OSError`` too, perhaps, but not of our disk."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(str(cause))


def _chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    try:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
    except Exception as error:
        raise _StreamFailedError(error) from error
