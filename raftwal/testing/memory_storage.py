"""A storage that forgets everything: for tests of a Raft library, and as a reference."""

from __future__ import annotations

from collections.abc import Iterable

from raftwal.errors import InvalidEntryError, SnapshotOutOfDateError
from raftwal.held_log import HeldLog
from raftwal.model import (
    EMPTY_HARD_STATE,
    ConfState,
    Entry,
    HardState,
    InitialState,
    Snapshot,
    SnapshotMetadata,
)


class MemoryStorage:
    """What `raftwal.RaftStorage` is to a Raft library, in memory (etcd's ``MemoryStorage``).

    The methods mean what they mean there.  A snapshot counts at once, whatever the
    commit index: nothing can be lost between the two.
    """

    def __init__(self) -> None:
        self._hard_state = EMPTY_HARD_STATE
        self._snapshot = Snapshot(SnapshotMetadata(conf_state=ConfState()))
        self._held = HeldLog(self._snapshot.metadata, (), keeps_entries=True)

    def initial_state(self) -> InitialState:
        """Hard state, and the newest snapshot's membership."""
        return InitialState(self._hard_state, self._snapshot.metadata.conf_state or ConfState())

    @property
    def first_index(self) -> int:
        """The index of the first entry held, or of the next one when there is none."""
        return self._held.first_index

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the snapshot that the log starts from."""
        return self._held.last_index

    def term(self, index: int) -> int:
        """The term of an entry.  Raises `CompactedError`, `UnavailableError`."""
        return self._held.term(index)

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> list[Entry]:
        """Entries from ``low`` to before ``high``.  Raises `CompactedError`, `UnavailableError`."""
        return self._held.entries(low, high, max_bytes)

    def snapshot(self) -> Snapshot:
        """The newest snapshot; one of index 0 before the first."""
        return self._snapshot

    def save(self, hard_state: HardState | None, entries: Iterable[Entry] = ()) -> None:
        """Keep a hard state, unless it is empty, and entries.  Raises `InvalidEntryError`."""
        entries = list(entries)
        if entries and not 0 < entries[0].index <= self.last_index + 1:
            raise InvalidEntryError(
                f"entry {entries[0].index} cannot follow entry {self.last_index}",
                index=entries[0].index,
            )
        self._held.append(entries)
        if hard_state is not None and hard_state != EMPTY_HARD_STATE:
            self._hard_state = hard_state

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot: the node's own, or one received, which the log restarts from.

        Raises `SnapshotOutOfDateError`.
        """
        metadata = snapshot.metadata
        if metadata.index <= self._snapshot.metadata.index:
            raise SnapshotOutOfDateError(
                f"there is a snapshot of index {self._snapshot.metadata.index}",
                index=metadata.index,
            )
        self._snapshot = snapshot
        if not self._held.agrees_with(metadata):
            self._held.restart_from(metadata)

    def compact(self, index: int) -> None:
        """Let go of entries up to ``index``.  Raises `CompactedError`, `UnavailableError`."""
        self._held.compact(index)

    def close(self) -> None:
        """Nothing to do."""
