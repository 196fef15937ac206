"""`DurableNode`: what stands behind one SyncObj.  Storage, journal, barrier, failure."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from raftwal.background import is_task_of_this_thread
from raftwal.errors import (
    InvalidSettingError,
    RaftwalError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.identity import Identity
from raftwal.metrics import storage_metrics
from raftwal.model import HardState
from raftwal.pysyncobj.barrier import SendBarrier
from raftwal.pysyncobj.commitment import committed_by_durable_copies
from raftwal.pysyncobj.dump import DumpDescription
from raftwal.pysyncobj.fail_stop import fail_commands, forget_frames, leave_cluster
from raftwal.pysyncobj.false_alarm import set_ticking
from raftwal.pysyncobj.journal import DurableJournal, JournalEntry, Unsaved
from raftwal.pysyncobj.node_ids import Votes
from raftwal.pysyncobj.reception import Reception
from raftwal.pysyncobj.recovered_journal import recovered_description, recovered_entries
from raftwal.pysyncobj.reporting import report_memory, usage_facts
from raftwal.pysyncobj.settings import StorageSettings
from raftwal.pysyncobj.storage_calls import StorageCalls
from raftwal.pysyncobj.waking import Waker
from raftwal.storage import RaftStorage

_Result = TypeVar("_Result")


def _nothing(_: Any) -> None: ...


class DurableNode:
    """Everything that makes one SyncObj durable.

    The thread that ticks is the only one that calls it.  The storage is called on a
    thread beside it, one call after another.  `flush` lets messages go whose promises
    have become durable, and has what is pending saved, once the save before is done:
    so one sync covers all that came up meanwhile.  It runs before each poll and after
    it, and the end of a call ends the poll.

    Raises what `RaftStorage.open` raises.
    """

    def __init__(
        self, data_dir: str, node_id: str, partner_ids: Iterable[str], settings: StorageSettings
    ) -> None:
        self.settings = settings
        metrics = storage_metrics(
            node_id, registry=settings.registry, namespace=settings.metrics_namespace
        )
        self.storage = RaftStorage.open(
            data_dir,
            identity=Identity(node_id, settings.cluster_name),
            segment_bytes=settings.segment_bytes,
            preallocation=settings.preallocation,
            keep_segments=settings.keep_segments,
            keep_snapshots=settings.keep_snapshots,
            # The journal holds them.
            keep_entries=False,
            # It is opened when PySyncObj loads it.
            keep_snapshot_data=False,
            metrics=metrics,
            fs=settings.fs,
            executor=settings.executor,
        )
        self.failure: BaseException | None = None
        self.unknown_code_version: int | None = None
        """The one that stands next in the log, if the application's code does not know it."""
        self._process = os.getpid()
        self._stopped = False
        self._closed = False
        self._claimed = False
        self._knows_membership = False
        self._on_close: list[Callable[[], None]] = []
        self._must_reach: int | None = None
        self._sync_obj: Callable[[], Any] = lambda: None
        self._waker: Waker | None = None
        self._calls = StorageCalls(settings.save_executor, self._wake)
        self._installing: DumpDescription | None = None
        self.is_examining_snapshot = False
        """Whether a snapshot that was received is looked at, and no entry can follow yet."""
        recovered = self.storage.recovered
        try:
            self.recovered_dump = dump = recovered_description(self.storage)
            self.journal = DurableJournal(
                Votes([node_id, *partner_ids]),
                recovered.hard_state,
                covered=[] if dump is None else [dump.previous, dump.last],
                entries=recovered_entries(self.storage),
                on_one_second_timer=self.hand_over_commit,
                on_close=self.close,
                on_restored=self._reapply_membership,
                committed=self._committed,
            )
        except BaseException:
            self.storage.close()
            raise
        # The journal has them, and lets go of them when it is compacted.
        self.storage.recovered = recovered._replace(entries=[])
        report_memory(self.journal, metrics)
        reception = Reception(
            self.journal,
            lambda: self._sync_obj(),  # noqa: PLW0108  # set later
            lambda: self.is_installing,
        )
        self.barrier = SendBarrier(
            self.journal, reception.completed, reception.around, self._may_promise
        )

    @property
    def data_dir(self) -> str:
        """The node's data directory."""
        return self.storage.data_dir

    def attach(self, sync_obj: Any) -> None:
        """Name the SyncObj that this stands behind, once it exists."""
        self._sync_obj = weakref.ref(sync_obj)
        # A SyncObj that is dropped without destroy() must not keep the lock.
        weakref.finalize(sync_obj, self._close_when_dropped).atexit = False
        self._waker = Waker(sync_obj._poller)
        sync_obj.addOnTickCallback(self.flush)
        # PySyncObj numbers the commands it forwards from 1 in every process.  A leader
        # that is behind may answer one from before a restart after it: that answer
        # would go to the new command of the same number, and claim that it is committed.
        sync_obj._SyncObj__commandsLocalCounter = int.from_bytes(os.urandom(6), "big")

    def sync_obj(self) -> Any:
        """The SyncObj that this stands behind; ``None`` before there is one, and after."""
        return self._sync_obj()

    def call_on_close(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called before the storage is closed."""
        self._on_close.append(callback)

    def flush(self) -> None:
        """Let go what waited for the disk and need not any longer; begin the next save.

        Raises `WriteFailedError` or `CommittedEntryContradictedError`, and the node has
        then failed.
        """
        if self.failure is not None or self._closed or not self._is_in_its_process:
            return
        self._check_loaded()
        self._check_log()
        with self._final():
            self._calls.advance()
            # A commit index alone waits for a save that is needed, or for the timer: on a
            # leader it would be a save more for each that is.
            while not self._calls.are_under_way and self.journal.keeps_promises_unsaved:
                self._begin_save()
                self._calls.advance()
        self.barrier.release()

    def in_storage_order(
        self, call: Callable[[], _Result], then: Callable[[_Result], None] = _nothing
    ) -> None:
        """Run ``call`` on the storage's thread once all that is pending now is saved.

        ``then`` gets its result, in the thread that ticks.  What either raises is final:
        the node has failed.
        """
        self.check_usable()
        self._begin_save()
        self._calls.add(call, then)

    def hand_over_commit(self) -> None:
        """Give the system the commit index, which nothing waits for: once a second.

        After a crash of the process alone, the node then knows what was committed.
        """
        if self.failure is None and not self._closed and not self._calls.are_under_way:
            self.in_storage_order(self.storage.flush)

    def _begin_save(self) -> None:
        unsaved = self.journal.take_unsaved()
        if unsaved is not None:
            self._calls.add(
                lambda: self.storage.save(unsaved.hard_state, unsaved.entries),
                lambda _: self.journal.saved(unsaved.number),
            )

    @contextlib.contextmanager
    def _final(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # an interrupt is as final
            if not threading.main_thread().is_alive():
                # No thread can be had any more: the program ends, and promises nothing.
                self.close()
                return
            self.fail(error)
            raise

    def _wake(self) -> None:
        if self._waker is not None:
            self._waker.wake()

    def install(self, dump: DumpDescription) -> None:
        """Make a snapshot received from the leader vouched for and current; its file is there.

        After the file comes its record, then the commit index that vouches for it, each
        synced: a crash in between leaves the node with what it had before.
        When all is durable, PySyncObj loads it.  Until then nothing that the leader
        sends is taken: see `Reception`.
        """
        index = dump.last_index
        self._installing = dump

        def save(state: HardState) -> None:
            self.storage.record_snapshot(dump.metadata)
            self.storage.save(state)
            self.storage.sync()

        # What is pending comes first, with the commit index as it was.
        self.check_usable()
        self._begin_save()
        self.journal.expect_snapshot(index)
        state = self.journal.hard_state
        unsaved = self.journal.take_unsaved()
        self._calls.add(lambda: save(state), lambda _: self._load_installed(unsaved))

    def _load_installed(self, saved: Unsaved | None) -> None:
        """What PySyncObj does when it has received a snapshot."""
        if saved is not None:
            self.journal.saved(saved.number)
        dump, self._installing = self._installing, None
        sync_obj = self._sync_obj()
        if dump is None or sync_obj is None:
            return
        self.journal.set_snapshot_index(dump.last_index)
        sync_obj._SyncObj__loadDumpFile(clearJournal=True)
        _postpone_election(sync_obj)
        log.info("snapshot_installed", path=self.data_dir, index=dump.last_index, term=dump.last[2])
        self._check_loaded()
        sync_obj._SyncObj__raftCommitIndex = self.journal.getRaftCommitIndex()
        leader = sync_obj._SyncObj__raftLeader
        if leader is not None and leader != sync_obj.selfNode:
            # None of what came meanwhile was taken: it is to be sent again.
            sync_obj._SyncObj__sendNextNodeIdx(leader, reset=True, success=True)

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot received from the leader is on its way to the disk."""
        return self._installing is not None or self.is_examining_snapshot

    def expect_load_up_to(self, index: int) -> None:
        """PySyncObj is loading a snapshot of ``index``, and hides it when that fails."""
        self._must_reach = index

    def take_recovered_dump(self) -> DumpDescription | None:
        """What the recovered snapshot's dump says beside the state, once: to load it."""
        dump, self.recovered_dump = self.recovered_dump, None
        return dump

    def take_snapshot_soon(self) -> None:
        """Have PySyncObj ask for the snapshot again that it just asked for."""
        sync_obj = self._sync_obj()
        if sync_obj is not None:
            sync_obj.forceLogCompaction()

    def answer_leader(self) -> None:
        """Tell the leader that this node is there, and nothing else."""
        sync_obj = self._sync_obj()
        if sync_obj is None:
            return
        leader = sync_obj._SyncObj__raftLeader
        if leader is not None and leader != sync_obj.selfNode:
            sync_obj._SyncObj__sendNextNodeIdx(leader)

    def applied_index(self) -> int:
        """The index that the state machine has reached; 0 without one."""
        sync_obj = self._sync_obj()
        return 0 if sync_obj is None else int(sync_obj.raftLastApplied)

    def state_machine_is_at(self, index: int) -> None:
        """The application's state is a snapshot's, which is on its way to the disk.

        No entry before it may be applied to that state any more.
        """
        self._sync_obj()._SyncObj__raftLastApplied = index

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
        """PySyncObj's status, and what there is to say of the storage.

        ``storage_failure`` is the reason as text, or ``None``; for the others see
        `usage_facts`.
        """
        status["storage_failure"] = None if self.failure is None else str(self.failure)
        status.update(usage_facts(self.data_dir, self.journal))
        return status

    def fail(self, error: BaseException) -> None:
        """From here on nothing leaves this node.  `stop_taking_part` does the rest."""
        if self.failure is None:
            self.failure = error
            self.barrier.close()
            log.error("node_failed", path=self.data_dir, error=str(error) or repr(error))

    def tick(self, sync_obj: Any, original: Callable[[float], None], time_to_wait: float) -> None:
        """One tick of PySyncObj between two flushes; after a failure, none."""
        if self._sync_obj() is None:
            self.attach(sync_obj)
        if self._closed:
            # Nothing can be made durable any more, so nothing may be promised.
            fail_commands(sync_obj)
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
                _postpone_election(sync_obj)
            if not self._knows_membership:
                # As in Raft, what stands in the log counts, committed or not.  PySyncObj
                # forgets it with a restart until it knows that it is committed.
                self._knows_membership = True
                self._reapply_membership(self.journal[:])
            if self.is_installing:
                _postpone_election(sync_obj)
            original(time_to_wait)
        finally:
            set_ticking(False)
            # Also when it raised: the next tick counts what this one added.
            self.journal.end_handler()
            if self.failure is None:
                self.flush()

    def stop_taking_part(self, sync_obj: Any) -> None:
        """Leave the cluster, fail what waits, call the hook.  Later calls fail what came since."""
        if self._stopped:
            fail_commands(sync_obj)
            return
        self._stopped = True
        leave_cluster(sync_obj, self.data_dir)
        fail_commands(sync_obj)
        if self.settings.on_storage_failure is not None and self.failure is not None:
            try:
                self.settings.on_storage_failure(self.failure)
            except Exception:
                log.exception("storage_failure_hook_failed", path=self.data_dir)
        if self.failure is not None:
            forget_frames(self.failure)

    def close(self) -> None:
        """Save what is pending and close the storage.  Idempotent."""
        if self._closed or not self._is_in_its_process:
            return
        try:
            for callback in self._on_close:
                callback()
            if self.failure is None:
                self._begin_save()
                self._calls.finish()
        except (RaftwalError, OSError) as error:
            # No message that depends on it will leave: nothing was promised.
            log.error("last_save_failed", path=self.data_dir, error=str(error))
        finally:
            self._closed = True
            self.barrier.close()
            self._calls.close()
            if self._waker is not None:
                self._waker.close()
            try:
                self.storage.close()
            except RaftwalError as error:
                log.error("last_save_failed", path=self.data_dir, error=str(error))

    @property
    def _is_in_its_process(self) -> bool:
        """A process that was forked has a copy of this node: its log is the parent's."""
        return os.getpid() == self._process

    def _close_when_dropped(self) -> None:
        if is_task_of_this_thread():
            # The SyncObj was collected in a thread that this has to wait for.
            threading.Thread(target=self.close, name="raftwal-close").start()
        else:
            self.close()

    def _may_promise(self) -> bool:
        return self._must_reach is None and self.journal.contradiction is None

    def _committed(self, offered: int) -> int:
        sync_obj = self._sync_obj()
        commit = committed_by_durable_copies(sync_obj, self.journal, offered)
        if commit != offered:
            sync_obj._SyncObj__raftCommitIndex = commit
        return commit

    def _check_log(self) -> None:
        if self.journal.contradiction is not None:
            self.fail(self.journal.contradiction)
            raise self.journal.contradiction

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


def _postpone_election(sync_obj: Any) -> None:
    """Stand for no election yet.

    A large state that is opened or replaced can hold this thread up for longer than an
    election takes.  PySyncObj would then take the leader for gone before it has read what
    came from it; and this node, which is behind, would win nothing.
    """
    sync_obj._SyncObj__raftElectionDeadline = max(
        sync_obj._SyncObj__raftElectionDeadline,
        time.monotonic() + sync_obj._SyncObj__generateRaftTimeout(),
    )
