"""What must hold at every moment of a run, looked at after every step of every node.

Figure 3 of the Raft paper, and what raftwal promises to clients and about restarts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from integration.simulation.machines import Process
    from integration.simulation.trace import Trace

FOLLOWER, CANDIDATE, LEADER = range(3)


class Violation(NamedTuple):
    kind: str
    what: str
    time: float


class _Committed(NamedTuple):
    term: int
    command: bytes
    in_term: int
    """The term of the node that was first seen to count it as committed."""


class _Seen:
    """What a process was last seen to have."""

    def __init__(self) -> None:
        self.term = 0
        self.commit = 1
        self.applied = 0
        self.state = FOLLOWER
        self.end: tuple[Any, ...] = ()
        self.log: dict[int, int] = {}
        self.last = 0


class Invariants:
    """Collects `Violation`; the run stops at the first, or goes on to count kinds."""

    def __init__(self, trace: Trace, now: Any) -> None:
        self.violations: list[Violation] = []
        self.leaders: dict[int, str] = {}
        self.sequence: list[tuple[int, Any, int]] = []
        """What state machines applied: operation, result, fingerprint, by position from 1."""
        self.positions: dict[int, int] = {}
        self.committed: dict[int, _Committed] = {}
        self._trace = trace
        self._now = now
        self._votes: dict[tuple[str, int], str] = {}
        self._entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self._promised_terms: dict[str, int] = {}
        self._seen: dict[Process, _Seen] = {}

    def violated(self, kind: str, what: str) -> None:
        self.violations.append(Violation(kind, what, self._now()))
        self._trace.note("!!!!", f"{kind}: {what}")

    # What is on the wire.

    def sent(self, process: Process, target: str, message: Any) -> None:
        """A message leaves: what it promises is promised from now on."""
        if not isinstance(message, dict):
            return
        name, kind = process.machine.name, message.get("type")
        if kind == "request_vote":
            self._voted(name, message["term"], name)
        elif kind == "response_vote":
            self._voted(name, message["term"], target)
        elif kind == "next_node_idx":
            self._promise(name, process.node.raftCurrentTerm)
        elif kind == "append_entries":
            self._promise(name, message["term"])

    def _voted(self, name: str, term: int, candidate: str) -> None:
        before = self._votes.setdefault((name, term), candidate)
        if before != candidate:
            self.violated("two votes", f"{name} voted for {before} and {candidate} in term {term}")
        self._promise(name, term)

    def _promise(self, name: str, term: int) -> None:
        self._promised_terms[name] = max(term, self._promised_terms.get(name, 0))

    # What a node has.

    def started(self, process: Process) -> None:
        self._seen[process] = seen = _Seen()
        node, name = process.node, process.machine.name
        seen.term = node.raftCurrentTerm
        promised = self._promised_terms.get(name, 0)
        if seen.term < promised:
            self.violated(
                "term went back", f"{name} starts in term {seen.term}, and was in {promised}"
            )
        self._look_at_log(process, seen)

    def look_at(self, process: Process) -> None:
        """After a step of a node that is alive."""
        node = process.node
        if getattr(node, "storage_failure", None) is not None:
            return
        seen = self._seen[process]
        name = process.machine.name
        log = node._SyncObj__raftLog
        if not len(log):
            # Not raftwal's: an exception in the middle of clearing and refilling.
            self.violated("log is empty", name)
            return
        last = log[-1]
        end = (len(log), last[1], last[2], _term_to_be_saved(node))
        if end != seen.end:
            seen.end = end
            self._look_at_log(process, seen)
        term, commit, state = node.raftCurrentTerm, node.raftCommitIndex, node._SyncObj__raftState
        if term < seen.term:
            self.violated("term went back", f"{name}: {seen.term} -> {term}")
        if commit < seen.commit:
            self.violated("commit went back", f"{name}: {seen.commit} -> {commit}")
        if commit > seen.commit:
            self._look_at_commits(name, log, seen.commit + 1, commit, term)
        if node.raftLastApplied < seen.applied:
            self.violated(
                "commit went back", f"{name} applied {seen.applied} -> {node.raftLastApplied}"
            )
        if state == LEADER and (seen.state != LEADER or term != seen.term):
            self._became_leader(name, term, log)
        seen.term, seen.commit, seen.state = term, commit, state
        seen.applied = node.raftLastApplied

    def _became_leader(self, name: str, term: int, log: Any) -> None:
        self._trace.note(name, f"leads term {term}")
        before = self.leaders.setdefault(term, name)
        if before != name:
            self.violated("two leaders", f"{before} and {name} lead term {term}")
        first = log[0][1]
        for index, entry in self.committed.items():
            if entry.in_term < term and index >= first:
                held = log[index - first] if index - first < len(log) else None
                if held is None or held[2] != entry.term:
                    self.violated(
                        "committed entry lost",
                        f"{name} leads term {term} without entry {index} of term {entry.term}, "
                        f"committed in term {entry.in_term}: it has {held and held[2]}",
                    )
                    return

    def _look_at_log(self, process: Process, seen: _Seen) -> None:
        """Entries with the same index and term are the same, and so is what is before them."""
        log = process.node._SyncObj__raftLog
        name = process.machine.name
        if not len(log):
            return
        known, entries = seen.log, self._entries
        to_be_saved = _term_to_be_saved(process.node)
        first = log[0][1]
        for position in range(len(log) - 1, -1, -1):
            command, index, term = log[position]
            if index != first + position:
                self.violated("log has a gap", f"{name}: {index} at position {position}")
                return
            if known.get(index) == term:
                break
            if term == to_be_saved:
                continue
            known[index] = term
            before = log[position - 1][2] if position else None
            had = entries.get((index, term))
            if had is None or (had[1] is None and had[0] == command):
                entries[index, term] = (command, before)
            elif had[0] != command or before not in (None, had[1]):
                self.violated("logs differ", f"{name}: entry {index} of term {term}")
        end = log[-1][1]
        for index in range(end + 1, seen.last + 1):
            known.pop(index, None)
        seen.last = end

    def _look_at_commits(self, name: str, log: Any, start: int, end: int, term: int) -> None:
        first, last = log[0][1], log[-1][1]
        for index in range(max(start, first), min(end, last) + 1):
            position = index - first
            if position >= len(log) or log[position][1] != index:
                self.violated("log has a gap", f"{name}: no entry {index}")
                return
            command, _, entry_term = log[position]
            had = self.committed.get(index)
            if had is None:
                self.committed[index] = _Committed(entry_term, command, term)
            elif (had.term, had.command) != (entry_term, command):
                self.violated(
                    "committed entry changed",
                    f"{name} commits entry {index} of term {entry_term}; "
                    f"of term {had.term} was committed in term {had.in_term}",
                )
                return

    def applied(
        self, process: Process, position: int, operation: int, result: Any, fingerprint: int
    ) -> None:
        """A state machine applied its ``position``-th operation."""
        name, sequence = process.machine.name, self.sequence
        if position == len(sequence) + 1:
            sequence.append((operation, result, fingerprint))
            if self.positions.setdefault(operation, position) != position:
                self.violated("applied twice", f"{name}: operation {operation}")
        elif position > len(sequence) + 1:
            self.violated("sequences differ", f"{name} skips to {position}")
        elif sequence[position - 1] != (operation, result, fingerprint):
            self.violated(
                "sequences differ",
                f"{name} applies {operation} at {position}, others {sequence[position - 1][0]}",
            )


def _term_to_be_saved(node: Any) -> int | None:
    """The term, while a crash could undo it: entries of it must not have left the node.

    One that leads alone may have some, and others in the same term after the crash.
    """
    durable = getattr(node, "_raftwal_node", None)
    if durable is None:
        return None
    # Not asked of its methods: one that is broken on purpose must not hide what it does.
    journal = durable.journal
    under_way = journal._under_way and journal._under_way[0][0] <= journal._last_term
    is_to_be_saved = under_way or journal._keeps_a_term_unsaved
    return int(node.raftCurrentTerm) if is_to_be_saved else None
