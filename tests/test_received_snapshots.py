"""A snapshot received from a peer is ahead of the log: what may follow, and when."""

from __future__ import annotations

import pytest
from directories import FIRST_SEGMENT, Frames
from watched_disk import WatchedDisk

import raftwal
from raftwal import (
    WAL,
    ConfState,
    Entry,
    HardState,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
)
from raftwal.errors import EntryGapError, InvalidEntryError
from raftwal.testing import InlineExecutor
from raftwal.wire.frames import ENTRY
from raftwal.wire.messages import encode_entry

CONF_STATE = ConfState(voters=(1,))
SETTINGS = {"segment_bytes": 2000, "keep_segments": 1, "keep_snapshots": 1}


def open_storage(path, **settings):
    return RaftStorage.open(path, executor=InlineExecutor(), **{**SETTINGS, **settings})


def received(index, term=1):
    return Snapshot(SnapshotMetadata(index, term, CONF_STATE), b"state of a peer")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node"


def five_entries(path, **settings):
    storage = open_storage(path, **settings)
    storage.save(HardState(1, 1, 5), [Entry(1, index, b"x") for index in range(1, 6)])
    return storage


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("last", [29, 40, 150])
def test_a_snapshot_that_the_log_overtakes_entry_by_entry_never_hides_the_log(path, restart, last):
    """Segments cut meanwhile are named below the snapshot's index, after its record."""
    storage = five_entries(path)
    storage.save_snapshot(received(30))
    if restart:
        storage.close()
        storage = open_storage(path)
    for index in range(6, last + 1):
        storage.save(HardState(1, 1, index), [Entry(1, index, b"x" * 100)])
    storage.close()
    with open_storage(path) as storage:
        found = storage.recovered
        start = found.snapshot.metadata.index if found.snapshot else 0
        assert start in (0, 30)
        assert [entry.index for entry in found.entries] == list(range(start + 1, last + 1))
        assert found.hard_state.commit >= last - 1


def test_the_commit_index_is_durable_before_any_entry_that_follows_on_the_snapshot(path):
    disk = WatchedDisk()
    storage = five_entries(path, fs=disk)
    storage.save_snapshot(received(100))
    written = []
    disk.before = lambda call, name, arguments: written.append((call, arguments))
    storage.save(HardState(1, 1, 100), [Entry(1, 101, b"follows")])
    storage.close()
    calls = [(call, b"follows" in arguments[1]) for call, arguments in written if call == "write"]
    assert [has_entry for _, has_entry in calls].index(True) > 0
    entry_at = next(
        number
        for number, (call, arguments) in enumerate(written)
        if call == "write" and b"follows" in arguments[1]
    )
    assert "sync_data" in [call for call, _ in written[:entry_at]]
    with open_storage(path) as storage:
        assert storage.recovered.snapshot.metadata.index == 100
        assert [entry.index for entry in storage.recovered.entries] == [101]


def test_entries_beyond_a_snapshot_that_nothing_vouches_for_are_refused(path):
    storage = five_entries(path)
    storage.save_snapshot(received(100))
    with pytest.raises(InvalidEntryError, match="no commit index vouches for"):
        storage.save(None, [Entry(1, 101, b"x")])
    storage.save(None, [Entry(1, 6, b"x")])
    storage.close()
    with open_storage(path) as storage:
        assert storage.last_index == 6
        with pytest.raises(InvalidEntryError):
            storage.save(None, [Entry(1, 101, b"x")])


@pytest.mark.parametrize(
    ("hard_state", "entries"),
    [
        (HardState(1, 1, 21), []),
        (HardState(1, 1, 22), [Entry(1, 21, b"x")]),
        (HardState(1, 1, 9), []),
        (None, [Entry(1, 10, b"x")]),
        (None, [Entry(1, 15, b"x")]),
        (None, [Entry(1, 22, b"x")]),
    ],
    ids=[
        "commit above the log",
        "commit above the entries saved with it",
        "commit below the snapshot",
        "an entry that the snapshot covers",
        "a tail cut back below the commit index",
        "a gap",
    ],
)
def test_what_recovery_would_refuse_is_refused_before_it_is_written(path, hard_state, entries):
    storage = open_storage(path)
    storage.save(HardState(1, 1, 20), [Entry(1, index, b"x") for index in range(1, 21)])
    storage.save_snapshot(received(10))
    with pytest.raises(InvalidEntryError):
        storage.save(hard_state, entries)
    storage.close()
    with open_storage(path) as storage:
        assert storage.recovered.snapshot.metadata.index == 10
        assert storage.recovered.entries[-1].index == 20


def test_segments_named_higher_than_later_ones_are_not_purged_too_early(path):
    """A tail that was cut back leaves a segment named after entries that are gone."""
    storage = open_storage(path, segment_bytes=500, keep_segments=1)
    storage.save(HardState(1, 1, 0), [Entry(1, index, b"x" * 40) for index in range(1, 41)])
    storage.save(HardState(1, 1, 5))
    for term in range(2, 30):
        storage.save(HardState(term, 1, 5 + term - 2), [Entry(term, 4 + term, b"y" * 100)])
    storage.save_snapshot(Snapshot(SnapshotMetadata(20, 16, CONF_STATE), b"state"))
    storage.close()
    with open_storage(path) as storage:
        assert storage.recovered.snapshot.metadata.index == 20
        assert storage.recovered.entries[-1].index == 33


def test_the_log_of_a_node_that_was_sent_a_snapshot_at_once_is_sound(path):
    """As that of an etcd member that joins: its first entry is far from the beginning."""
    with open_storage(path) as storage:
        storage.save_snapshot(received(30))
        storage.save(HardState(1, 1, 30))
        storage.save(HardState(1, 1, 31), [Entry(1, 31, b"x"), Entry(1, 32, b"y")])
    report = raftwal.verify(path / "wal")
    assert report.entries == 2
    assert [snapshot.index for snapshot in report.snapshots][:2] == [0, 30]
    # Still no log to start from without that snapshot.
    with pytest.raises(EntryGapError), WAL.open_for_read(path / "wal") as reader:
        reader.read_all()


def test_a_gap_without_a_snapshot_in_it_is_no_sound_log(path):
    frames = Frames().add_header().add(ENTRY, encode_entry(Entry(1, 31, b"x")))
    path.mkdir()
    frames.write(path / "wal" / FIRST_SEGMENT)
    with pytest.raises(EntryGapError):
        raftwal.verify(path / "wal")
