"""What a log holds with every save that was admitted to it, durable or not yet."""

from __future__ import annotations

from collections.abc import Sequence

from raftwal.model import EMPTY_HARD_STATE, Entry, HardState, SnapshotMetadata, must_sync
from raftwal.wal.admission import check_entries, check_hard_state
from raftwal.wal.terms import TermHistory


class Admitted:
    """Its last index, the terms of its entries and its hard state: what may follow on them."""

    def __init__(
        self,
        hard_state: HardState = EMPTY_HARD_STATE,
        last_index: int = 0,
        terms: TermHistory | None = None,
    ) -> None:
        self.hard_state = hard_state
        self.last_index = last_index
        self.terms = TermHistory() if terms is None else terms
        # What etcd compares the next hard state with: nothing, until one is saved.
        self.synced_state = EMPTY_HARD_STATE

    def check(self, state: HardState | None, entries: Sequence[Entry]) -> None:
        """Raises `raftwal.errors.InvalidEntryError` unless the save can follow."""
        check_entries(entries, self.last_index, self.terms)
        if state is not None:
            check_hard_state(state, _without_index_0(entries), self.hard_state, self.terms)

    def note(self, state: HardState | None, entries: Sequence[Entry]) -> bool:
        """Account for a save that was checked; whether it is a promise."""
        is_promise = must_sync(
            self.synced_state if state is None else state, self.synced_state, len(entries)
        )
        if logged := _without_index_0(entries):
            self.terms.write_all(logged)
            self.last_index = logged[-1][1]
        if state is not None:
            self.hard_state = self.synced_state = state
        return is_promise

    def note_snapshot(self, snapshot: SnapshotMetadata) -> None:
        """Account for a snapshot's record."""
        self.terms.write_snapshot(snapshot.index, snapshot.term)
        self.last_index = max(self.last_index, snapshot.index)

    def note_more(self, state: HardState, last_index: int) -> None:
        """Account for saves that went on where the log ended, in the term of its last entry.

        ``state`` and ``last_index`` are those of the log behind them.
        """
        if last_index != self.last_index:
            self.terms.go_on_to(last_index)
            self.last_index = last_index
        if state != self.synced_state:
            self.hard_state = self.synced_state = state


def _without_index_0(entries: Sequence[Entry]) -> Sequence[Entry]:
    """What a reader will find of them: an entry at index 0 is nothing to it."""
    return entries[1:] if entries and entries[0][1] == 0 else entries
