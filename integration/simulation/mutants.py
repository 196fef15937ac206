"""raftwal broken on purpose, one way at a time: what the simulation must find.

A mutant names what is replaced and by what; nothing is edited.  These need a cluster to be
seen, or were faults that the simulation found; those that one disk shows are in ``tests``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import raftwal.pysyncobj.node
import raftwal.storage
from integration.simulation import stale_acknowledgement
from integration.simulation.schedule import Settings, schedule_of, settings_of
from integration.simulation.seams import replaced
from integration.simulation.world import Outcome, World
from raftwal.model import Entry
from raftwal.pysyncobj.barrier import SendBarrier
from raftwal.pysyncobj.journal import DurableJournal
from raftwal.pysyncobj.node import DurableNode
from raftwal.pysyncobj.node_ids import Votes
from raftwal.pysyncobj.reception import Reception
from raftwal.storage import RaftStorage
from raftwal.testing import SimulatedDisk
from raftwal.wal.appending import Appender
from raftwal.wal.interpreting import Interpreter


class Mutant(NamedTuple):
    """``patches`` are (owner, attribute, replacement).  ``seeds`` are known to find it; ``tune``
    and ``only`` lead runs to where it shows.
    """

    name: str
    seeds: tuple[int, ...]
    patches: list[tuple[Any, str, Any]]
    tune: Callable[[Settings], Settings] = lambda settings: settings
    only: tuple[str, ...] | None = None
    """The kinds of events in its schedules, if not all of them."""
    play: Callable[[int], Outcome] | None = None
    """A run by hand, in place of settings and schedule from the seed."""


_send = SendBarrier.send
_save = RaftStorage.save
_set_current_term = DurableJournal.setCurrentTerm
_interpreter_take = Interpreter._take


def _nothing(*arguments: Any) -> None: ...


def _flush_without_sync(self: Appender) -> None:
    self.flush()


def _passing(kinds: tuple[str, ...]) -> Any:
    def send(self: SendBarrier, transport_send: Any, node: Any, message: Any) -> bool:
        if message.get("type") in kinds and not self._closed:
            return bool(transport_send(node, self._completed(message)))
        return _send(self, transport_send, node, message)

    return send


def _forget_vote(self: DurableJournal, term: int, voted_for: str | None) -> None:
    _set_current_term(self, term, voted_for)
    self._vote_number = 0


def _pass_a_failure_over(self: RaftStorage, hard_state: Any, entries: Any = ()) -> None:
    try:
        _save(self, hard_state, entries)
    except OSError:
        appender = self._wal._appender
        assert appender is not None
        appender._failure = None


def _install_in_memory(self: DurableNode, dump: Any) -> None:
    self._installing = dump
    self._load_installed(None)


def _show_what_is_on_disk(self: DurableJournal) -> int:
    return max(self._commit, self._commit_on_disk)


def _always_commit(self: DurableJournal, *, commits: bool) -> None:
    self._commits = True


def _only_handle(self: Reception, handler: Any, node: Any, message: Any) -> None:
    try:
        handler(node, message)
    finally:
        self._journal.end_handler()


def _only_move_on(self: Reception, handler: Any, node: Any, message: Any) -> None:
    next_index = self._sync_obj()._SyncObj__raftNextIndex
    before = next_index.get(node, 0)
    handler(node, message)
    if node in next_index:
        next_index[node] = max(next_index[node], before)


def _cut_nothing_back(
    self: Interpreter, kept: list[Entry], first: int, last: int, terms: list[tuple[int, int]]
) -> None:
    stale = self._stale_entries
    _interpreter_take(self, kept, first, last, terms)
    if self._base is not None and first <= self._base:
        self._stale_entries = min(stale, self._length)


def _alone(settings: Settings) -> Settings:
    return settings._replace(size=1, sync_seconds=0.1, think_seconds=0.3)


def _small_messages(settings: Settings) -> Settings:
    return settings._replace(
        size=3,
        append_batch_bytes=60,
        value_bytes=(0, 10),
        burst=(1, 1, 10),
        think_seconds=0.3,
        compaction_entries=100,
        compaction_seconds=1000.0,
    )


def _small_snapshots(settings: Settings) -> Settings:
    return settings._replace(
        size=3, compaction_entries=5, compaction_batch_bytes=50, value_bytes=(0, 10)
    )


def _small_segments(settings: Settings) -> Settings:
    return settings._replace(
        segment_bytes=600, keep_segments=1, compaction_entries=40, think_seconds=0.3
    )


_POWER = ("cut power", "cut power in a call", "isolate", "partition", "kill", "compact")
_LINKS = ("slow link", "reset connections", "isolate", "partition", "kill", "one-way")

MUTANTS = [
    Mutant("the log is not synced", (2, 5), [(Appender, "sync", _flush_without_sync)]),
    Mutant("directories are not synced", (2, 6), [(SimulatedDisk, "sync_directory", _nothing)]),
    Mutant(
        "votes pass the barrier",
        (20, 16),
        [(SendBarrier, "send", _passing(("request_vote", "response_vote")))],
    ),
    Mutant(
        "acknowledgements pass the barrier",
        (97, 179),
        [(SendBarrier, "send", _passing(("next_node_idx",)))],
    ),
    Mutant(
        "a save counts as durable when it begins",
        (5, 20),
        [(DurableJournal, "durable", property(lambda self: self._begun))],
    ),
    Mutant(
        "a leader counts its own copy before it is durable",
        (1, 2),
        [(raftwal.pysyncobj.node, "committed_by_durable_copies", lambda _, __, offered: offered)],
        _alone,
        _POWER,
    ),
    Mutant("the vote is not saved", (7, 2), [(DurableJournal, "setCurrentTerm", _forget_vote)]),
    Mutant("a vote is forgotten with a restart", (7, 2), [(Votes, "name", _nothing)]),
    Mutant(
        "a failed save is passed over",
        (6, 7, 20),
        [(RaftStorage, "save", _pass_a_failure_over)],
    ),
    Mutant(
        "a received snapshot stays in memory",
        (37, 81, 90),
        [(DurableNode, "install", _install_in_memory)],
    ),
    Mutant(
        "the commit index of a snapshot shows before it is loaded",
        (147, 6, 7),
        [(DurableJournal, "getRaftCommitIndex", _show_what_is_on_disk)],
        _small_snapshots,
    ),
    Mutant(
        "entries that were replaced follow on a snapshot again",
        (170, 419),
        [(Interpreter, "_take", _cut_nothing_back)],
        _small_segments,
        _POWER,
    ),
    Mutant(
        "pieces of a snapshot commit what the log holds",
        (3, 5),
        [(DurableJournal, "begin_handler", _always_commit)],
        _small_snapshots,
        _LINKS,
    ),
    Mutant(
        "the commit index goes back with entries that overlap",
        (9, 25),
        [(Reception, "_receive_entries", _only_handle)],
    ),
    Mutant(
        "each answer to a leader takes back the one before",
        (4, 6),
        [(Reception, "_wanted_from", lambda self, index: index)],
        _small_messages,
        _LINKS,
    ),
    Mutant(
        "nothing that is lost on its way is sent again",
        (1, 2),
        [(Reception, "_receive_acknowledgement", _only_move_on)],
    ),
    Mutant(
        "acknowledgements of earlier terms count",
        (0, 1),
        [(Reception, "_is_of_this_term", lambda self, message: True)],
        play=stale_acknowledgement.run,
    ),
]


def run(mutant: Mutant, seed: int) -> Outcome:
    """What the mutant makes of a seed."""
    if mutant.play is not None:
        with replaced(mutant.patches):
            return mutant.play(seed)
    settings = mutant.tune(settings_of(seed))
    schedule = schedule_of(seed, settings, mutant.only)
    with replaced(mutant.patches):
        return World(seed, settings=settings, schedule=schedule).run()


def findings(mutant: Mutant, seeds: Iterator[int]) -> Iterator[Outcome]:
    """The runs that find it, to choose ``seeds`` from."""
    return (outcome for outcome in (run(mutant, seed) for seed in seeds) if outcome.violations)
