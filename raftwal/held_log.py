"""The part of the log that a node has at hand, as a Raft library wants to ask for it.

What etcd keeps in ``raft.MemoryStorage``: the entries from the last compaction on, and the
index and term of the entry before them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from raftwal.errors import CompactedError, InvalidSettingError, UnavailableError
from raftwal.model import Entry, SnapshotMetadata
from raftwal.wal.terms import TermHistory
from raftwal.wire.messages import entry_bytes


class HeldLog:
    """The entries after ``start``, which is the snapshot they follow on.

    With ``keeps_entries=False`` only indexes and terms are held, in little memory.
    Threads may ask while another adds or lets go: each answer is of one moment.
    """

    def __init__(
        self, start: SnapshotMetadata, entries: Sequence[Entry], *, keeps_entries: bool
    ) -> None:
        self._keeps_entries = keeps_entries
        self._moment = threading.RLock()
        self.restart_from(start)
        self.append(entries)

    def restart_from(self, start: SnapshotMetadata) -> None:
        """Hold nothing but what follows on ``start``."""
        with self._moment:
            self._base = self._last = start.index
            self._entries: list[Entry] = []
            self._terms = TermHistory()
            self._terms.write(start.index, start.term)

    @property
    def first_index(self) -> int:
        """The index of the first entry held, or of the next one when there is none."""
        return self._base + 1

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the snapshot before it when there is none."""
        return self._last

    def term(self, index: int) -> int:
        """The term of the entry at ``index``, from the one before the first held on.

        Raises `CompactedError` below that, `UnavailableError` above the last.
        """
        with self._moment:
            if index < self._base:
                raise CompactedError(f"the log begins at index {self.first_index}", index=index)
            if index > self._last:
                raise UnavailableError(f"the log ends at index {self._last}", index=index)
            return self._terms.at(index)

    def entries(self, low: int, high: int, max_bytes: int | None) -> list[Entry]:
        """The entries from ``low`` up to, not with, ``high``: see `RaftStorage.entries`."""
        if not self._keeps_entries:
            raise InvalidSettingError(
                "this storage was opened with keep_entries=False", advice="Open it without"
            )
        with self._moment:
            if low <= self._base:
                raise CompactedError(f"the log begins at index {self.first_index}", index=low)
            if high > self._last + 1 or low > high or self._last == self._base:
                raise UnavailableError(
                    f"the log holds no entries from {low} to before {high}: "
                    f"it ends at {self._last}",
                    index=low,
                )
            found = self._entries[low - self._base - 1 : high - self._base - 1]
        return found if max_bytes is None else _up_to(found, max_bytes)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; the first follows on the last or replaces an earlier one.

        Those that are not above the start are passed over.
        """
        with self._moment:
            if entries and entries[0][1] <= self._base:
                entries = entries[self._base - entries[0][1] + 1 :]
            if not entries:
                return
            first = entries[0][1]
            if self._keeps_entries:
                del self._entries[first - self._base - 1 :]
                self._entries += entries
            self._terms.write_all(entries)
            self._last = entries[-1][1]

    def compact(self, index: int) -> None:
        """Let go of the entries up to ``index``; its term stays known.

        Raises `CompactedError` when that was done, `UnavailableError` above the last.
        """
        with self._moment:
            if index <= self._base:
                raise CompactedError(f"the log begins at index {self.first_index}", index=index)
            self.term(index)
            if self._keeps_entries:
                self._entries = self._entries[index - self._base :]
            self._base = index

    def agrees_with(self, snapshot: SnapshotMetadata) -> bool:
        """Whether the log holds the entry that the snapshot ends with."""
        return (
            self._base <= snapshot.index <= self._last
            and self._terms.at(snapshot.index) == snapshot.term
        )


def _up_to(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The first of ``entries`` that fit ``max_bytes`` on the wire, but one at least."""
    total = 0
    for number, entry in enumerate(entries):
        total += entry_bytes(entry)
        if number and total > max_bytes:
            return entries[:number]
    return entries
