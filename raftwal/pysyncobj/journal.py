"""`DurableJournal`: PySyncObj's journal, kept in memory here and on disk by RaftStorage.

Nothing here touches the disk.  The journal gathers what changed; `take_unsaved` hands
it to one save, and `saved` is told when that is durable.  Until then it knows which
save whatever depends on it has to wait for: it is the barrier's `Saves`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, cast

from pysyncobj.journal import Journal
from pysyncobj.pickle import to_bytes

from raftwal.errors import CommittedEntryContradictedError
from raftwal.model import Entry, EntryType, HardState
from raftwal.pysyncobj.node_ids import Votes

JournalEntry = tuple[bytes, int, int]
"""As PySyncObj has it: command, index, term."""

# PySyncObj starts every log with a no-op at index 1 that counts as committed.
FIRST_COMMIT_INDEX = 1

# An `Entry` in all but its class, which makes it cost six times as much to make; the log
# takes either.
_PlainEntry = tuple[int, int, bytes, int]
_INDEX: Final = 1
_NORMAL = int(EntryType.NORMAL)


class Unsaved(NamedTuple):
    """What the journal holds that the disk may not: one save's worth, and its number."""

    hard_state: HardState
    entries: list[Entry]
    number: int


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
        committed: Callable[[int], int] = lambda offered: offered,
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
        self._unsaved: list[_PlainEntry] = []
        self._begun = 0
        # Begun and not durable: the number, and the index of the first entry, if any.
        self._under_way: deque[tuple[int, int | None]] = deque()
        self._last_promise = 0
        self._last_term = 0
        self._term = hard_state.term
        self._vote = votes.name(hard_state.vote)
        self._vote_number = hard_state.vote
        self._commit = max(hard_state.commit, FIRST_COMMIT_INDEX)
        self._saved_state = hard_state
        self._commits = True
        self._committed = committed
        # A snapshot that is being installed ends here.  Its commit index must not go back
        # on disk, and its entries are not in this log yet.
        self._commit_on_disk = 0
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
        entry = (command if type(command) is bytes else to_bytes(command), idx, term)
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
        unsaved = self._unsaved
        while unsaved and unsaved[-1][_INDEX] >= idx:
            unsaved.pop()
        unsaved.append((term, idx, entry[0], _NORMAL))

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

        PySyncObj calls this at the end of every append_entries it handled, and when a
        leader has reckoned how far a majority is.
        """
        self._restore()
        if self._commits:
            self._commit = max(self._commit, self._committed(raftCommitIndex))

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

    def memory_bytes(self) -> int:
        """The bytes of the commands that are held in memory.  Safe in another thread."""
        return sum(len(command) for command, _, _ in self._entries[:])

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

    def expect_snapshot(self, index: int) -> None:
        """From now on no save may have a commit index below ``index``."""
        self._commit_on_disk = max(self._commit_on_disk, index)

    def set_snapshot_index(self, index: int) -> None:
        """A snapshot holds the entries up to ``index``, all of them committed."""
        self._restore()
        self._commit = max(self._commit, index)
        self._snapshot_index = max(self._snapshot_index, index)

    @property
    def durable(self) -> int:
        """The number of the last save that is durable."""
        return self._under_way[0][0] - 1 if self._under_way else self._begun

    @property
    def keeps_promises_unsaved(self) -> bool:
        """Whether an entry, a term or a vote waits for a save.  A commit index promises nothing."""
        return bool(self._unsaved) or self._keeps_a_term_unsaved

    @property
    def of_promises(self) -> int:
        """The number of the save that holds all terms, votes and entries of this moment."""
        return self._begun + 1 if self.keeps_promises_unsaved else self._last_promise

    @property
    def of_term(self) -> int:
        """The number of the save that holds the term and the vote of this moment."""
        return self._begun + 1 if self._keeps_a_term_unsaved else self._last_term

    @property
    def durable_index(self) -> int:
        """The index up to which this log is on disk as it is here."""
        waiting = [first for _, first in self._under_way if first is not None]
        if self._unsaved:
            waiting.append(self._unsaved[0][_INDEX])
        last: int = self._entries[-1][1] if self._entries else 0
        return min([last + 1, *waiting]) - 1

    def take_unsaved(self) -> Unsaved | None:
        """What to save, or ``None`` when nothing changed; that save has begun then.

        After a failed save there is no second try, so nothing is put back.
        """
        state = self.hard_state
        if not self._unsaved and state == self._saved_state:
            return None
        self._begun += 1
        if self._keeps_a_term_unsaved:
            self._last_term = self._last_promise = self._begun
        first = None
        if self._unsaved:
            self._last_promise = self._begun
            first = self._unsaved[0][_INDEX]
        self._under_way.append((self._begun, first))
        unsaved = Unsaved(state, cast("list[Entry]", self._unsaved), self._begun)
        self._unsaved = []
        self._saved_state = state
        return unsaved

    def saved(self, number: int) -> None:
        """The save of this number is durable, and with it all before it."""
        while self._under_way and self._under_way[0][0] <= number:
            self._under_way.popleft()

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index as the disk should have them."""
        commit = max(self._commit, self._commit_on_disk)
        return HardState(self._term, self._vote_number, commit)

    @property
    def _keeps_a_term_unsaved(self) -> bool:
        term, vote, _ = self._saved_state
        return self._term != term or self._vote_number != vote

    def _restore(self) -> None:
        if self._set_aside:
            restored = list(self._set_aside)
            self._set_aside.clear()
            self._entries += restored
            self._on_restored(restored)
