"""Saves are checked and queued, one at a time, and accounted for in that order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from raftwal.metrics import WALMetrics
from raftwal.model import EMPTY_HARD_STATE, MAX_UINT64, Entry, HardState, SnapshotMetadata
from raftwal.wal.admission import check_snapshot_metadata
from raftwal.wal.admitted import Admitted
from raftwal.wal.appending import Appender
from raftwal.wal.direct import NOT_HERE, DirectSaves
from raftwal.wal.group_commit import GROUPED
from raftwal.wire.frames import SNAPSHOT
from raftwal.wire.messages import encode_snapshot_record


class Gate(NamedTuple):
    """An account of the log that is kept beside it, in the order of the saves.

    ``check`` raises unless a save may follow on what was admitted; ``admitted`` notes it.
    """

    check: Callable[[HardState | None, Sequence[Entry]], None]
    admitted: Callable[[Sequence[Entry]], None]


class Admission:
    """The way of a save into the log's queue.

    What its methods give is said at `raftwal.wal.group_commit.Admit`; they raise
    `raftwal.errors.InvalidEntryError`, and `WriteFailedError` or `ClosedError` when the log
    takes nothing any more.  Called by one thread at a time.
    """

    def __init__(
        self,
        appender: Appender,
        admitted: Admitted,
        direct: DirectSaves | None,
        metrics: WALMetrics,
    ) -> None:
        self._appender = appender
        self._admitted = admitted
        self._direct = direct
        self._metrics = metrics

    @property
    def last_index(self) -> int:
        """The index of the last entry admitted, or of a newer snapshot."""
        return self._admitted.last_index if self._direct is None else self._direct.last_index

    @property
    def hard_state(self) -> HardState:
        """The last one admitted, or read."""
        return self._admitted.hard_state if self._direct is None else self._direct.hard_state

    def save(
        self, hard_state: HardState | None, entries: Sequence[Entry], gate: Gate | None
    ) -> int:
        """Admit a save."""
        direct = self._direct
        if direct is None:
            self._appender.check_usable()
            return self._save(hard_state, entries, gate)
        direct.tail.is_reserved = 1
        try:
            if not direct.tail.takes_saves:
                self._ready()
            return self._save(hard_state, entries, gate)
        finally:
            direct.tail.is_reserved = 0

    def save_made(
        self, make: Callable[[int], Sequence[Entry]], made: list[Sequence[Entry]], gate: Gate | None
    ) -> int:
        """Admit entries that ``make`` gives while nothing else can be admitted; they are
        appended to ``made``.  It is told the index behind the log's last.
        """
        direct = self._direct
        if direct is None:
            self._appender.check_usable()
            made.append(make(self._admitted.last_index + 1))
            return self._save(None, made[0], gate)
        direct.tail.is_reserved = 1
        try:
            if not direct.tail.takes_saves:
                self._ready()
            made.append(make(direct.last_index + 1))
            return self._save(None, made[0], gate)
        finally:
            direct.tail.is_reserved = 0

    def _save(
        self, hard_state: HardState | None, entries: Sequence[Entry], gate: Gate | None
    ) -> int:
        if gate is not None:
            gate.check(hard_state, entries)
        if self._direct is not None:
            write = self._save_directly(self._direct, hard_state, entries, gate)
            if write != NOT_HERE:
                return write
            self._appender.check_usable()
        state = None if hard_state is None or hard_state == EMPTY_HARD_STATE else hard_state
        if state is None and not entries:
            return 0
        self._admitted.check(state, entries)
        try:
            has_to_be_durable = self._queue(self._appender, state, entries)
            if gate is not None:
                gate.admitted(entries)
        except BaseException as error:
            # Half of it would leave the checksum chain at another place than the file.
            self._appender.fail(error)
            raise
        return GROUPED if has_to_be_durable else 0

    def _save_directly(
        self,
        direct: DirectSaves,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        gate: Gate | None,
    ) -> int:
        try:
            write: int = direct.tail.queue(hard_state, entries)
            if write <= 0:
                write = direct.queue_otherwise(write, hard_state, entries)
            if gate is not None and write != NOT_HERE:
                gate.admitted(entries)
        except BaseException as error:
            # The account that the gate is of would be another than the log's.
            direct.close()
            self._appender.fail(error)
            raise
        return write

    def _queue(self, appender: Appender, state: HardState | None, entries: Sequence[Entry]) -> bool:
        admitted = self._admitted
        is_promise = admitted.note(state, entries)
        if entries:
            self._metrics.entries.inc(len(entries))
            self._metrics.last_index.set(admitted.last_index)
        if state is not None:
            self._metrics.term.set(state.term)
            self._metrics.commit_index.set(state.commit)
        appender.add_save(entries, state, is_promise, admitted.last_index, admitted.hard_state)
        # As etcd does: a cut makes a save durable that need not be.
        return is_promise or (appender.is_full and admitted.last_index < MAX_UINT64)

    def snapshot(self, snapshot: SnapshotMetadata) -> int:
        """Admit a snapshot's record."""
        appender = self._ready()
        check_snapshot_metadata(snapshot)
        try:
            appender.add_alone(SNAPSHOT, encode_snapshot_record(snapshot))
            self._admitted.note_snapshot(snapshot)
            self._metrics.last_index.set(self._admitted.last_index)
        except BaseException as error:
            appender.fail(error)
            raise
        return GROUPED

    def sync(self) -> int:
        """Admit a wish that what was saved be durable."""
        self._ready()
        return GROUPED

    def _ready(self) -> Appender:
        if self._direct is not None:
            self._direct.close()
        self._appender.check_usable()
        return self._appender
