"""What a node that keeps a FileJournal has on disk, and what of it can be relied on.

Three files: the journal, the ``.meta`` beside it, and the dump.  PySyncObj syncs none of
them, writes each at its own time, and where they contradict each other it throws the
journal away.  Here what Raft says decides (paper, figure 13, steps 6 and 7), and where
entries are missing that the node knew, that is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from raftwal.errors import (
    FileJournalError,
    LostEntriesError,
    MigrationRefusedError,
    RaftwalError,
)
from raftwal.fs import FileSystem
from raftwal.model import HardState
from raftwal.pysyncobj.dump import DumpDescription
from raftwal.pysyncobj.file_journal import JournalContents, Meta, decode_meta, read_journal
from raftwal.pysyncobj.journal import FIRST_COMMIT_INDEX, JournalEntry
from raftwal.pysyncobj.node_ids import Votes, member_id
from raftwal.pysyncobj.node_state import (
    Content,
    NodeState,
    StateDump,
    content_of,
    digest_of,
)

LOST_VOTE = "a vote that was lost"
"""Stands for the vote of a term in which the node may have voted, nobody knows for whom.
No node has this id, and a node that has voted does not vote again: what matters is that
the vote of the term is spent."""

DescribeDump = Callable[[Content, str], DumpDescription]
"""Says what a dump holds beside the state; the path is for errors."""

_UNKNOWN_MEMBER = re.compile(r"member ([0-9a-f]{16})")


class NodeFiles(NamedTuple):
    """Where they are; ``dump`` is ``None`` for a node whose ``conf`` names none."""

    journal: str
    meta: str
    dump: str | None

    @classmethod
    def of(cls, journal: str, dump: str | None) -> NodeFiles:
        """By their names in a configuration."""
        return cls(journal, f"{journal}.meta", dump)


class Reading(NamedTuple):
    """The three files as they are; errors where one of them cannot be used."""

    files: NodeFiles
    journal: JournalContents
    meta: Meta | RaftwalError | None
    dump: StateDump | RaftwalError | None

    def digest(self) -> str:
        """Equal when nobody has written to the files in between."""
        about = f"{self.meta}{self.journal.damage}{self.dump}"
        return digest_of(about, self.journal.entries)


def read_files(fs: FileSystem, files: NodeFiles, describe: DescribeDump) -> Reading:
    """Read all three.  ``describe`` says what a dump holds beside the state.

    Raises `FileJournalError`, `MigrationRefusedError`, `ReadFailedError`.
    """
    journal = read_journal(fs, files.journal)
    meta: Meta | RaftwalError | None = None
    with content_of(fs, files.meta) as content:
        if content is not None:
            try:
                meta = decode_meta(b"".join(content), files.meta)
            except FileJournalError as error:
                meta = error
    dump: StateDump | RaftwalError | None = None
    with content_of(fs, files.dump) as content:
        if content is not None and files.dump is not None:
            try:
                description = describe(content, files.dump)
                dump = StateDump(description, content.size, content.sha256())
            except FileJournalError as error:
                dump = error
    return Reading(files, journal, meta, dump)


class Reconciliation:
    """One state out of three files.  ``notes`` say what an operator should know of it.

    ``term`` stands in for a ``.meta`` that is missing.  With ``accept_loss``, entries that
    the node knew and that are gone are noted instead of refused.
    """

    def __init__(self, reading: Reading, *, term: int | None, accept_loss: bool) -> None:
        self._reading = reading
        self._term = term
        self._accept_loss = accept_loss
        self.notes: list[str] = []

    def state(self) -> NodeState:
        """Raises `FileJournalError`, `LostEntriesError`, `MigrationRefusedError`."""
        dump = self._dump()
        if self._reading.journal.damage is not None:
            self._accept(self._reading.journal.damage)
        entries = self._entries_behind(dump)
        state = NodeState(HardState(), dump, entries)
        term, vote = self._term_and_vote(state.last_term)
        if term > 0 and state.last_index == 0:
            # PySyncObj writes its first entry before it takes part in anything.
            self._lose(f"the node has seen term {term}, and its journal is empty")
        return state._replace(hard_state=HardState(term, vote, self._commit(state)))

    @property
    def _recorded_commit(self) -> int:
        meta = self._reading.meta
        return meta.commit if isinstance(meta, Meta) else FIRST_COMMIT_INDEX

    def _dump(self) -> StateDump | None:
        journal, dump = self._reading.journal.entries, self._reading.dump
        if isinstance(dump, RaftwalError):
            if not journal or journal[0][1] != FIRST_COMMIT_INDEX:
                raise dump
            self._accept(dump)
            return None
        if dump is None and journal and journal[0][1] != FIRST_COMMIT_INDEX:
            raise MigrationRefusedError(
                f"the journal begins with entry {journal[0][1]}, and there is no dump that "
                "has what comes before it",
                path=self._reading.files.journal,
                index=journal[0][1],
                advice="Name the dump, if there is one (conf.fullDumpFile).  Without one "
                "PySyncObj keeps what it cut off its journal in memory alone: move the "
                "node's files away while the rest of the cluster is in step and start it "
                "alone, and it gets everything from its peers",
            )
        return dump

    def _entries_behind(self, dump: StateDump | None) -> list[JournalEntry]:
        entries = self._reading.journal.entries
        if dump is None or not entries:
            return list(entries)
        previous, until, _ = dump.description
        reached = until[1]
        first, last = entries[0][1], entries[-1][1]
        if first > reached + 1:
            self._lose(
                f"the dump ends with entry {reached}, and the journal begins with {first}: "
                "what is in between is missing"
            )
            return []
        if last <= reached:
            return []
        position = reached - first
        same = [
            entries[at] == expected
            for at, expected in ((position - 1, previous), (position, until))
            if at >= 0
        ]
        behind = entries[position + 1 :]
        if all(same) and behind[0][2] >= until[2]:
            return behind
        term = entries[max(position, 0)][2]
        if term == until[2] or self._recorded_commit >= reached:
            self._lose(f"the dump and the journal contradict each other at entry {reached}")
        else:
            # A leader's snapshot came in place of entries that were never committed, and
            # the node died before it cleared its journal.
            self.notes.append(
                f"{len(behind)} entries from another leader's log are left out: the dump, "
                f"which is newer, contradicts them at entry {reached}"
            )
        return []

    def _commit(self, state: NodeState) -> int:
        lowest = FIRST_COMMIT_INDEX if state.entries else 0
        if state.dump is not None:
            lowest = state.dump.description.last_index
        recorded = self._recorded_commit
        commit = max(lowest, recorded if recorded > FIRST_COMMIT_INDEX else 0)
        if commit > state.last_index:
            self._lose(
                f"entries up to {commit} were committed, and the journal ends with "
                f"{state.last_index}"
            )
            commit = state.last_index
        return commit

    def _term_and_vote(self, last_term: int) -> tuple[int, int]:
        meta, given = self._reading.meta, self._term
        if given is not None and given < last_term:
            raise MigrationRefusedError(
                f"the term given is {given}, and the last entry is of term {last_term}",
                path=self._reading.files.journal,
            )
        recorded = meta.term if isinstance(meta, Meta) else None
        if given is not None and (recorded is None or given > recorded):
            return given, member_id(LOST_VOTE)
        if isinstance(meta, Meta) and recorded is not None:
            if recorded >= last_term:
                return recorded, vote_number(meta.vote)
            self.notes.append(
                f"the .meta is of term {recorded}, and the last entry of term {last_term}: "
                "the node votes for nobody in that one"
            )
            return last_term, member_id(LOST_VOTE)
        if last_term == 0 and not isinstance(meta, RaftwalError):
            # Its term and vote are recorded before any vote leaves: there was none yet.
            return 0, 0
        raise self._without_term()

    def _without_term(self) -> MigrationRefusedError:
        meta = self._reading.meta
        what = "the .meta has no term in it"
        if not isinstance(meta, Meta):
            what = "the journal has no .meta beside it" if meta is None else meta.what
        return MigrationRefusedError(
            f"{what}, so it is not known in which terms this node has voted",
            path=self._reading.files.meta,
            advice="Give 'raftwal migrate' a --term that no node of the cluster is beyond "
            "(the highest 'raft_term' in their statuses): this node then votes in none up to "
            "there.  One that ran on a PySyncObj before 0.3.17 has recorded none: run it on "
            "0.3.17 first",
        )

    def _lose(self, what: str) -> None:
        self._accept(LostEntriesError(what, path=self._reading.files.journal))

    def _accept(self, error: RaftwalError) -> None:
        if not self._accept_loss:
            raise error
        where = f" ({error.where})" if error.where else ""
        self.notes.append(f"accepted: {error.what}{where}")


def vote_number(name: str | None) -> int:
    """The vote as a log keeps it; `vote_name` is the way back."""
    match = _UNKNOWN_MEMBER.fullmatch(name or "")
    return int(match[1], 16) if match else Votes([]).number(name)


def vote_name(number: int, known_node_ids: Iterable[str]) -> str | None:
    """The vote as a ``.meta`` keeps it.

    For a node that is not known, a name that no node has: PySyncObj looks only whether
    there is a vote, so the node votes for nobody else in that term.
    """
    return Votes([*known_node_ids, LOST_VOTE]).name(number)
