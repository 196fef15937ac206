"""From a directory to an open log, and what a node starts from."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import Executor
from typing import NamedTuple

from raftwal.errors import (
    CommitBeyondLogError,
    IdentityMismatchError,
    NoSnapshotError,
    SnapshotAheadOfLogError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.fs import FileSystem, make_directories
from raftwal.identity import Identity
from raftwal.metrics import StorageMetrics
from raftwal.model import START_OF_LOG, Entry, HardState, Snapshot, SnapshotMetadata
from raftwal.snapshots import Snapshotter
from raftwal.wal.checking import RepairReport, repair
from raftwal.wal.creation import lock_segments
from raftwal.wal.log import WAL
from raftwal.wal.reading import LogContents, read_whole_log
from raftwal.wal.segments import SegmentName, is_empty_directory, list_segments
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
        segments = list_segments(self._fs, self._wal_directory)
        # A log that another process writes to can look torn or worse; ask first.
        for _, file in lock_segments(self._fs, self._wal_directory, segments[-1:]):
            file.close()
        survey, _ = read_whole_log(self._fs, self._wal_directory)
        if metadata is not None:
            self._check_identity(survey.metadata, metadata)
        repaired = RepairReport(repaired=False)
        snapshot = self._newest_snapshot(survey, segments)
        self._check_commit(survey, snapshot)
        if survey.torn_tail is not None:
            repaired = repair(self._wal_directory, fs=self._fs)
            self._metrics.repairs.inc()
        # It can be as large as the log, which is read once more.
        del survey
        start = snapshot.metadata if snapshot is not None else START_OF_LOG
        wal = WAL.open(
            self._wal_directory,
            start,
            segment_bytes=self._segment_bytes,
            fs=self._fs,
            metrics=self._metrics.wal,
            executor=self._executor,
            preallocation=self._preallocation,
        )
        try:
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

    def _newest_snapshot(self, survey: LogContents, segments: list[SegmentName]) -> Snapshot | None:
        first_index = segments[0].index
        commit = survey.hard_state.commit
        vouched = [
            snapshot
            for snapshot, segment in zip(survey.snapshots, survey.snapshot_segments, strict=True)
            if 0 < snapshot.index <= commit and _is_read_from(segments, snapshot.index, segment)
        ]
        snapshot: Snapshot | None = None
        with contextlib.suppress(NoSnapshotError):
            snapshot = self._load_newest(vouched)
        if first_index > (snapshot.metadata.index if snapshot is not None else 0):
            raise SnapshotAheadOfLogError(
                f"the log starts at index {first_index}, and no snapshot from there on is "
                "whole and vouched for",
                path=self._data_dir,
                index=first_index,
                advice="Put the missing snapshot file back; otherwise empty this node's "
                "data directory and let it rejoin from its peers",
            )
        return snapshot

    def _load_newest(self, vouched: list[SnapshotMetadata]) -> Snapshot:
        if self._keep_snapshot_data:
            return self.snapshotter.load_newest(vouched)
        with self.snapshotter.open_newest(vouched) as reader:
            return Snapshot(reader.metadata)

    def _check_commit(self, survey: LogContents, snapshot: Snapshot | None) -> None:
        last_index = survey.entries[-1].index if survey.entries else 0
        if snapshot is not None:
            last_index = max(last_index, snapshot.metadata.index)
        commit = survey.hard_state.commit
        if commit > last_index:
            raise CommitBeyondLogError(
                f"the log commits index {commit} but ends at {last_index}",
                path=self._wal_directory,
                index=commit,
            )


def _is_read_from(segments: list[SegmentName], index: int, record_segment: str) -> bool:
    """Whether a reader that starts from the snapshot ``index`` meets this record of it."""
    starts = [str(segment) for segment in segments if segment.index <= index]
    # Names sort as the segments do.
    return bool(starts) and record_segment >= starts[-1]
