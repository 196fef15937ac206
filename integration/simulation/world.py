"""One run: a cluster, its faults, its clients, and what came of it.  A function of its seed."""

from __future__ import annotations

import collections
import contextlib
import random
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from pysyncobj import FAIL_REASON, SyncObjConf

from integration.simulation.clients import Clients, Operation
from integration.simulation.clock import Clock
from integration.simulation.faults import Faults
from integration.simulation.invariants import LEADER, Invariants, Violation
from integration.simulation.machines import MAKERS, Machine, Process
from integration.simulation.membership import Membership
from integration.simulation.network import Network
from integration.simulation.schedule import Event, Settings, names_of, schedule_of, settings_of
from integration.simulation.seams import simulated
from integration.simulation.trace import Trace
from raftwal.pysyncobj import StorageSettings

_REGISTRY = CollectorRegistry()
_MOST_MESSAGES = 400_000


class Outcome(NamedTuple):
    """What came of one run."""

    seed: int
    violations: list[Violation]
    digest: int
    seconds: float
    acknowledged: int
    local_reads: int
    stale_reads: int
    terms: int
    starts: int
    trace: Trace
    raised: dict[str, int]


class World:
    """``stop`` says whether the run ends at the first violation."""

    def __init__(
        self,
        seed: int,
        *,
        journal: str = "raftwal",
        stop: bool = True,
        changes_members: bool = False,
        settings: Settings | None = None,
        schedule: list[Event] | None = None,
    ) -> None:
        self.seed = seed
        self.journal = journal
        self.settings = settings or settings_of(seed, changes_members=changes_members)
        self.schedule = schedule_of(seed, self.settings) if schedule is None else schedule
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.invariants = Invariants(self.trace, lambda: self.clock.now)
        self.raised: dict[str, int] = collections.Counter()
        self.running: Process | None = None
        self.machines: dict[str, Machine] = {}
        self.network = Network(self, seed)
        self.starts = 0
        self._is_stormy = False
        self._stops_at_first = stop
        for name in names_of(self.settings.size):
            self.machines[name] = Machine(self, name)
        addresses = [machine.address for machine in self.machines.values()]
        for machine in self.machines.values():
            machine.partners = [each for each in addresses if each != machine.address]

    def run(self) -> Outcome:
        settings, clock = self.settings, self.clock
        with simulated(self):
            self.membership = Membership(self)
            self.membership_random = random.Random(f"{self.seed} membership")
            self.clients = Clients(self, settings.clients)
            faults = Faults(self)
            for machine in self.machines.values():
                clock.at(machine.random.random(), machine.start)
                self._write_back_later(machine)
            for event in self.schedule:
                clock.at(event.time, faults.play, event)
            clock.run(settings.fault_seconds, self._is_over)
            if not self._is_over():
                faults.end()
                self._must_serve_again()
            if not self._is_over():
                self.clients.check_history()
            self._leave_nothing()
        return self._outcome()

    # Who asks.

    def machine(self, name: str) -> Machine:
        return self.machines[name]

    def members(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.is_member]

    def add_machine(self, name: str) -> Machine:
        self.machines[name] = machine = Machine(self, name)
        self._write_back_later(machine)
        return machine

    def leader(self) -> Machine | None:
        """Whoever leads in the highest term."""
        leading = [
            (machine.process.node.raftCurrentTerm, machine.name)
            for machine in self.machines.values()
            if machine.process is not None
            and machine.process.node is not None
            and machine.process.node._SyncObj__raftState == LEADER
        ]
        return self.machines[max(leading)[1]] if leading else None

    def process_at_hand(self) -> Process:
        assert self.running is not None
        return self.running

    def name_at_hand(self) -> str:
        return "" if self.running is None else self.running.machine.name

    def make_node(self, machine: Machine, process: Process) -> Any:
        self.starts += 1
        extra: dict[str, Any] = {}
        if self.journal == "raftwal":
            extra = {"data_dir": "/data/node", "settings": self._storage_settings(machine)}
        return MAKERS[self.journal](
            process, machine.address, machine.partners, self._conf(), **extra
        )

    def _storage_settings(self, machine: Machine) -> StorageSettings:
        settings, process = self.settings, machine.process
        assert process is not None
        return StorageSettings(
            cluster_name="simulated",
            segment_bytes=settings.segment_bytes,
            keep_segments=settings.keep_segments,
            keep_snapshots=settings.keep_snapshots,
            registry=_REGISTRY,
            fs=machine.disk,
            executor=process.tasks,
            save_executor=process.saves,
            on_storage_failure=machine.storage_failed,
        )

    def _conf(self) -> SyncObjConf:
        settings = self.settings
        files = {}
        if self.journal == "filejournal":
            files = {"journalFile": "/data/journal", "fullDumpFile": "/data/dump"}
        return SyncObjConf(
            autoTick=False,
            useFork=False,
            appendEntriesPeriod=settings.append_entries_period,
            raftMinTimeout=settings.min_timeout,
            raftMaxTimeout=settings.max_timeout,
            leaderFallbackTimeout=settings.leader_fallback,
            connectionTimeout=settings.connection_timeout,
            connectionRetryTime=settings.connection_retry,
            appendEntriesUseBatch=settings.uses_batch,
            appendEntriesBatchSizeBytes=settings.append_batch_bytes,
            logCompactionMinEntries=settings.compaction_entries,
            logCompactionMinTime=settings.compaction_seconds,
            logCompactionBatchSize=settings.compaction_batch_bytes,
            dynamicMembershipChange=settings.changes_members,
            # A request to change the members that waits for a leader may take effect long
            # after the operator has given it up, and undo what it did since.
            commandsWaitLeader=not settings.changes_members,
            **files,
        )

    # How it ends.

    def _is_over(self) -> bool:
        if self.network.messages > _MOST_MESSAGES:
            # Nodes that answer each other for ever, as fast as they can.
            self.network.messages = 0
            self.invariants.violated("does not serve again", "a storm of messages")
            self._is_stormy = True
        return self._is_stormy or (self._stops_at_first and bool(self.invariants.violations))

    def _write_back_later(self, machine: Machine) -> None:
        """As the kernel does with what is dirty for some time."""

        def write_back() -> None:
            machine.disk.write_back()
            self._write_back_later(machine)

        seconds = self.settings.write_back_seconds
        self.clock.after(seconds * machine.random.uniform(0.5, 1.5), write_back)

    def _must_serve_again(self) -> None:
        """Once faults stop: every node answers a write, and all are in the same state."""
        quiet = self.settings.quiet_seconds
        end = self.clock.now + quiet
        self.clients.is_active = False
        asked: dict[str, Operation] = {}
        done = [False]

        def is_served(machine: Machine) -> bool:
            process, operation = machine.process, asked.get(machine.name)
            if process is None or process.node is None:
                asked.pop(machine.name, None)
                return False
            patience = self.clock.now - (operation.asked if operation else 0.0)
            if operation is None or (operation.reason not in (None, FAIL_REASON.SUCCESS)):
                asked[machine.name] = self.clients.ask(machine, "put")
                return False
            if operation.reason is None and patience > 15.0:
                asked.pop(machine.name)
            return operation.reason == FAIL_REASON.SUCCESS

        def look() -> None:
            if self.clock.now > end - quiet * 2 / 3:
                self.membership.inform()
            members = self.members()
            served = [is_served(machine) for machine in members]
            if all(served) and not self.membership.is_changing:
                states = {
                    (machine.process.node.count, machine.process.node.fingerprint)
                    for machine in members
                    if machine.process is not None
                }
                if len(states) == 1:
                    done[0] = True
                    return
            self.clock.after(0.5, look)

        look()
        self.clock.run(end, lambda: self._is_over() or done[0])
        if self._is_over():
            return
        if not done[0]:
            states = [
                f"{machine.name}: "
                + (
                    "down"
                    if machine.process is None or machine.process.node is None
                    else f"term {machine.process.node.raftCurrentTerm} "
                    f"applied {machine.process.node.raftLastApplied} "
                    f"commit {machine.process.node.raftCommitIndex} "
                    f"last {[entry[1:] for entry in machine.process.node._SyncObj__raftLog[-1:]]} "
                    f"count {getattr(machine.process.node, 'count', None)}"
                )
                for machine in self.members()
            ]
            self.invariants.violated("does not serve again", "; ".join(states))
        else:
            self._acknowledged_is_there()

    def _acknowledged_is_there(self) -> None:
        """All nodes have applied the same; it must be everything that anybody ever applied."""
        for machine in self.members():
            node = machine.process.node if machine.process is not None else None
            if node is not None and node.count != len(self.invariants.sequence):
                self.invariants.violated(
                    "lost write",
                    f"{machine.name} has applied {node.count} operations, "
                    f"of {len(self.invariants.sequence)}",
                )

    def _leave_nothing(self) -> None:
        for machine in self.machines.values():
            if machine.process is not None:
                with contextlib.suppress(Exception):
                    machine.process.end(told=False)

    def _outcome(self) -> Outcome:
        clients = self.clients
        return Outcome(
            self.seed,
            self.invariants.violations,
            self.trace.digest,
            self.clock.now,
            clients.acknowledged,
            clients.local_reads,
            clients.stale_reads,
            len(self.invariants.leaders),
            self.starts,
            self.trace,
            dict(self.raised),
        )
