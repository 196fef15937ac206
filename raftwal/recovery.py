"""From a directory to an open log, and what a node starts from."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import NamedTuple

from raftwal.errors import (
    CommitBeyondLogError,
    IdentityMismatchError,
    NoSnapshotError,
    SnapshotAheadOfLogError,
    SnapshotMismatchError,
    SnapshotNotFoundError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.fs import FileSystem, make_directories
from raftwal.identity import Identity
from raftwal.metrics import StorageMetrics
from raftwal.model import START_OF_LOG, Entry, HardState, Snapshot, SnapshotMetadata
from raftwal.snapshots import Snapshotter
from raftwal.wal.checking import RepairReport, repair
from raftwal.wal.interpreting import LogContents
from raftwal.wal.log import WAL
from raftwal.wal.segments import is_empty_directory, list_segments
from raftwal.wal.zeroing import DEFAULT_PREALLOCATION, Preallocation

WAL_DIRECTORY = "wal"
SNAPSHOT_DIRECTORY = "snap"


class Recovered(NamedTuple):
    """What a node starts from.

    ``snapshot`` is the newest that is whole and vouched for, or ``None``; without its
    data where the storage was opened with ``keep_snapshot_data=False``.  ``entries``
    follow on it, committed or not, and there were ``entry_count`` of them; ``metadata`` is
    what the directory was created with; ``repair`` says what a torn tail cost; ``seconds``
    is how long it took.
    """

    snapshot: Snapshot | None
    hard_state: HardState
    entries: list[Entry]
    metadata: bytes | None
    repair: RepairReport
    seconds: float
    entry_count: int = 0


class Opening:
    """The steps from a directory to an open log and what was recovered from it."""

    def __init__(
        self,
        data_dir: str,
        fs: FileSystem,
        metrics: StorageMetrics,
        segment_bytes: int,
        executor: Executor | None,
        keep_snapshot_data: bool = True,
        preallocation: Preallocation = DEFAULT_PREALLOCATION,
    ) -> None:
        self._data_dir = data_dir
        self._fs = fs
        self._metrics = metrics
        self._segment_bytes = segment_bytes
        self._executor = executor
        self._preallocation: Preallocation = preallocation
        self._keep_snapshot_data = keep_snapshot_data
        self._wal_directory = os.path.join(data_dir, WAL_DIRECTORY)
        self.snapshotter = Snapshotter(
            os.path.join(data_dir, SNAPSHOT_DIRECTORY), fs=fs, metrics=metrics.snapshots
        )

    def create_or_recover(self, metadata: bytes | None) -> tuple[WAL, Recovered]:
        """A new log with ``metadata``, or the one that is there if it has the same.

        Raises as `raftwal.RaftStorage.open` does.
        """
        started = time.perf_counter()
        directory = self._wal_directory
        if not self._fs.exists(directory) or is_empty_directory(self._fs, directory):
            return self._create(metadata, started)
        return self._recover(metadata, started)

    def _create(self, metadata: bytes | None, started: float) -> tuple[WAL, Recovered]:
        if self.snapshotter.names():
            raise SnapshotAheadOfLogError(
                "there are snapshots, but no log that goes with them", path=self._data_dir
            )
        try:
            make_directories(self._fs, os.path.join(self._data_dir, SNAPSHOT_DIRECTORY))
            # Also where the application, or a start that was killed, made the directory.
            self._fs.sync_directory(os.path.dirname(self._data_dir))
        except OSError as error:
            raise WriteFailedError(
                f"cannot make the data directory: {error.strerror or error}",
                path=self._data_dir,
            ) from error
        wal = WAL.create(
            self._wal_directory,
            metadata,
            segment_bytes=self._segment_bytes,
            fs=self._fs,
            metrics=self._metrics.wal,
            executor=self._executor,
            preallocation=self._preallocation,
        )
        seconds = time.perf_counter() - started
        log.info("storage_created", path=self._data_dir, seconds=round(seconds, 6))
        recovered = Recovered(None, HardState(), [], metadata, RepairReport(False), seconds)
        return wal, recovered

    def _recover(self, metadata: bytes | None, started: float) -> tuple[WAL, Recovered]:
        wal, start, snapshot = self._newest_start(metadata)
        repaired = RepairReport(repaired=False)
        try:
            contents = wal.inspect()
            self._check_commit(contents, start)
            if contents.torn_tail is not None:
                # It takes the lock itself, and a log is read under its lock.
                wal.close()
                repaired = repair(self._wal_directory, start, fs=self._fs)
                self._metrics.repairs.inc()
                wal = self._open(start)
            contents = wal.read_all()
            self._remove_unfinished()
        except BaseException:
            wal.close()
            raise
        # Not those that a received snapshot contradicts (Raft paper, figure 13, step 7):
        # the node had them before, and its leader then sent it others.
        entries = contents.entries[contents.stale_entries :]
        recovered = Recovered(
            snapshot,
            contents.hard_state,
            entries,
            contents.metadata,
            repaired,
            time.perf_counter() - started,
            len(entries),
        )
        log.info(
            "storage_recovered",
            path=self._data_dir,
            snapshot_index=start.index,
            snapshot_term=start.term,
            entries=len(recovered.entries),
            last_index=start.index + len(recovered.entries),
            term=recovered.hard_state.term,
            commit=recovered.hard_state.commit,
            repaired=repaired.repaired,
            seconds=round(recovered.seconds, 6),
        )
        return wal, recovered

    def _check_identity(self, found: bytes | None, expected: bytes) -> None:
        if found == expected:
            return
        theirs, ours = Identity.decode(found), Identity.decode(expected)
        if theirs is not None and ours is not None:
            what = "the data directory belongs to " + ", ".join(
                f"{field.replace('_', ' ')} {their!r}, not {our!r}"
                for field, their, our in zip(Identity._fields, theirs, ours, strict=True)
                if their != our
            )
        else:
            what = f"the log was created with other metadata: {found!r}, not {expected!r}"
        raise IdentityMismatchError(what, path=self._data_dir)

    def _remove_unfinished(self) -> None:
        try:
            self.snapshotter.remove_unfinished()
        except OSError as error:
            log.warning("snapshot_not_removed", path=self._data_dir, error=str(error))

    def _newest_start(
        self, metadata: bytes | None
    ) -> tuple[WAL, SnapshotMetadata, Snapshot | None]:
        """The newest snapshot that is whole and vouched for, and the log, open from there.

        What is before it is not read: a start takes the time of what follows on it.
        """
        segments = list_segments(self._fs, self._wal_directory)
        for start in self._starts(segments[0].index):
            wal = self._open(start)
            try:
                contents = wal.inspect()
                if metadata is not None:
                    self._check_identity(contents.metadata, metadata)
                if start.index == 0:
                    return wal, start, None
                if self._vouches(contents, start):
                    return wal, start, self._load(start)
            except (SnapshotNotFoundError, SnapshotMismatchError, NoSnapshotError):
                if start.index == 0:
                    wal.close()
                    raise
            except BaseException:
                wal.close()
                raise
            wal.close()
        first_index = segments[0].index
        raise SnapshotAheadOfLogError(
            f"the log starts at index {first_index}, and no snapshot from there on is "
            "whole and vouched for",
            path=self._data_dir,
            index=first_index,
            advice="Put the missing snapshot file back; otherwise empty this node's "
            "data directory and let it rejoin from its peers",
        )

    def _starts(self, first_index: int) -> Iterator[SnapshotMetadata]:
        """From where a log that begins at ``first_index`` may be read, the newest first."""
        for term, index in self.snapshotter.names():
            if index >= max(first_index, 1):
                yield SnapshotMetadata(index, term)
        if first_index == 0:
            yield START_OF_LOG

    def _vouches(self, contents: LogContents, start: SnapshotMetadata) -> bool:
        """Whether a log that has a record of this snapshot commits its index, too."""
        return contents.hard_state.commit >= start.index

    def _open(self, start: SnapshotMetadata) -> WAL:
        return WAL.open(
            self._wal_directory,
            start,
            segment_bytes=self._segment_bytes,
            fs=self._fs,
            metrics=self._metrics.wal,
            executor=self._executor,
            preallocation=self._preallocation,
        )

    def _load(self, start: SnapshotMetadata) -> Snapshot:
        if self._keep_snapshot_data:
            return self.snapshotter.load_newest([start])
        with self.snapshotter.open_newest([start]) as reader:
            return Snapshot(reader.metadata)

    def _check_commit(self, contents: LogContents, start: SnapshotMetadata) -> None:
        last_index = contents.entries[-1].index if contents.entries else start.index
        commit = contents.hard_state.commit
        if commit > last_index:
            raise CommitBeyondLogError(
                f"the log commits index {commit} but ends at {last_index}",
                path=self._wal_directory,
                index=commit,
            )
