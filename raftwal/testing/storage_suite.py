"""The contract between a Raft library and its storage, as tests for any storage.

It is that of etcd's Raft library: what ``raft.Storage`` answers, and what its
``MemoryStorage`` does with entries, snapshots and compactions (`StorageSuite`); besides
that, for a storage on disk, what has to be there after a restart or a kill
(`DurableStorageSuite`).  Derive from one of the two and run the class with pytest or,
together with ``unittest.TestCase``, with unittest::

    from raftwal import RaftStorage
    from raftwal.testing.storage_suite import DurableStorageSuite

    class TestRaftStorage(DurableStorageSuite):
        def open_storage(self, directory):
            return RaftStorage.open(directory)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from raftwal.errors import (
    CompactedError,
    InvalidEntryError,
    SnapshotOutOfDateError,
    UnavailableError,
)
from raftwal.model import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    InitialState,
    Snapshot,
    SnapshotMetadata,
)
from raftwal.wire.messages import entry_bytes


class Storage(Protocol):
    """What a node loop in etcd's style needs: ready, save, send, apply, advance."""

    @property
    def first_index(self) -> int:
        """One above the last compaction."""

    @property
    def last_index(self) -> int:
        """The last entry's, or the snapshot's that the log starts from."""

    def initial_state(self) -> InitialState:
        """Hard state, and the newest snapshot's membership."""

    def term(self, index: int) -> int:
        """From ``first_index - 1`` to ``last_index``."""

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> list[Entry]:
        """``low`` to before ``high``, no more than ``max_bytes``, at least one."""

    def snapshot(self) -> Snapshot:
        """The newest, or one of index 0."""

    def save(self, hard_state: HardState | None, entries: Iterable[Entry] = ()) -> None:
        """Durable when it returns, but for a commit index alone."""

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Durable when it returns; in force once the commit index has reached it."""

    def compact(self, index: int) -> None:
        """Let go of entries up to ``index``, which a snapshot covers."""

    def close(self) -> None:
        """Let go of everything."""


VOTERS = ConfState(voters=(1, 2, 3))


class StorageSuite:
    """Derive from it, say how to open a storage, and run it.

    A storage raises raftwal's errors, or its own: name them in the four attributes.
    """

    compacted_error: type[Exception] = CompactedError
    unavailable_error: type[Exception] = UnavailableError
    out_of_date_error: type[Exception] = SnapshotOutOfDateError
    invalid_entry_error: type[Exception] = InvalidEntryError

    def open_storage(self, directory: str) -> Storage:
        """The storage in ``directory``: a new one if it is empty or does not exist."""
        raise NotImplementedError

    # What an empty storage says.

    def test_a_new_storage_is_empty(self) -> None:
        with self._opened() as storage:
            assert storage.initial_state() == (HardState(), ConfState())
            assert (storage.first_index, storage.last_index) == (1, 0)
            assert storage.term(0) == 0
            assert storage.snapshot().metadata[:2] == (0, 0)
            assert storage.snapshot().data == b""
            _raises(self.unavailable_error, lambda: storage.term(1))
            _raises(self.unavailable_error, lambda: storage.entries(1, 1))
            _raises(self.unavailable_error, lambda: storage.entries(1, 2))
            _raises(self.compacted_error, lambda: storage.entries(0, 1))

    # Entries and terms.

    def test_entries_come_back_as_they_were_saved(self) -> None:
        saved = [
            Entry(1, 1, b"data"),
            Entry(1, 2, None),
            Entry(2, 3, b"", EntryType.CONF_CHANGE),
            Entry(2, 4, bytes(3000), EntryType.CONF_CHANGE_V2),
        ]
        with self._opened() as storage:
            storage.save(HardState(2, 1, 0), saved[:1])
            storage.save(None, saved[1:])
            assert storage.entries(1, 5) == saved
            assert storage.entries(2, 4) == saved[1:3]
            assert storage.entries(3, 3) == storage.entries(5, 5) == []
            assert (storage.first_index, storage.last_index) == (1, 4)

    def test_entries_outside_of_the_log_are_unavailable(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 0), _entries(1, 3))
            for low, high in ((1, 5), (4, 5), (7, 9), (3, 2)):
                _raises(self.unavailable_error, lambda: storage.entries(low, high))  # noqa: B023  # called at once
            _raises(self.compacted_error, lambda: storage.entries(0, 2))

    def test_the_limit_counts_bytes_on_the_wire_and_gives_one_entry_at_least(self) -> None:
        saved = [Entry(1, index, bytes(100 * index)) for index in range(1, 5)]
        sizes = [entry_bytes(entry) for entry in saved]
        with self._opened() as storage:
            storage.save(HardState(1, 1, 0), saved)
            for limit, count in (
                (0, 1),
                (sizes[0], 1),
                (sizes[0] + sizes[1] - 1, 1),
                (sizes[0] + sizes[1], 2),
                (sum(sizes) - 1, 3),
                (sum(sizes), 4),
                (1 << 64, 4),
            ):
                assert storage.entries(1, 5, limit) == saved[:count], limit
            assert storage.entries(2, 3, 0) == saved[1:2]
            assert storage.entries(5, 5, 0) == []

    def test_what_the_caller_does_to_its_list_does_not_reach_the_storage(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 0), given := _entries(1, 3))
            given.clear()
            storage.entries(1, 4).clear()
            storage.entries(1, 4).append(Entry(9, 9, b"not saved"))
            assert storage.entries(1, 4) == _entries(1, 3)

    def test_terms_are_those_of_the_entries(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(3, 1, 0), [Entry(term, term + 1) for term in (0, 1, 2, 3)])
            assert [storage.term(index) for index in range(5)] == [0, 0, 1, 2, 3]
            _raises(self.unavailable_error, lambda: storage.term(5))

    def test_an_entry_replaces_the_one_at_its_index_and_all_after_it(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 1), _entries(1, 6))
            storage.save(HardState(2, 1, 1), _entries(3, 4, term=2))
            assert storage.last_index == 4
            assert storage.entries(1, 5) == _entries(1, 2) + _entries(3, 4, term=2)
            assert [storage.term(index) for index in (2, 3, 4)] == [1, 2, 2]
            _raises(self.unavailable_error, lambda: storage.term(5))

    def test_an_entry_that_would_leave_a_gap_is_refused(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 0), _entries(1, 3))
            _raises(self.invalid_entry_error, lambda: storage.save(None, _entries(5, 6)))
            assert storage.entries(1, 4) == _entries(1, 3)

    # Hard state.

    def test_the_hard_state_is_the_last_one_saved(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 2, 0), _entries(1, 3))
            storage.save(HardState(1, 2, 3))
            assert storage.initial_state().hard_state == HardState(1, 2, 3)
            storage.save(None, _entries(4, 4))
            storage.save(HardState(), _entries(5, 5))
            assert storage.initial_state().hard_state == HardState(1, 2, 3)

    # Snapshots and compaction.

    def test_an_own_snapshot_leaves_the_entries_until_they_are_compacted(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 8), _entries(1, 10))
            storage.save_snapshot(_snapshot(6))
            assert storage.snapshot() == _snapshot(6)
            assert storage.initial_state() == (HardState(1, 1, 8), VOTERS)
            assert (storage.first_index, storage.last_index) == (1, 10)
            assert storage.entries(1, 11) == _entries(1, 10)
            storage.compact(4)
            assert (storage.first_index, storage.last_index) == (5, 10)
            assert storage.entries(5, 11) == _entries(5, 10)
            assert storage.term(4) == 1
            _raises(self.compacted_error, lambda: storage.entries(4, 6))
            _raises(self.compacted_error, lambda: storage.term(3))

    def test_the_term_before_the_first_entry_stays_known(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(3, 1, 4), [Entry(1, 1), Entry(2, 2), Entry(2, 3), Entry(3, 4)])
            storage.save_snapshot(_snapshot(4, term=3))
            storage.compact(3)
            assert [storage.term(index) for index in (3, 4)] == [2, 3]
            storage.compact(4)
            assert storage.term(4) == 3
            assert (storage.first_index, storage.last_index) == (5, 4)
            _raises(self.unavailable_error, lambda: storage.entries(5, 6))
            _raises(self.unavailable_error, lambda: storage.term(5))
            storage.save(None, [Entry(3, 5, b"next")])
            assert storage.entries(5, 6) == [Entry(3, 5, b"next")]

    def test_what_was_compacted_cannot_be_compacted_again(self) -> None:
        with self._opened() as storage:
            _raises(self.compacted_error, lambda: storage.compact(0))
            storage.save(HardState(1, 1, 5), _entries(1, 5))
            storage.save_snapshot(_snapshot(5))
            storage.compact(3)
            for index in (0, 2, 3):
                _raises(self.compacted_error, lambda: storage.compact(index))  # noqa: B023  # called at once
            _raises(self.unavailable_error, lambda: storage.compact(6))
            assert storage.entries(4, 6) == _entries(4, 5)

    def test_a_snapshot_that_is_not_newer_is_out_of_date(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 10), _entries(1, 10))
            storage.save_snapshot(_snapshot(6))
            for index in (5, 6):
                _raises(
                    self.out_of_date_error,
                    lambda: storage.save_snapshot(_snapshot(index, data=b"other")),  # noqa: B023  # called at once
                )
            assert storage.snapshot() == _snapshot(6)
            storage.save_snapshot(_snapshot(7))
            assert storage.snapshot() == _snapshot(7)

    def test_a_received_snapshot_takes_the_place_of_the_log(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 2), _entries(1, 3))
            storage.save_snapshot(_snapshot(100, term=4))
            storage.save(HardState(4, 0, 100))
            _check_log_after_received_snapshot(self, storage)
            storage.save(HardState(4, 2, 100), _entries(101, 102, term=4))
            assert storage.entries(101, 103) == _entries(101, 102, term=4)

    def test_entries_that_a_received_snapshot_contradicts_are_gone(self) -> None:
        with self._opened() as storage:
            storage.save(HardState(1, 1, 2), _entries(1, 6))
            storage.save_snapshot(_snapshot(5, term=3))
            storage.save(HardState(3, 0, 5))
            assert (storage.first_index, storage.last_index) == (6, 5)
            assert storage.term(5) == 3
            _raises(self.unavailable_error, lambda: storage.term(6))
            _raises(self.invalid_entry_error, lambda: storage.save(None, _entries(7, 7, term=3)))
            storage.save(None, _entries(6, 6, term=3))
            assert storage.entries(6, 7) == _entries(6, 6, term=3)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Storage]:
        with self._restarted() as (storage, _):
            yield storage

    @contextlib.contextmanager
    def _restarted(self) -> Iterator[tuple[Storage, Callable[[], Storage]]]:
        """A storage, and a function that closes it and opens it again."""
        with tempfile.TemporaryDirectory() as parent, contextlib.ExitStack() as stack:
            directory = os.path.join(parent, "storage")

            def open_it() -> Storage:
                stack.close()
                storage = self.open_storage(directory)
                stack.callback(storage.close)
                return storage

            yield open_it(), open_it


class DurableStorageSuite(StorageSuite):
    """The same, and what a restart or a kill must find of a storage on disk."""

    def test_everything_is_there_after_a_restart(self) -> None:
        with self._restarted() as (first, restart):
            first.save(HardState(1, 1, 0), _entries(1, 9))
            first.save(HardState(2, 3, 4), _entries(6, 8, term=2))
            storage = restart()
            assert storage.initial_state().hard_state == HardState(2, 3, 4)
            assert (storage.first_index, storage.last_index) == (1, 8)
            assert storage.entries(1, 9) == _entries(1, 5) + _entries(6, 8, term=2)
            storage.save(None, _entries(9, 9, term=2))
            assert restart().entries(6, 10) == _entries(6, 9, term=2)

    def test_a_restart_begins_with_the_newest_snapshot(self) -> None:
        with self._restarted() as (first, restart):
            first.save(HardState(1, 1, 8), _entries(1, 10))
            first.save_snapshot(_snapshot(3, data=b"old"))
            first.save_snapshot(_snapshot(7))
            first.compact(5)
            storage = restart()
            assert storage.snapshot() == _snapshot(7)
            assert storage.initial_state() == (HardState(1, 1, 8), VOTERS)
            assert storage.first_index <= 8
            assert storage.entries(8, 11) == _entries(8, 10)
            assert storage.term(7) == 1

    def test_a_restart_begins_with_a_received_snapshot(self) -> None:
        with self._restarted() as (first, restart):
            first.save(HardState(1, 1, 2), _entries(1, 3))
            first.save_snapshot(_snapshot(100, term=4))
            first.save(HardState(4, 1, 100))
            storage = restart()
            _check_log_after_received_snapshot(self, storage)
            storage.save(None, _entries(101, 103, term=4))
            assert restart().entries(101, 104) == _entries(101, 103, term=4)

    def test_what_was_saved_survives_a_kill(self) -> None:
        """The directory, copied while the storage is open, is what a killed process leaves."""
        with tempfile.TemporaryDirectory() as parent:
            storage = self.open_storage(os.path.join(parent, "storage"))
            try:
                storage.save(HardState(1, 1, 3), _entries(1, 5))
                storage.save_snapshot(_snapshot(3))
                storage.save(HardState(2, 2, 3), _entries(5, 6, term=2))
                shutil.copytree(os.path.join(parent, "storage"), os.path.join(parent, "killed"))
            finally:
                storage.close()
            killed = self.open_storage(os.path.join(parent, "killed"))
            try:
                assert killed.initial_state() == (HardState(2, 2, 3), VOTERS)
                assert killed.snapshot() == _snapshot(3)
                assert killed.entries(4, 7) == [*_entries(4, 4), *_entries(5, 6, term=2)]
            finally:
                killed.close()


def _check_log_after_received_snapshot(suite: StorageSuite, storage: Storage) -> None:
    assert storage.snapshot() == _snapshot(100, term=4)
    assert storage.initial_state().conf_state == VOTERS
    assert (storage.first_index, storage.last_index) == (101, 100)
    assert storage.term(100) == 4
    _raises(suite.compacted_error, lambda: storage.term(99))
    _raises(suite.compacted_error, lambda: storage.entries(3, 4))
    _raises(suite.unavailable_error, lambda: storage.entries(101, 102))


def _entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(term, index, b"%d:%d" % (term, index)) for index in range(first, last + 1)]


def _snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    return Snapshot(SnapshotMetadata(index, term, VOTERS), data)


def _raises(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        result = call()
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised; it returned {result!r}")
