"""`RaftStorage` answers what etcd's ``raft.MemoryStorage`` answers, after the same calls.

Hypothesis draws what a Raft node may do to its storage, and questions with any index in
them.  RAFTWAL_STORAGE_SCRIPTS histories, thousands by hand; without it the same 60 every time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import pytest
from etcd_packages import NO_LIMIT, EtcdError, EtcdPackages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftwal import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
)
from raftwal.errors import CompactedError, SnapshotOutOfDateError, UnavailableError
from raftwal.testing import MemoryStorage, UnsyncedDisk
from raftwal.wire.messages import entry_bytes

HISTORIES = int(os.environ.get("RAFTWAL_STORAGE_SCRIPTS", "60"))
STEPS = 14

SAME_ERROR = {
    "requested index is unavailable due to compaction": CompactedError,
    "requested entry at index is unavailable": UnavailableError,
    "requested index is older than the existing snapshot": SnapshotOutOfDateError,
}


def answer_of_etcd(call: Callable[[], object]) -> object:
    """etcd panics where an index is above the last; raftwal calls that unavailable."""
    try:
        return call()
    except EtcdError as error:
        return UnavailableError if error.is_panic else SAME_ERROR[error.text]


def answer_of_raftwal(call: Callable[[], object]) -> object:
    try:
        return call()
    except (CompactedError, UnavailableError, SnapshotOutOfDateError) as error:
        return type(error)


class Both:
    """One node's storage three times: raftwal's on disk and in memory, and etcd's."""

    def __init__(self, directory: str, etcd: EtcdPackages) -> None:
        self.directory = directory
        self.etcd = etcd
        etcd.memory_new()
        self.open()
        self.memory = MemoryStorage()
        self.state = HardState()
        self.commit = 0

    def open(self) -> None:
        self.storage = RaftStorage.open(
            self.directory, segment_bytes=400, keep_segments=1, fs=UnsyncedDisk()
        )

    def restart(self) -> None:
        """As etcd's server does: the newest snapshot, the hard state, the entries after it."""
        self.storage.close()
        self.open()
        recovered = self.storage.recovered
        self.memory, self.state = MemoryStorage(), recovered.hard_state
        self.etcd.memory_new()
        if recovered.snapshot is not None:
            self.etcd.memory_apply_snapshot(recovered.snapshot)
            self.memory.save_snapshot(recovered.snapshot)
        self.etcd.memory_set_hard_state(recovered.hard_state)
        self.etcd.memory_append(recovered.entries)
        self.memory.save(recovered.hard_state, recovered.entries)

    def save(self, state: HardState, entries: list[Entry]) -> None:
        self.storage.save(state, entries)
        self.memory.save(state, entries)
        self.etcd.memory_append(entries)
        self.etcd.memory_set_hard_state(state)
        self.state = state

    def ask(self, of_etcd: Callable[[], object], of_raftwal: Callable[[object], object]) -> object:
        expected = answer_of_etcd(of_etcd)
        for storage in (self.storage, self.memory):
            assert answer_of_raftwal(lambda: of_raftwal(storage)) == expected, storage  # noqa: B023  # called at once
        return expected

    def compare(self, low: int, high: int, count: int, off_by: int) -> None:
        """``count`` entries fit the limit asked for, give or take a byte."""
        etcd = self.etcd
        first = self.ask(etcd.memory_first_index, lambda storage: storage.first_index)
        last = self.ask(etcd.memory_last_index, lambda storage: storage.last_index)
        for index in range(max(0, first - 3), last + 3):
            self.ask(lambda: etcd.memory_term(index), lambda storage: storage.term(index))  # noqa: B023  # called at once
        held = [] if last < first else self.storage.entries(first, last + 1)
        limit = max(0, sum(map(entry_bytes, held[:count])) + off_by)
        for bounds in ((first, last + 1, NO_LIMIT), (first, last + 1, limit), (low, high, limit)):
            self.ask(
                lambda: etcd.memory_entries(*bounds),  # noqa: B023  # called at once
                lambda storage: storage.entries(*bounds),  # noqa: B023  # called at once
            )
        assert self.storage.initial_state() == self.memory.initial_state()
        assert self.storage.initial_state() == etcd.memory_initial_state()
        assert self.storage.snapshot() == self.memory.snapshot() == etcd.memory_snapshot()


INDEX = st.integers(0, 30)
STEP = st.tuples(
    st.sampled_from(
        ("append", "append", "overwrite", "commit", "own", "received", "old", "compact", "restart")
    ),
    st.integers(0, 6),
    st.integers(0, 6),
    st.tuples(INDEX, INDEX, st.integers(0, 6), st.sampled_from((-1, 0, 1))),
)


def perform(both: Both, kind: str, first: int, second: int) -> None:
    storage, etcd, state = both.storage, both.etcd, both.state
    last, commit = storage.last_index, both.state.commit
    term = max(state.term, 1)
    if kind in ("append", "overwrite"):
        if kind == "overwrite":
            term += 1
            last = max(commit, last - first)
        new = [
            Entry(term, last + 1 + number, bytes(number * 9) if second % 3 else None, EntryType(0))
            for number in range(second + 1)
        ]
        both.save(HardState(term, first, commit), new)
    elif kind == "commit":
        both.save(HardState(term, state.vote, min(last, commit + first)), [])
    elif kind == "own" and commit > storage.snapshot_metadata.index:
        index = max(storage.snapshot_metadata.index + 1, commit - first)
        conf_state = ConfState(tuple(range(1, second + 2)), (9,) if first % 2 else ())
        made = Snapshot(SnapshotMetadata(index, storage.term(index), conf_state), b"state" * second)
        both.ask(
            lambda: etcd.memory_create_snapshot(index, conf_state, made.data) and None,
            lambda store: store.save_snapshot(made),
        )
    elif kind == "received":
        # Ahead of the log, or contradicting what is not committed of it.
        ahead = second % 2 or commit == last
        index = last + 1 + first if ahead else commit + 1 + first % (last - commit)
        received = Snapshot(SnapshotMetadata(index, term + 1, ConfState((1, 2, 3))), b"received")
        both.ask(
            lambda: etcd.memory_apply_snapshot(received),
            lambda store: store.save_snapshot(received),
        )
        both.save(HardState(term + 1, 0, index), [])
    elif kind == "old" and storage.snapshot_metadata.index:
        index = max(1, storage.snapshot_metadata.index - first)
        old = Snapshot(SnapshotMetadata(index, 1, ConfState((1,))), b"old")
        answer = both.ask(
            lambda: etcd.memory_create_snapshot(index, ConfState((1,)), b"old"),
            lambda store: store.save_snapshot(old),
        )
        assert answer is SnapshotOutOfDateError
    elif kind == "compact":
        index = storage.first_index - 2 + first
        if index < 0:
            return
        if storage.snapshot_metadata.index < index <= last:
            # etcd leaves it to the application not to go above its snapshot.
            with pytest.raises(UnavailableError, match="Save a snapshot first"):
                storage.compact(index)
            return
        both.ask(lambda: etcd.memory_compact(index), lambda store: store.compact(index))
    elif kind == "restart":
        both.restart()


@settings(
    max_examples=HISTORIES,
    derandomize="RAFTWAL_STORAGE_SCRIPTS" not in os.environ,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(STEP, min_size=1, max_size=STEPS))
def test_every_answer_is_etcds(etcd, steps):
    """Indexes, terms, entries under a limit, membership, snapshot, and each error."""
    with tempfile.TemporaryDirectory() as directory:
        both = Both(directory, etcd)
        try:
            both.compare(0, 1, 0, 0)
            for kind, first, second, question in steps:
                perform(both, kind, first, second)
                both.compare(*question)
        finally:
            both.storage.close()
