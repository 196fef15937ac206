"""The storage contract: raftwal's own storages keep it, and the suite finds who does not."""

from __future__ import annotations

import inspect
import unittest

import pytest

from raftwal import ConfState, Entry, HardState, RaftStorage, Snapshot, SnapshotMetadata
from raftwal.errors import CompactedError, InvalidSettingError, InvalidSnapshotError
from raftwal.testing import MemoryStorage, UnsyncedDisk
from raftwal.testing.storage_suite import DurableStorageSuite, StorageSuite


class TestRaftStorage(DurableStorageSuite):
    def open_storage(self, directory):
        return RaftStorage.open(directory, b"metadata", segment_bytes=1 << 16)


class TestRaftStorageOfSmallSegments(DurableStorageSuite):
    """Each save cuts a segment, and snapshots leave nothing that can go."""

    def open_storage(self, directory):
        return RaftStorage.open(
            directory, segment_bytes=100, keep_segments=1, keep_snapshots=1, fs=UnsyncedDisk()
        )


class TestMemoryStorage(StorageSuite):
    def open_storage(self, directory):
        return MemoryStorage()


class TestWithUnittest(StorageSuite, unittest.TestCase):
    def open_storage(self, directory):
        return MemoryStorage()


class ForgetsHardState(MemoryStorage):
    def save(self, hard_state, entries=()):
        super().save(None, entries)


class TakesAnEmptyHardState(MemoryStorage):
    def save(self, hard_state, entries=()):
        super().save(hard_state, entries)
        if hard_state is not None:
            self._hard_state = hard_state


class IgnoresTheLimit(MemoryStorage):
    def entries(self, low, high, max_bytes=None):
        return super().entries(low, high)


class GivesNothingBelowTheLimit(MemoryStorage):
    def entries(self, low, high, max_bytes=None):
        return [] if max_bytes == 0 else super().entries(low, high, max_bytes)


class GivesTheLastOneToo(MemoryStorage):
    def entries(self, low, high, max_bytes=None):
        return super().entries(low, min(high + 1, self.last_index + 1), max_bytes)


class GivesItsOwnList(MemoryStorage):
    def entries(self, low, high, max_bytes=None):
        super().entries(low, high, max_bytes)
        held = self._held
        return held._entries if len(held._entries) == high - low else super().entries(low, high)


class KeepsTheCallersList(MemoryStorage):
    def save(self, hard_state, entries=()):
        super().save(hard_state, entries)
        if entries and self.first_index == entries[0].index:
            self._held._entries = entries


class KeepsWhatWasReplaced(MemoryStorage):
    def save(self, hard_state, entries=()):
        last = self.last_index
        kept = super().entries(last, last + 1) if last >= self.first_index else []
        super().save(hard_state, entries)
        if entries and kept and entries[-1].index < last:
            self._held._last = last
            self._held._entries += kept * (last - entries[-1].index)


class AcceptsGaps(MemoryStorage):
    def save(self, hard_state, entries=()):
        entries = list(entries)
        if entries:
            entries = [
                one._replace(index=min(one.index, self.last_index + 1 + number))
                for number, one in enumerate(entries)
            ]
        super().save(hard_state, entries)


class ForgetsTheTermBeforeTheFirst(MemoryStorage):
    def term(self, index):
        if index == self.first_index - 1 and index:
            raise CompactedError("gone")
        return super().term(index)


class CompactsWithItsSnapshot(MemoryStorage):
    def save_snapshot(self, snapshot):
        super().save_snapshot(snapshot)
        if self.first_index <= snapshot.metadata.index:
            self.compact(snapshot.metadata.index)


class CompactsTwice(MemoryStorage):
    def compact(self, index):
        if index >= self.first_index:
            super().compact(index)


class CompactsNothing(MemoryStorage):
    def compact(self, index):
        pass


class TakesOldSnapshots(MemoryStorage):
    def save_snapshot(self, snapshot):
        self._snapshot = snapshot._replace(metadata=snapshot.metadata._replace(index=0))
        super().save_snapshot(snapshot)


class TakesTheSameSnapshotAgain(MemoryStorage):
    def save_snapshot(self, snapshot):
        if self._snapshot.metadata == snapshot.metadata:
            self._snapshot = snapshot
        else:
            super().save_snapshot(snapshot)


class KeepsItsLogBehindAReceivedSnapshot(MemoryStorage):
    def save_snapshot(self, snapshot):
        if snapshot.metadata.index <= self.last_index:
            snapshot = Snapshot(
                snapshot.metadata._replace(term=self.term(snapshot.metadata.index)), snapshot.data
            )
        super().save_snapshot(snapshot)


class ForgetsMembership(MemoryStorage):
    def initial_state(self):
        return super().initial_state()._replace(conf_state=ConfState())


class ForgetsTheState(MemoryStorage):
    def snapshot(self):
        return super().snapshot()._replace(data=b"")


class BeginsAtZero(MemoryStorage):
    @property
    def first_index(self):
        return super().first_index - 1


BROKEN = [
    value
    for value in list(globals().values())
    if inspect.isclass(value) and issubclass(value, MemoryStorage) and value is not MemoryStorage
]


def failing_tests(suite: StorageSuite) -> list[str]:
    failing = []
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        if name.startswith("test_"):
            try:
                test()
            except Exception:
                failing.append(name)
    return failing


@pytest.mark.parametrize("broken", BROKEN, ids=lambda storage: storage.__name__)
def test_the_suite_finds_a_storage_that_breaks_the_contract(broken):
    class Suite(StorageSuite):
        def open_storage(self, directory):
            return broken()

    assert failing_tests(Suite())


def test_the_suite_finds_a_storage_that_forgets_at_a_restart():
    class Suite(DurableStorageSuite):
        def open_storage(self, directory):
            return MemoryStorage()

    found = failing_tests(Suite())
    assert len(found) == len([name for name in dir(Suite) if name.startswith("test_")]) - len(
        [name for name in dir(StorageSuite) if name.startswith("test_")]
    )


def test_nothing_is_compacted_that_no_snapshot_has(tmp_path):
    """A follower that needs what is gone could not be sent it as a snapshot either."""
    with RaftStorage.open(tmp_path / "node") as storage:
        storage.save(HardState(1, 1, 3), [entry(index) for index in (1, 2, 3)])
        with pytest.raises(LookupError, match="Save a snapshot first"):
            storage.compact(2)
        assert storage.first_index == 1


def test_a_snapshot_that_contradicts_a_committed_entry_is_refused(tmp_path):
    """Recovery takes the log for contradicted where the terms differ, and would drop it."""
    with RaftStorage.open(tmp_path / "node") as storage:
        storage.save(HardState(1, 1, 3), [entry(index) for index in (1, 2, 3)])
        wrong = Snapshot(SnapshotMetadata(2, 9, ConfState((1,))), b"state")
        with pytest.raises(InvalidSnapshotError, match="is of term 1, not 9"):
            storage.save_snapshot(wrong)
        with pytest.raises(InvalidSnapshotError):
            storage.record_snapshot(wrong.metadata)
    with RaftStorage.open(tmp_path / "node") as storage:
        assert storage.entries(1, 4) == [entry(index) for index in (1, 2, 3)]


def test_a_snapshot_that_was_overtaken_while_its_file_was_written_is_passed_over(tmp_path):
    with RaftStorage.open(tmp_path / "node") as storage:
        storage.save(HardState(1, 1, 3), [entry(index) for index in (1, 2, 3)])
        old = Snapshot(SnapshotMetadata(1, 1, ConfState((1,))), b"old")
        storage.save_snapshot_file(old)
        storage.save_snapshot(Snapshot(SnapshotMetadata(3, 1, ConfState((1,))), b"new"))
        storage.record_snapshot(old.metadata)
        assert storage.snapshot().data == b"new"


def test_without_its_entries_a_storage_still_knows_indexes_and_terms(tmp_path):
    with RaftStorage.open(tmp_path / "node", keep_entries=False) as storage:
        storage.save(HardState(1, 1, 3), [entry(index) for index in (1, 2, 3)])
        storage.save_snapshot(Snapshot(SnapshotMetadata(2, 1, ConfState((1,))), b"state"))
        storage.compact(2)
        assert (storage.first_index, storage.last_index, storage.term(2)) == (3, 3, 1)
        with pytest.raises(InvalidSettingError, match="keep_entries"):
            storage.entries(3, 4)


def entry(index):
    return Entry(1, index, b"data")
