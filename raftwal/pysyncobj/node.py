"""`DurableNode`: what stands behind one SyncObj.  Storage, journal, barrier, failure."""

from __future__ import annotations

import os
import queue
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from pysyncobj import FAIL_REASON

from raftwal.errors import (
    InvalidSettingError,
    RaftwalError,
    RecordFormatError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.fs import DISK, FileSystem
from raftwal.identity import Identity
from raftwal.model import EntryType
from raftwal.pysyncobj.barrier import SendBarrier
from raftwal.pysyncobj.dump import Dump
from raftwal.pysyncobj.false_alarm import set_ticking
from raftwal.pysyncobj.journal import DurableJournal, JournalEntry
from raftwal.pysyncobj.node_ids import Votes
from raftwal.pysyncobj.reception import Reception
from raftwal.storage import RaftStorage
from raftwal.wal.segments import DEFAULT_SEGMENT_BYTES

_FOLLOWER = 0

StorageFailureHook = Callable[[BaseException], None]


class StorageSettings(NamedTuple):
    """How a node keeps its log and snapshots; see `RaftStorage.open`.

    ``cluster_name`` is kept beside the node's id in the log: a directory of another
    cluster is refused.  ``on_storage_failure`` is called once, with the error, in the
    thread that ticks, when the storage has failed and the node has stopped taking
    part; exit the process in it, or let the node stand still.  ``executor`` runs what
    happens in the background (preparing segments, writing snapshots); threads of the
    node's own by default.
    """

    cluster_name: str = ""
    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    keep_segments: int = 5
    keep_snapshots: int = 5
    registry: CollectorRegistry | None = None
    metrics_namespace: str = "raftwal"
    on_storage_failure: StorageFailureHook | None = None
    fs: FileSystem = DISK
    executor: Executor | None = None


class DurableNode:
    """Everything that makes one SyncObj durable.

    The thread that ticks is the only one that calls it.  `flush` makes what is
    pending durable with one save, then lets the messages that waited for it go; it
    runs before each poll and after it, so that one sync covers a whole tick.

    Raises what `RaftStorage.open` raises.
    """

    def __init__(
        self, data_dir: str, node_id: str, partner_ids: Iterable[str], settings: StorageSettings
    ) -> None:
        self.settings = settings
        self.storage = RaftStorage.open(
            data_dir,
            identity=Identity(node_id, settings.cluster_name),
            segment_bytes=settings.segment_bytes,
            keep_segments=settings.keep_segments,
            keep_snapshots=settings.keep_snapshots,
            # The journal holds them.
            keep_entries=False,
            registry=settings.registry,
            namespace=settings.metrics_namespace,
            node=node_id,
            fs=settings.fs,
            executor=settings.executor,
        )
        self.failure: BaseException | None = None
        self._stopped = False
        self._closed = False
        self._claimed = False
        self._knows_membership = False
        self._on_close: list[Callable[[], None]] = []
        self._must_reach: int | None = None
        self._sync_obj: Callable[[], Any] = lambda: None
        try:
            self.recovered_dump, self.journal = self._journal_of(Votes([node_id, *partner_ids]))
        except BaseException:
            self.storage.close()
            raise
        reception = Reception(self.journal, lambda: self._sync_obj())  # noqa: PLW0108  # set later
        self.barrier = SendBarrier(
            self._is_durable, self._is_term_durable, reception.completed, reception.around
        )

    def _journal_of(self, votes: Votes) -> tuple[Dump | None, DurableJournal]:
        recovered = self.storage.recovered
        dump = Dump.of_snapshot(recovered.snapshot) if recovered.snapshot is not None else None
        for entry in recovered.entries:
            if not entry.data or entry.type is not EntryType.NORMAL:
                # A record's type is not covered by its checksum: see docs/guarantees.md.
                raise RecordFormatError(
                    "an entry without a command, which PySyncObj never writes",
                    path=self.storage.data_dir,
                    index=entry.index,
                )
        journal = DurableJournal(
            votes,
            recovered.hard_state,
            covered=[] if dump is None else [dump.previous, dump.last],
            entries=[(entry.data or b"", entry.index, entry.term) for entry in recovered.entries],
            on_one_second_timer=self.hand_over_commit,
            on_close=self.close,
            on_restored=self._reapply_membership,
        )
        return dump, journal

    @property
    def data_dir(self) -> str:
        """The node's data directory."""
        return self.storage.data_dir

    def attach(self, sync_obj: Any) -> None:
        """Name the SyncObj that this stands behind, once it exists."""
        self._sync_obj = weakref.ref(sync_obj)
        # A SyncObj that is dropped without destroy() must not keep the lock.
        weakref.finalize(sync_obj, self.close).atexit = False
        sync_obj.addOnTickCallback(self.flush)
        # PySyncObj numbers the commands it forwards from 1 in every process.  A leader
        # that is behind may answer one from before a restart after it: that answer
        # would go to the new command of the same number, and claim that it is committed.
        sync_obj._SyncObj__commandsLocalCounter = int.from_bytes(os.urandom(6), "big")

    def call_on_close(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called before the storage is closed."""
        self._on_close.append(callback)

    def save_pending(self) -> None:
        """Make terms, votes and entries that wait durable, with one save.

        Raises `WriteFailedError` or `CommittedEntryContradictedError`, and the node has
        then failed.
        """
        self.check_usable()
        if self.journal.contradiction is not None:
            self.fail(self.journal.contradiction)
            raise self.journal.contradiction
        unsaved = self.journal.take_unsaved()
        if unsaved is None:
            return
        try:
            self.storage.save(unsaved.hard_state, unsaved.entries)
        except BaseException as error:  # an interrupt is as final
            self.fail(error)
            raise

    def flush(self) -> None:
        """Make what is pending durable, then let the messages that waited for it go."""
        if self.failure is not None or self._closed:
            return
        self._check_loaded()
        self.save_pending()
        self.barrier.release()

    def hand_over_commit(self) -> None:
        """Give the system the commit index, which nothing waits for: once a second.

        After a crash of the process alone, the node then knows what was committed.
        """
        if self.failure is not None or self._closed:
            return
        self.save_pending()
        try:
            self.storage.flush()
        except BaseException as error:  # an interrupt is as final
            self.fail(error)
            raise

    def install(self, dump: Dump) -> None:
        """Make a snapshot received from the leader durable, vouched for and current.

        The file comes first, then its record, then the commit index that vouches for
        it, each synced: a crash in between leaves the node with what it had before.

        Raises `WriteFailedError`, and the node has then failed.
        """
        self.save_pending()
        self.journal.set_snapshot_index(dump.last_index)
        try:
            self.storage.save_snapshot(dump.to_snapshot())
            self.save_pending()
            self.storage.sync()
        except BaseException as error:  # an interrupt is as final
            self.fail(error)
            raise
        log.info("snapshot_installed", path=self.data_dir, index=dump.last_index, term=dump.last[2])

    def expect_load_up_to(self, index: int) -> None:
        """PySyncObj is loading a snapshot of ``index``, and hides it when that fails."""
        self._must_reach = index

    def take_recovered_dump(self) -> Dump | None:
        """The snapshot's dump that was recovered, once: it can be as large as the state."""
        dump, self.recovered_dump = self.recovered_dump, None
        recovered = self.storage.recovered
        if recovered.snapshot is not None:
            snapshot = recovered.snapshot._replace(data=b"")
            self.storage.recovered = recovered._replace(snapshot=snapshot)
        return dump

    def applied_index(self) -> int:
        """The index that the state machine has reached; 0 without one."""
        sync_obj = self._sync_obj()
        return 0 if sync_obj is None else int(sync_obj.raftLastApplied)

    def apply_again_from(self, index: int) -> None:
        """The state machine is at ``index`` now: apply what follows, once more if need be."""
        entries = self.journal
        if not entries[0][1] <= index + 1 <= entries[-1][1] + 1:
            self.fail(
                RaftwalError(
                    f"the application loaded a snapshot of index {index}, and the log does not "
                    "have what follows it",
                    path=self.data_dir,
                    index=index,
                    advice="Restart the node: it starts from its own newest snapshot",
                )
            )
            return
        self._sync_obj()._SyncObj__raftLastApplied = index

    def claim(self) -> DurableJournal:
        """The journal, for the one SyncObj that this node is made for.

        Raises `InvalidSettingError` the second time.
        """
        if self._claimed:
            raise InvalidSettingError(
                "this configuration belongs to another node's SyncObj",
                path=self.data_dir,
                advice="Make a SyncObjConf for each node",
            )
        self._claimed = True
        return self.journal

    def check_usable(self) -> None:
        """Raises `WriteFailedError` once the node has failed."""
        if self.failure is not None:
            raise WriteFailedError(
                f"the node has stopped after a storage failure: {self.failure}",
                path=self.data_dir,
            ) from self.failure

    def add_to_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """PySyncObj's status, with ``storage_failure``: the reason as text, or ``None``."""
        status["storage_failure"] = None if self.failure is None else str(self.failure)
        return status

    def fail(self, error: BaseException) -> None:
        """From here on nothing leaves this node.  `stop_taking_part` does the rest."""
        if self.failure is None:
            self.failure = error
            self.barrier.close()
            log.error("node_failed", path=self.data_dir, error=str(error))

    def tick(self, sync_obj: Any, original: Callable[[float], None], time_to_wait: float) -> None:
        """One tick of PySyncObj between two flushes; after a failure, none."""
        if self._sync_obj() is None:
            self.attach(sync_obj)
        if self._closed:
            # Nothing can be made durable any more, so nothing may be promised.
            self._fail_commands(sync_obj)
            time.sleep(time_to_wait)
            return
        try:
            if self.failure is None:
                self._tick_between_flushes(sync_obj, original, time_to_wait)
            else:
                time.sleep(time_to_wait)
        except Exception:
            # A failure stops the node below.  Anything else is PySyncObj's to log.
            if self.failure is None:
                raise
        finally:
            if self.failure is not None:
                self.stop_taking_part(sync_obj)

    def _tick_between_flushes(
        self, sync_obj: Any, original: Callable[[float], None], time_to_wait: float
    ) -> None:
        set_ticking(True)
        try:
            if self.recovered_dump is not None:
                sync_obj._SyncObj__loadDumpFile(clearJournal=False)
                self._check_loaded()
                self.check_usable()
            if not self._knows_membership:
                # As in Raft, what stands in the log counts, committed or not.  PySyncObj
                # forgets it with a restart until it knows that it is committed.
                self._knows_membership = True
                self._reapply_membership(self.journal[:])
            original(time_to_wait)
        finally:
            set_ticking(False)
            # Also when it raised: the next tick counts what this one added.
            self.journal.end_handler()
            if self.failure is None:
                self.flush()

    def stop_taking_part(self, sync_obj: Any) -> None:
        """Leave the cluster, fail what waits, call the hook.  Later calls fail what came since.

        A command that others may know of gets ``UNKNOWN_OUTCOME``: they may yet commit
        it.  One that never left this node gets ``REQUEST_DENIED``.
        """
        if not self._stopped:
            self._stopped = True
            try:
                sync_obj._SyncObj__transport.destroy()
            except Exception as error:
                log.warning("transport_not_closed", path=self.data_dir, error=str(error))
            sync_obj._SyncObj__connectedNodes.clear()
            sync_obj._SyncObj__raftLeader = None
            try:
                sync_obj._SyncObj__setState(_FOLLOWER)
            except Exception:
                # The application's onStateChanged; the state is set by then.
                log.exception("state_callback_failed", path=self.data_dir)
            self._fail_commands(sync_obj)
            if self.settings.on_storage_failure is not None and self.failure is not None:
                try:
                    self.settings.on_storage_failure(self.failure)
                except Exception:
                    log.exception("storage_failure_hook_failed", path=self.data_dir)
        else:
            self._fail_commands(sync_obj)

    def _fail_commands(self, sync_obj: Any) -> None:
        waiting = sync_obj._SyncObj__commandsWaitingCommit
        for index in sorted(waiting):
            for _, callback in waiting.pop(index):
                _call(callback, FAIL_REASON.UNKNOWN_OUTCOME)
        replies = sync_obj._SyncObj__commandsWaitingReply
        for request in sorted(replies):
            _call(replies.pop(request), FAIL_REASON.UNKNOWN_OUTCOME)
        # What callbacks queue anew waits for the next tick.
        for callback in _take_queued(sync_obj._SyncObj__commandsQueue):
            _call(callback, FAIL_REASON.REQUEST_DENIED)

    def close(self) -> None:
        """Save what is pending and close the storage.  Idempotent."""
        if self._closed:
            return
        try:
            for callback in self._on_close:
                callback()
            if self.failure is None:
                self.save_pending()
        except RaftwalError as error:
            # No message that depends on it will leave: nothing was promised.
            log.error("last_save_failed", path=self.data_dir, error=str(error))
        finally:
            self._closed = True
            self.barrier.close()
            try:
                self.storage.close()
            except RaftwalError as error:
                log.error("last_save_failed", path=self.data_dir, error=str(error))

    def _is_durable(self) -> bool:
        return (
            self._must_reach is None
            and self.journal.contradiction is None
            and not self.journal.keeps_a_promise_unsaved
        )

    def _is_term_durable(self) -> bool:
        return not self.journal.keeps_a_term_unsaved

    def _check_loaded(self) -> None:
        """Whether the snapshot that was being loaded has been.

        PySyncObj logs an exception and goes on, with a state that misses everything
        the snapshot held, and acknowledges it.
        """
        index, self._must_reach = self._must_reach, None
        if index is not None and self.applied_index() < index:
            error = RaftwalError(
                "PySyncObj could not load the snapshot into the application's objects "
                "(its log has the reason)",
                path=self.data_dir,
                index=index,
                advice="Run the version of the application that made the snapshot, or a newer one",
            )
            self.fail(error)
            raise error

    def _reapply_membership(self, restored: list[JournalEntry]) -> None:
        # Also after a cut: PySyncObj took back the membership changes in what it cut; see
        # DurableJournal.deleteEntriesFrom.
        sync_obj = self._sync_obj()
        if sync_obj is None or not sync_obj.conf.dynamicMembershipChange:
            return
        for command, _, _ in restored:
            request = sync_obj._SyncObj__parseChangeClusterRequest(command)
            if request is not None:
                sync_obj._SyncObj__doChangeCluster(request)


def _take_queued(commands: Any) -> list[Any]:
    callbacks = []
    while True:
        try:
            callbacks.append(commands.get_nowait()[1])
        except queue.Empty:
            return callbacks


def _call(callback: Any, reason: int) -> None:
    if not callable(callback):
        return  # None, or a remote caller's address: its own timeout tells it
    try:
        callback(None, reason)
    except Exception:
        log.exception("callback_failed", callback=repr(callback), pid=os.getpid())
