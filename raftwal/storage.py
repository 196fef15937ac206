"""`RaftStorage`: one data directory, the log and the snapshots of one node."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future

from prometheus_client import CollectorRegistry

from raftwal.errors import (
    InvalidSettingError,
    SnapshotOutOfDateError,
    UnavailableError,
)
from raftwal.events import log
from raftwal.fs import DISK, FileSystem
from raftwal.held_log import HeldLog
from raftwal.identity import Identity
from raftwal.metrics import StorageMetrics, storage_metrics
from raftwal.model import (
    EMPTY_HARD_STATE,
    START_OF_LOG,
    ConfState,
    Entry,
    HardState,
    InitialState,
    Snapshot,
    SnapshotMetadata,
)
from raftwal.recovery import WAL_DIRECTORY, Opening, Recovered
from raftwal.snapshot_files import SnapshotReader
from raftwal.snapshots import Snapshotter
from raftwal.spool import Spool
from raftwal.storage_admission import check_save, check_snapshot
from raftwal.usage import report_usage
from raftwal.wal.admission import check_snapshot_metadata
from raftwal.wal.admitting import Gate
from raftwal.wal.log import WAL
from raftwal.wal.purging import purge_segments
from raftwal.wal.segments import DEFAULT_SEGMENT_BYTES
from raftwal.wal.zeroing import DEFAULT_PREALLOCATION, Preallocation


class _VouchFirst(Exception):  # noqa: N818 - it is no error, and never leaves this module
    """A save whose commit index reaches a received snapshot."""


class RaftStorage:
    """A node's log and snapshots in one directory, laid out as etcd's: ``wal/``, ``snap/``.

    Made by `RaftStorage.open`.  Threads may share it: what they save takes effect in the
    order of the calls, and those that wait for the disk at the same time share one write
    and one sync.

    It is the storage that a Raft library in etcd's style asks: `initial_state`,
    `first_index`, `last_index`, `term`, `entries`, `snapshot` answer what its
    ``raft.Storage`` does, `save`, `save_snapshot` and `compact` are what its
    ``MemoryStorage`` has besides, here on disk.  ``raftwal.testing.storage_suite`` has the
    contract as tests.
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
        keep_entries: bool,
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
        self._held = HeldLog(self._snapshot, recovered.entries, keeps_entries=keep_entries)
        self._gate = Gate(self._check_save, self._held.append)
        wal.when_failed(lambda: metrics.failed.set(1))
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
        keep_entries: bool = True,
        keep_snapshot_data: bool = True,
        metrics: StorageMetrics | None = None,
        registry: CollectorRegistry | None = None,
        namespace: str = "raftwal",
        node: str | None = None,
        fs: FileSystem = DISK,
        executor: Executor | None = None,
        preallocation: Preallocation = DEFAULT_PREALLOCATION,
    ) -> RaftStorage:
        """Create the directory's log, or recover what is there.

        Recovery repairs a torn tail, finds the newest snapshot that is whole and that
        the log vouches for, and replays the log from there into ``recovered``.

        ``identity`` (or raw ``metadata``, at most one of the two) is written when the
        log is created and compared when it is opened; with neither, a log of any
        identity is opened.  ``keep_entries=False`` spares the memory of a node that holds
        its log itself and never asks for `entries`, ``keep_snapshot_data=False`` that of a
        state which `open_snapshot` reads piece by piece.  ``registry``, ``namespace`` and
        ``node`` (the value of the metrics' ``node`` label, the identity's node id or the
        directory by default) choose where metrics go, or ``metrics`` gives them ready made.
        ``preallocation`` is `WAL.create`'s: how segments get their space ahead of need.

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
        opening = Opening(
            directory,
            fs,
            metrics,
            segment_bytes,
            executor,
            keep_snapshot_data=keep_snapshot_data,
            preallocation=preallocation,
        )
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
                keep_entries=keep_entries,
            )
        except BaseException:
            wal.close()
            raise

    @property
    def hard_state(self) -> HardState:
        """The last hard state saved or recovered."""
        return self._wal.hard_state

    def initial_state(self) -> InitialState:
        """The hard state, and the membership of the newest snapshot that is vouched for.

        Both are empty in a new storage, as in etcd's ``InitialState``.
        """
        return InitialState(self.hard_state, self._snapshot.conf_state or ConfState())

    @property
    def first_index(self) -> int:
        """The index of the first entry that `entries` can give; one above `last_index`
        when there is none.  Moved by `compact`, not by a snapshot.
        """
        return self._held.first_index

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the newest snapshot if that is further.

        A received snapshot counts from the `save` that moves the commit index to it.
        """
        return self._held.last_index

    def term(self, index: int) -> int:
        """The term of the entry at ``index``, from `first_index` - 1 to `last_index`.

        Raises `CompactedError` below that, `UnavailableError` above.
        """
        return self._held.term(index)

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> list[Entry]:
        """The entries from index ``low`` up to, not with, ``high``, in a list of its own.

        With ``max_bytes``, no more of them than take that many bytes on the wire, but
        one at least.

        Raises `CompactedError` when ``low`` is below `first_index`, `UnavailableError`
        when ``high`` is beyond the end or the storage holds no entry at all (as etcd's
        ``Entries``), and `InvalidSettingError` for a storage opened with
        ``keep_entries=False``.
        """
        return self._held.entries(low, high, max_bytes)

    def snapshot(self) -> Snapshot:
        """The newest snapshot that the log vouches for, read from its file.

        One of index 0, with no data and no members, before the first.

        Raises `NoSnapshotError` when its file is no longer whole, `ReadFailedError`.
        """
        return self.load_snapshot() or Snapshot(SnapshotMetadata(conf_state=ConfState()))

    def compact(self, index: int) -> None:
        """Let go of the entries up to ``index`` in memory; its term stays known.

        Keep some behind the snapshot, so that a follower that lags a little needs no
        snapshot.  What is on disk was freed by `save_snapshot`.

        Raises `CompactedError` when they are gone already, `UnavailableError` when
        ``index`` is above the last entry, or above the newest snapshot: nothing goes
        before what replaces it is durable.
        """
        if self._snapshot.index < index <= self.last_index:
            raise UnavailableError(
                f"entries up to {index} cannot go: the newest snapshot is of index "
                f"{self._snapshot.index}",
                index=index,
                advice="Save a snapshot first",
            )
        self._held.compact(index)

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

        `last_index`, `entries` and `term` answer for it from the moment in which it has
        its place in the order, durable or not.

        Raises `InvalidEntryError` before anything is written, `WriteFailedError`,
        `ClosedError`.
        """
        if not isinstance(entries, Sequence):
            entries = list(entries)
        try:
            self._wal.save_through(self._gate, hard_state, entries)
            return
        except _VouchFirst:
            pass
        self._vouch_and_save(hard_state, entries)

    def submit(
        self,
        hard_state: HardState | None,
        entries: Iterable[Entry] = (),
        callback: Callable[[Future[None]], object] | None = None,
    ) -> Future[None]:
        """As `save`, without the wait for the disk: see `WAL.submit`.

        There is a wait while another thread records a snapshot, and for a save whose
        commit index reaches a received one.

        Raises as `save` does, but for failures that are yet to come.
        """
        if not isinstance(entries, Sequence):
            entries = list(entries)
        try:
            return self._wal.submit_through(self._gate, hard_state, entries, callback)
        except _VouchFirst:
            pass
        self._vouch_and_save(hard_state, entries)
        # It is durable: its future is done behind those of earlier saves.
        return self._wal.submit(None, (), callback)

    def save_next(self, number: Callable[[int], Sequence[Entry]]) -> Sequence[Entry]:
        """`save` entries that ``number`` makes, given the index of the first: they go on
        behind `last_index`, whoever else saves.  Returns them, durable.

        ``number`` is called while no other save can be: it must not call the storage, nor
        take long.  Raises as `save` does, and what ``number`` raises.
        """
        return self._wal.save_next_through(self._gate, lambda _: number(self._held.last_index + 1))

    def _check_save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        state = self.hard_state if hard_state in (None, EMPTY_HARD_STATE) else hard_state
        check_save(state.commit, entries, self._held, self._snapshot, self._unvouched)
        if hard_state is not None and self.vouches(hard_state):
            raise _VouchFirst

    def vouches(self, hard_state: HardState) -> bool:
        """Whether a save of this commit index reaches a received snapshot, which takes
        several syncs; `submit` waits for them.
        """
        return self._unvouched is not None and hard_state.commit >= self._unvouched.index

    def _vouch_and_save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        with self._wal.alone():
            gate = self._gate
            with contextlib.suppress(_VouchFirst):
                # Another thread may have vouched for it meanwhile.
                self._wal.save_through(gate, hard_state, entries)
                return
            if self._unvouched is not None and hard_state is not None:
                self._vouch(self._unvouched, hard_state)
            # It was admitted as one that follows on the log before.
            self._wal.save_through(gate._replace(check=lambda *_: None), hard_state, entries)

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

        Raises `SnapshotOutOfDateError` when there is one of this index or a later one
        that the log vouches for, `InvalidSnapshotError` when a committed entry of that
        index has another term, `WriteFailedError`, `ClosedError`.
        """
        with self._wal.alone():
            self.check_snapshot(snapshot.metadata)
        self._snapshotter.save(snapshot)
        self.record_snapshot(snapshot.metadata)

    def check_snapshot(self, metadata: SnapshotMetadata) -> None:
        """Raises as `save_snapshot` does for a snapshot that it would not take, now."""
        self._wal.check_usable()
        check_snapshot_metadata(metadata)
        self._check_snapshot(metadata)

    def save_snapshot_file(self, snapshot: Snapshot) -> None:
        """The first half of `save_snapshot`: the file.  Safe in another thread.

        Raises `WriteFailedError`; the log is not affected.
        """
        self._snapshotter.save(snapshot)

    def save_snapshot_stream(self, metadata: SnapshotMetadata, chunks: Iterable[bytes]) -> None:
        """As `save_snapshot_file`, of data in pieces: see `Snapshotter.save_stream`.

        Raises as it does, and what ``chunks`` raises.
        """
        self._snapshotter.save_stream(metadata, chunks)

    def spool(self) -> Spool:
        """A place for what may become a snapshot, on the same disk.  Safe in another thread.

        One that a crash left is removed when the storage is opened.
        """
        return self._snapshotter.spool()

    def record_snapshot(self, metadata: SnapshotMetadata) -> None:
        """The second half of `save_snapshot`: the record in the log, and the purge.

        One that a newer snapshot overtook while its file was written is passed over.
        """
        if metadata.conf_state is None:
            metadata = metadata._replace(conf_state=ConfState())
        with self._wal.alone():
            try:
                self._check_snapshot(metadata)
            except SnapshotOutOfDateError:
                log.info("snapshot_overtaken", path=self.data_dir, index=metadata.index)
                return
            self._wal.save_snapshot(metadata)
            if metadata.index <= self.hard_state.commit:
                self._adopt(metadata)
            else:
                self._unvouched = metadata

    def _check_snapshot(self, offered: SnapshotMetadata) -> None:
        check_snapshot(offered, self.hard_state.commit, self._held, self._snapshot)

    def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot that the log vouches for, read again, or ``None``.

        Raises `NoSnapshotError` when its file is no longer whole, `ReadFailedError`.
        """
        if self._snapshot.index == 0:
            return None
        return self._snapshotter.load_newest([self._snapshot])

    def open_snapshot(self) -> SnapshotReader | None:
        """The snapshot of `load_snapshot`, to be read in pieces; close it.

        All of it is read once, to check it.  Safe in another thread; it stays readable when
        the snapshot is purged meanwhile.

        Raises as `load_snapshot` does.
        """
        snapshot = self._snapshot
        if snapshot.index == 0:
            return None
        return self._snapshotter.open_newest([snapshot])

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
        self._wal.flush()

    def sync(self) -> None:
        """Make everything saved so far durable."""
        self._wal.sync()

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
        self._snapshot = snapshot
        if not self._held.agrees_with(snapshot):
            # Ahead of the log, or its leader's log was another (Raft paper, figure 13).
            self._held.restart_from(snapshot)
        self._metrics.snapshot_index.set(snapshot.index)
        self._metrics.snapshot_time.set(time.time())
        self.release(snapshot.index)
        self.purge()

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
        report_usage(self.data_dir, metrics)
