"""Which term each index was written in: what may follow on it.

Raft never gives an entry a lower term than the entry before it.  Reader and writer keep
this history alike, so that what a save accepts is what a reader accepts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence


class TermHistory:
    """The terms of the log's entries, as runs of one term: short, however long the log."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._terms: list[int] = []
        self._last = 0
        self._end = 0
        self.replacing_term = 0
        """The highest term of an entry that replaced another.

        It comes from a leader of that term or a later one, so the hard state saved
        with it, or any after it, has at least that term.
        """

    def at(self, index: int) -> int:
        """The term of the entry at ``index``; 0 when it is not known."""
        if self._starts and index >= self._starts[-1]:
            return self._terms[-1]
        run = bisect_right(self._starts, index) - 1
        return self._terms[run] if run >= 0 else 0

    def replaces(self, index: int) -> bool:
        """Whether an entry at ``index`` would take the place of what was written last."""
        return index <= self._last

    def write(self, index: int, term: int) -> None:
        """Note an entry, which replaces what was at its index and after it."""
        if self.replaces(index):
            self.replacing_term = max(self.replacing_term, term)
        self._last = self._end = index
        while self._starts and self._starts[-1] >= index:
            self._starts.pop()
            self._terms.pop()
        if not self._terms or self._terms[-1] != term:
            self._starts.append(index)
            self._terms.append(term)

    def write_run(self, terms: Iterable[tuple[int, int]], last: int) -> None:
        """Note entries up to ``last`` that follow on each other; ``terms`` says from which
        index on they have which.
        """
        for index, term in terms:
            self.write(index, term)
        self._last = self._end = last

    def continued_in(self, index: int) -> int | None:
        """The term in which entries go on from ``index``, if they would follow on the last
        one: `None` where there is none, or where they would do anything but follow.
        """
        return self._terms[-1] if self._terms and index == self._last + 1 == self._end + 1 else None

    def go_on_to(self, last: int) -> None:
        """Note entries of the last one's term that follow on it, up to ``last``."""
        self._last = self._end = last

    def write_all(self, entries: Sequence[tuple[int, int, bytes | None, int]]) -> None:
        """Note entries that follow on each other: only where the term changes is there work."""
        if not entries:
            return
        last_term = None
        index = self._last
        if entries[0][1] == index + 1 and self._terms and entries[-1][0] == self._terms[-1]:
            # Terms never fall, so all of them have that one.
            self._last = self._end = entries[-1][1]
            return
        for term, index, _, _ in entries:
            if term != last_term:
                self.write(index, term)
                last_term = term
        self._last = self._end = index

    def write_snapshot(self, index: int, term: int) -> None:
        """Note a snapshot: one that is ahead of the log, or contradicts it downwards.

        Where a received snapshot and the log disagree, what follows is the leader's,
        whose entry at ``index`` has the snapshot's term.
        """
        end = self._end
        if index > end or term < self.at(index):
            self.write(index, term)
        self._end = max(end, index)
