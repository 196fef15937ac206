"""`RaftStorage`: one data directory, the log and the snapshots of one node."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor

from prometheus_client import CollectorRegistry

from raftwal.errors import InvalidEntryError, InvalidSettingError
from raftwal.events import log
from raftwal.fs import DISK, FileSystem
from raftwal.identity import Identity
from raftwal.metrics import StorageMetrics, storage_metrics
from raftwal.model import (
    EMPTY_HARD_STATE,
    START_OF_LOG,
    ConfState,
    Entry,
    HardState,
    Snapshot,
    SnapshotMetadata,
)
from raftwal.recovery import WAL_DIRECTORY, Opening, Recovered
from raftwal.snapshots import Snapshotter
from raftwal.wal.admission import check_snapshot_metadata
from raftwal.wal.log import WAL
from raftwal.wal.purging import purge_segments
from raftwal.wal.segments import DEFAULT_SEGMENT_BYTES


class RaftStorage:
    """A node's log and snapshots in one directory, laid out as etcd's: ``wal/``, ``snap/``.

    Made by `RaftStorage.open`.  Not thread-safe: one thread at a time.
    """

    def __init__(
        self,
        data_dir: str,
        wal: WAL,
        snapshotter: Snapshotter,
        recovered: Recovered,
        *,
        fs: FileSystem,
        metrics: StorageMetrics,
        keep_segments: int,
        keep_snapshots: int,
    ) -> None:
        self.data_dir = data_dir
        self.recovered = recovered
        self._wal = wal
        self._snapshotter = snapshotter
        self._fs = fs
        self._metrics = metrics
        self._keep_segments = keep_segments
        self._keep_snapshots = keep_snapshots
        self._snapshot = recovered.snapshot.metadata if recovered.snapshot else START_OF_LOG
        # Received from a peer and recorded, but above the commit index so far.
        self._unvouched: SnapshotMetadata | None = None
        self._last_entry_index = max(
            self._snapshot.index, recovered.entries[-1].index if recovered.entries else 0
        )
        self._set_gauges(self._snapshot_file_time() if recovered.snapshot else 0.0)

    @classmethod
    def open(
        cls,
        data_dir: str | os.PathLike[str],
        metadata: bytes | None = None,
        *,
        identity: Identity | None = None,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        keep_segments: int = 5,
        keep_snapshots: int = 5,
        metrics: StorageMetrics | None = None,
        registry: CollectorRegistry | None = None,
        namespace: str = "raftwal",
        node: str | None = None,
        fs: FileSystem = DISK,
        executor: Executor | None = None,
    ) -> RaftStorage:
        """Create the directory's log, or recover what is there.

        Recovery repairs a torn tail, finds the newest snapshot that is whole and that
        the log vouches for, and replays the log from there into ``recovered``.

        ``identity`` (or raw ``metadata``, at most one of the two) is written when the
        log is created and compared when it is opened; with neither, a log of any
        identity is opened.  ``registry``, ``namespace`` and ``node`` (the value of the
        metrics' ``node`` label, the identity's node id or the directory by default)
        choose where metrics go, or ``metrics`` gives them ready made.

        Raises `IdentityMismatchError`, `LockedError`, the subclasses of
        `CorruptionError`, `ReadFailedError`, `WriteFailedError`; the directory is then
        as it was found, but for a repaired torn tail and for snapshot files that are not
        whole, which are renamed to ``<name>.broken``.
        """
        if metadata is not None and identity is not None:
            raise InvalidSettingError("give metadata or identity, not both")
        directory = os.path.abspath(data_dir)
        if metrics is None:
            name = node or (identity.node_id if identity else directory)
            metrics = storage_metrics(name, registry=registry, namespace=namespace)
        expected = identity.encode() if identity is not None else metadata
        opening = Opening(directory, fs, metrics, segment_bytes, executor)
        wal, recovered = opening.create_or_recover(expected)
        try:
            return cls(
                directory,
                wal,
                opening.snapshotter,
                recovered,
                fs=fs,
                metrics=metrics,
                keep_segments=keep_segments,
                keep_snapshots=keep_snapshots,
            )
        except BaseException:
            wal.close()
            raise

    @property
    def hard_state(self) -> HardState:
        """The last hard state saved or recovered."""
        return self._wal.hard_state

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of a newer snapshot."""
        return self._wal.last_index

    @property
    def snapshot_metadata(self) -> SnapshotMetadata:
        """The newest snapshot that the log vouches for; index 0 when there is none."""
        return self._snapshot

    @property
    def failure(self) -> BaseException | None:
        """The error after which the storage refuses every call, if there was one."""
        return self._wal.failure

    def save(self, hard_state: HardState | None, entries: Iterable[Entry] = ()) -> None:
        """Append to the log as `WAL.save` does; durable when this returns.

        Raises `InvalidEntryError` before anything is written, `WriteFailedError`,
        `ClosedError`.
        """
        self._wal.check_usable()
        if not isinstance(entries, Sequence):
            entries = list(entries)
        self._check_save(hard_state, entries)
        try:
            waiting = self._unvouched
            if waiting is not None and hard_state is not None and self._vouches(hard_state):
                self._vouch(waiting, hard_state)
            self._wal.save(hard_state, entries)
        finally:
            self._note_failure()
        if entries:
            self._last_entry_index = max(entries[-1][1], self._snapshot.index)

    def _check_save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Refuse what recovery would refuse.  Raises `InvalidEntryError`."""
        if hard_state is None or hard_state == EMPTY_HARD_STATE:
            hard_state = self.hard_state
        commit = hard_state.commit
        covered = self._snapshot.index
        if self._unvouched is not None and commit >= self._unvouched.index:
            covered = max(covered, self._unvouched.index)
        last = max(self._last_entry_index, covered)
        if entries:
            first, last_after = entries[0][1], entries[-1][1]
            if 0 < first <= self._snapshot.index:
                raise InvalidEntryError(
                    f"entry {first} is in the snapshot of index {self._snapshot.index}", index=first
                )
            if first > last + 1:
                raise InvalidEntryError(
                    f"entry {first} cannot follow entry {last}"
                    + (
                        ""
                        if self._unvouched is None
                        else ": no commit index vouches for the "
                        f"snapshot of index {self._unvouched.index} yet"
                    ),
                    index=first,
                )
            # The log may reach a received snapshot's index entry by entry, too.
            last = max(last_after, covered)
        if commit > last:
            raise InvalidEntryError(f"commit index {commit} is above the last entry, {last}")
        if commit < self._snapshot.index:
            raise InvalidEntryError(
                f"commit index {commit} is below the snapshot's, {self._snapshot.index}"
            )

    def _vouches(self, hard_state: HardState) -> bool:
        return self._unvouched is not None and hard_state.commit >= self._unvouched.index

    def _vouch(self, snapshot: SnapshotMetadata, hard_state: HardState) -> None:
        """Make a received snapshot the one to start from, before anything follows on it.

        Its record is written once more: segments begun since the first one may be
        named below the snapshot's index, and a reader that starts from it begins past
        them.  Record before commit index, and both before any entry: whatever a crash
        leaves of this, the log neither commits nor continues what it does not have.
        """
        self._wal.save_snapshot(snapshot)
        self._wal.save(hard_state._replace(commit=snapshot.index))
        self._wal.sync()
        self._adopt(snapshot)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Save a snapshot: its file first, then its record in the log, both durable.

        Then, if the log vouches for it (it is not above the commit index), segments
        and snapshots that it makes needless are purged; a snapshot that is ahead of
        the commit index (one received from a peer) waits for the `save` that moves it.

        Raises `WriteFailedError`, `ClosedError`.
        """
        self._wal.check_usable()
        check_snapshot_metadata(snapshot.metadata)
        self._snapshotter.save(snapshot)
        self.record_snapshot(snapshot.metadata)

    def save_snapshot_file(self, snapshot: Snapshot) -> None:
        """The first half of `save_snapshot`: the file.  Safe in another thread.

        Raises `WriteFailedError`; the log is not affected.
        """
        self._snapshotter.save(snapshot)

    def record_snapshot(self, metadata: SnapshotMetadata) -> None:
        """The second half of `save_snapshot`: the record in the log, and the purge."""
        if metadata.conf_state is None:
            metadata = metadata._replace(conf_state=ConfState())
        try:
            self._wal.save_snapshot(metadata)
        finally:
            self._note_failure()
        if metadata.index <= self.hard_state.commit:
            self._adopt(metadata)
        else:
            self._unvouched = metadata

    def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot that the log vouches for, read again, or ``None``.

        Raises `NoSnapshotError` when its file is no longer whole, `ReadFailedError`.
        """
        if self._snapshot.index == 0:
            return None
        return self._snapshotter.load_newest([self._snapshot])

    def release(self, index: int) -> None:
        """Unlock the segments that hold nothing above ``index``, but for the last."""
        self._wal.release_to(index)

    def purge(self) -> None:
        """Remove released segments and old snapshots beyond those to keep.

        A file that cannot be removed is logged and left for the next time: nothing
        depends on its being gone.
        """
        wal_directory = os.path.join(self.data_dir, WAL_DIRECTORY)
        try:
            purged = purge_segments(self._fs, wal_directory, self._keep_segments)
            self._metrics.purged_segments.inc(purged)
            purged = self._snapshotter.purge(self._snapshot, self._keep_snapshots)
            self._metrics.purged_snapshots.inc(purged)
        except OSError as error:
            log.warning("purge_failed", path=self.data_dir, error=str(error))

    def flush(self) -> None:
        """Hand records that wait for the next sync to the system, without a sync."""
        try:
            self._wal.flush()
        finally:
            self._note_failure()

    def sync(self) -> None:
        """Make everything saved so far durable."""
        try:
            self._wal.sync()
        finally:
            self._note_failure()

    def close(self) -> None:
        """Sync and close.  After a failure nothing is synced again.  Idempotent."""
        self._wal.close()

    def __enter__(self) -> RaftStorage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _adopt(self, snapshot: SnapshotMetadata) -> None:
        """Make a snapshot that is durable, recorded and vouched for the one to start from."""
        self._unvouched = None
        if snapshot.index < self._snapshot.index:
            return
        self._snapshot = snapshot
        self._metrics.snapshot_index.set(snapshot.index)
        self._metrics.snapshot_time.set(time.time())
        self.release(snapshot.index)
        self.purge()

    def _note_failure(self) -> None:
        if self._wal.failure is not None:
            self._metrics.failed.set(1)

    def _snapshot_file_time(self) -> float:
        # Only a figure for the operator, so the real file system will do.
        for name in self._snapshotter.names():
            if name == (self._snapshot.term, self._snapshot.index):
                try:
                    return os.stat(self._snapshotter.path_of(name)).st_mtime
                except OSError:
                    break
        return time.time()

    def _set_gauges(self, snapshot_time: float) -> None:
        metrics = self._metrics
        metrics.failed.set(0)
        metrics.snapshot_index.set(self._snapshot.index)
        metrics.snapshot_time.set(snapshot_time)
        metrics.wal.term.set(self.hard_state.term)
        metrics.wal.commit_index.set(self.hard_state.commit)
        metrics.wal.last_index.set(self.last_index)
