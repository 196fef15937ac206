"""What a log may hold after a crash, known from the calls alone: the crash-point checks.

A log is a sequence of records, and what a crash leaves of it is a beginning of that
sequence: at least what was acknowledged, at most what was offered.  `History` writes down
the sequence while a scenario runs on a simulated disk; `Check` cuts the power at each of its
calls, recovers from what may be left, and looks whether that is such a beginning.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import NamedTuple

from raftwal import ConfState, Entry, HardState, RaftStorage, Snapshot, SnapshotMetadata
from raftwal.metrics import StorageMetrics
from raftwal.model import must_sync
from raftwal.recovery import WAL_DIRECTORY
from raftwal.testing import Fault, InlineExecutor, PowerCutError, SimulatedDisk
from raftwal.wal.reading import read_whole_log

NODE = "/machine/node"
SETTINGS = {"segment_bytes": 700, "keep_segments": 1, "keep_snapshots": 1}


def open_storage(disk: SimulatedDisk, **settings) -> RaftStorage:
    return RaftStorage.open(
        NODE,
        b"metadata",
        fs=disk,
        executor=InlineExecutor(),
        metrics=StorageMetrics(),
        **{**SETTINGS, **settings},
    )


class State(NamedTuple):
    """What a node starts from."""

    hard_state: HardState
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]


class History:
    """The records that were offered to the log, and how many of them are acknowledged."""

    def __init__(self) -> None:
        self.records: list[HardState | Entry | Snapshot] = []
        self.acknowledged = 0
        self.is_open = False
        self._synced_state = HardState()
        self._unvouched: Snapshot | None = None

    def save(self, storage: RaftStorage, state: HardState | None, entries=()) -> None:
        offered = state if state not in (None, HardState()) else None
        waiting = self._unvouched
        if waiting is not None and offered and offered.commit >= waiting.metadata.index:
            self.records += [waiting, offered._replace(commit=waiting.metadata.index)]
            self._unvouched = None
        self.records += entries
        if offered:
            self.records.append(offered)
        previous = self._synced_state
        storage.save(state, entries)
        if must_sync(offered or previous, previous, len(entries)):
            self.acknowledged = len(self.records)
        self._synced_state = offered or previous

    def save_snapshot(self, storage: RaftStorage, snapshot: Snapshot) -> None:
        self.records.append(snapshot)
        if snapshot.metadata.index > storage.hard_state.commit:
            self._unvouched = snapshot
        storage.save_snapshot(snapshot)
        self.acknowledged = len(self.records)

    def sync(self, storage: RaftStorage) -> None:
        storage.sync()
        self.acknowledged = len(self.records)

    def state_after(self, count: int) -> State:
        """What recovery gives of the first ``count`` records, by Raft's own rules."""
        hard_state = HardState()
        newest: Snapshot | None = None
        waiting: list[Snapshot] = []
        entries: dict[int, Entry] = {}
        terms: dict[int, int] = {0: 0}
        for record in self.records[:count]:
            if isinstance(record, Entry):
                for index in [index for index in entries if index >= record.index]:
                    del entries[index], terms[index]
                entries[record.index] = record
                terms[record.index] = record.term
                continue
            if isinstance(record, HardState):
                hard_state = record
            else:
                waiting.append(record)
            # A snapshot counts from the commit index that reaches it.
            for snapshot in [one for one in waiting if one.metadata.index <= hard_state.commit]:
                waiting.remove(snapshot)
                index, term = snapshot.metadata[:2]
                newest = snapshot
                if terms.get(index) != term:
                    entries.clear()
                    terms = {index: term}
        start = 0 if newest is None else newest.metadata.index
        kept = tuple(entries[index] for index in sorted(entries) if index > start)
        return State(hard_state, newest, kept)

    def sizes_in_flight(self) -> list[int]:
        """How much data the entries have that were offered and not acknowledged."""
        offered = self.records[self.acknowledged :]
        return [len(one.data or b"") for one in offered if isinstance(one, Entry)]

    def possible(self) -> list[State]:
        """Every state that a crash now may leave."""
        return [self.state_after(n) for n in range(self.acknowledged, len(self.records) + 1)]


Scenario = Callable[[SimulatedDisk, History], None]


def recovered_state(storage: RaftStorage) -> State:
    found = storage.recovered
    return State(found.hard_state, found.snapshot, tuple(found.entries))


class Check:
    """Crashes a scenario at each of its calls; see the module."""

    def __init__(self, scenario: Scenario, *, outcomes: int, nested: int, seed: int) -> None:
        self.scenario = scenario
        self.outcomes = outcomes
        self.nested = nested
        self.random = random.Random(seed)
        self.seed = seed
        self.recoveries = 0

    def run(self) -> None:
        disk, history = SimulatedDisk(self.seed), History()
        self.scenario(disk, history)
        for call in range(len(disk.calls) + 1):
            self.crash_at(call)

    def crash_at(self, call: int) -> None:
        disk, history = SimulatedDisk(self.seed + call), History()
        disk.cut_power_at = call
        with contextlib.suppress(PowerCutError):
            self.scenario(disk, history)
        place = f"call {call}, {disk.calls[-1:]}, seed {self.seed}"
        for number, left in enumerate(disk.outcomes(self.outcomes)):
            self.recover(left, history, f"power cut at {place}, outcome {number}")
        self.restart(disk.after_kill(), history.possible(), f"kill at {place}")

    def restart(self, disk: SimulatedDisk, possible: list[State], place: str) -> None:
        """A process was killed, not the machine.  What its successor reads, and promises on,
        may never have reached the disk; and the power may be cut now.
        """
        state = recovered_state(self._found(disk, possible, place))
        for left in disk.outcomes(4):
            self._found(left, [state], f"{place}, then a power cut")

    def recover(self, disk: SimulatedDisk, history: History, place: str) -> None:
        """Recovery ends in one of the possible states, wherever it is itself cut off; what it
        found is then there for good, and so is what is saved behind it.
        """
        possible = history.possible()
        image = disk.after_crash(0)
        for _ in range(self.nested):
            again = image.after_crash(0)
            again.cut_power_at = self.random.randrange(40)
            try:
                self._found(again, possible, place).close()
            except PowerCutError:
                left = again.after_crash(self.random.randrange(1 << 30))
                self._found(left, possible, f"{place}, recovery cut at {again.cut_power_at}")
        storage = self._found(disk, possible, place)
        state = recovered_state(storage)
        left = disk.after_crash(self.random.randrange(1 << 30))
        self._found(left, [state], f"{place}, after a recovery")
        # Over what the unfinished write may have left beyond the end: entries of the same
        # sizes, so that one ends where a remaining record begins.
        for size in history.sizes_in_flight() or (1, 700):
            term = max(storage.term(storage.last_index), state.hard_state.term, 1)
            more = Entry(term, storage.last_index + 1, b"+" * size)
            storage.save(None, [more])
            state = state._replace(entries=(*state.entries, more))
            left = disk.after_crash(self.random.randrange(1 << 30))
            self._found(left, [state], f"{place}, after {size} bytes more")

    def _found(self, disk: SimulatedDisk, possible: list[State], place: str) -> RaftStorage:
        self.recoveries += 1
        try:
            storage = open_storage(disk)
            # Also what a start from the newest snapshot does not read: an older one may
            # be needed.
            read_whole_log(disk, f"{NODE}/{WAL_DIRECTORY}")
        except Exception as error:
            raise AssertionError(f"{place}: {error!r}") from error
        state = recovered_state(storage)
        assert state in possible, f"{place}:\nfound {state}\nnot one of {possible}"
        return storage


def check_failing_sync(scenario: Scenario, seed: int) -> int:
    """After a sync that fails nothing more is acknowledged, and what was is there; how many
    syncs there were.
    """
    disk, history = SimulatedDisk(seed), History()
    scenario(disk, history)
    calls = [name for name, _ in disk.calls]
    for kind in ("sync_data", "sync", "sync_directory", "write"):
        for nth in range(1, calls.count(kind) + 1):
            disk, history = SimulatedDisk(seed + nth), History()
            disk.faults.append(Fault(kind, nth=nth))
            fails_at = None
            try:
                scenario(disk, history)
            except OSError:
                fails_at = len(disk.calls)
            except Exception as error:
                raise AssertionError(f"{kind} {nth}: {error!r}") from error
            place = f"{kind} number {nth} failed, at call {fails_at}, seed {seed}"
            for left in disk.outcomes(4):
                try:
                    storage = open_storage(left)
                except (OSError, ValueError) as error:
                    raise AssertionError(f"{place}: {error!r}") from error
                assert recovered_state(storage) in history.possible(), place
    return len(calls)


def entry(index: int, term: int = 1, size: int = 150) -> Entry:
    return Entry(term, index, bytes([index % 255 + 1]) * size)


def snapshot(index: int, term: int = 1) -> Snapshot:
    return Snapshot(SnapshotMetadata(index, term, ConfState((1, 2))), b"state at %d " % index * 60)
