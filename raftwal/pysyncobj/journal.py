"""`DurableJournal`: PySyncObj's journal, kept in memory here and on disk by RaftStorage.

Nothing here touches the disk.  The journal gathers what changed; `take_unsaved` hands
it to one save, before any message that depends on it leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pysyncobj.journal import Journal
from pysyncobj.pickle import to_bytes

from raftwal.errors import CommittedEntryContradictedError
from raftwal.model import Entry, HardState
from raftwal.pysyncobj.node_ids import Votes

JournalEntry = tuple[bytes, int, int]
"""As PySyncObj has it: command, index, term."""

# PySyncObj starts every log with a no-op at index 1 that counts as committed.
FIRST_COMMIT_INDEX = 1


class Unsaved(NamedTuple):
    """What the journal holds that the disk may not: one save's worth."""

    hard_state: HardState
    entries: list[Entry]


class DurableJournal(Journal):
    """The log as PySyncObj sees it: a list of ``(command, index, term)``.

    It begins with the last two entries that the newest snapshot covers, if there is
    one: PySyncObj compares those with the snapshot it loads.
    """

    def __init__(
        self,
        votes: Votes,
        hard_state: HardState,
        covered: Iterable[JournalEntry],
        entries: Iterable[JournalEntry],
        on_one_second_timer: Callable[[], None],
        on_close: Callable[[], None],
        on_restored: Callable[[list[JournalEntry]], None],
    ) -> None:
        self._votes = votes
        covered = list(covered)
        self._entries: list[JournalEntry] = covered + list(entries)
        self._snapshot_index = covered[-1][1] if covered else 0
        # Entries that a follower's append_entries cut back.  They come back, unless
        # an entry that contradicts them is added: see deleteEntriesFrom.
        self._set_aside: deque[JournalEntry] = deque()
        self.contradiction: CommittedEntryContradictedError | None = None
        """Set when a leader contradicts what is committed; the node must then stop."""
        self._unsaved: list[Entry] = []
        self._term = hard_state.term
        self._vote = votes.name(hard_state.vote)
        self._vote_number = hard_state.vote
        self._commit = max(hard_state.commit, FIRST_COMMIT_INDEX)
        self._saved_state = hard_state
        self._commits = True
        self._on_one_second_timer = on_one_second_timer
        self._on_close = on_close
        self._on_restored = on_restored
        last_term = self._entries[-1][2] if self._entries else 0
        if last_term > self._term:
            # Entries of a new term reached the disk and the hard state behind them
            # did not.  No vote of that term can have left this node.
            self._term = last_term
            self._vote = None
            self._vote_number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def add(self, command: bytes | str, idx: int, term: int) -> None:
        """Append one entry; durable before the message that acknowledges it leaves."""
        entry = (to_bytes(command), idx, term)
        if self._set_aside:
            if self._set_aside[0] == entry:
                self._entries.append(self._set_aside.popleft())
                return
            if idx <= self._commit:
                self.contradiction = CommittedEntryContradictedError(
                    f"entry {idx} of term {self._set_aside[0][2]} is committed here, and the "
                    f"leader sent one of term {term}",
                    index=idx,
                )
            self._set_aside.clear()
        self._entries.append(entry)
        if idx <= self._snapshot_index:
            # The two entries that a received snapshot ends with: on disk already, in it.
            return
        while self._unsaved and self._unsaved[-1].index >= idx:
            self._unsaved.pop()
        self._unsaved.append(Entry(term, idx, entry[0]))

    def clear(self) -> None:
        """Forget the log: PySyncObj refills it from a snapshot that is durable by now."""
        self._entries = []
        self._set_aside.clear()

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Cut the log back to ``entryFrom`` positions, for as long as the handler runs.

        PySyncObj cuts on every append_entries that overlaps the log, also where the
        entries are the same, and may have acknowledged those.  Raft cuts only where
        they differ (paper, figure 2, AppendEntries, step 3).  So what is cut is set
        aside: adding the same entry brings it back, adding another one drops it and
        all after it, and what is left when the handler ends comes back.
        """
        self._restore()
        self._set_aside.extend(self._entries[entryFrom:])
        del self._entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Drop the first ``entryTo`` positions from memory: a snapshot covers them."""
        del self._entries[:entryTo]

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Note the commit index, which never goes back on disk.

        PySyncObj calls this at the end of every append_entries it handled.
        """
        self._restore()
        if self._commits:
            self._commit = max(self._commit, raftCommitIndex)

    def begin_handler(self, *, commits: bool) -> None:
        """A message is handled; whether it tells that entries of this log are committed."""
        self._commits = commits

    def end_handler(self) -> None:
        """Bring back what a handler cut, should it have raised before its end."""
        self._restore()
        self._commits = True

    def holds(self, index: int, term: int) -> bool:
        """Whether the log has an entry at ``index`` with this term."""
        self._restore()
        position = index - self._entries[0][1] if self._entries else -1
        return 0 <= position < len(self._entries) and self._entries[position][2] == term

    def getRaftCommitIndex(self) -> int:
        return self._commit

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Note term and vote; durable before the message that depends on them leaves."""
        self._term = term
        self._vote = votedForNodeId
        self._vote_number = self._votes.number(votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def onOneSecondTimer(self) -> None:
        self._on_one_second_timer()

    def _destroy(self) -> None:
        self._on_close()

    def set_snapshot_index(self, index: int) -> None:
        """A snapshot is about to hold the entries up to ``index``, all of them committed."""
        self._restore()
        self._commit = max(self._commit, index)
        self._snapshot_index = max(self._snapshot_index, index)

    @property
    def keeps_a_promise_unsaved(self) -> bool:
        """Whether a term, a vote or an entry waits to be saved."""
        return bool(self._unsaved) or self.keeps_a_term_unsaved

    @property
    def keeps_a_term_unsaved(self) -> bool:
        """Whether a term or a vote waits to be saved."""
        return self._hard_state()[:2] != self._saved_state[:2]

    def take_unsaved(self) -> Unsaved | None:
        """What to save, or ``None`` when nothing changed; counts as saved from now on.

        After a failed save there is no second try, so nothing is put back.
        """
        state = self._hard_state()
        if not self._unsaved and state == self._saved_state:
            return None
        unsaved = Unsaved(state, self._unsaved)
        self._unsaved = []
        self._saved_state = state
        return unsaved

    def _hard_state(self) -> HardState:
        return HardState(self._term, self._vote_number, self._commit)

    def _restore(self) -> None:
        if self._set_aside:
            restored = list(self._set_aside)
            self._set_aside.clear()
            self._entries += restored
            self._on_restored(restored)
