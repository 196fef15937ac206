"""What a start reads: the log once, from the snapshot on, however long it is before that."""

from __future__ import annotations

import pytest
from watched_disk import WatchedDisk

from raftwal import Entry, HardState, RaftStorage, Snapshot, SnapshotMetadata
from raftwal.errors import CrcMismatchError
from raftwal.metrics import StorageMetrics
from raftwal.testing import UnsyncedDisk

SETTINGS = {"segment_bytes": 2_000, "keep_segments": 100, "keep_snapshots": 100}


def open_storage(directory, fs):
    return RaftStorage.open(directory, b"m", fs=fs, metrics=StorageMetrics(), **SETTINGS)


@pytest.fixture
def directory(tmp_path):
    """Thirty segments and more, with snapshots of index 100 and 480 of 500."""
    data = tmp_path / "data"
    with open_storage(data, UnsyncedDisk()) as storage:
        for index in range(1, 501):
            storage.save(HardState(1, 1, index - 1), [Entry(1, index, bytes(100))])
            if index in (100, 480):
                storage.save(HardState(1, 1, index))
                storage.save_snapshot(Snapshot(SnapshotMetadata(index, 1), b"%d" % index))
    assert len(segments(data)) > 30
    return data


def segments(data):
    return sorted(path.name for path in (data / "wal").glob("*.wal"))


def starting_at(data, index):
    """The segments that a start from the snapshot ``index`` begins in, and those behind it."""
    names = segments(data)
    first = max(n for n, name in enumerate(names) if int(name[17:33], 16) <= index)
    return names[first:]


def read_by(disk):
    return [name for call, name in disk.calls if call == "open_read_only" and name.endswith("wal")]


def test_only_what_follows_on_the_snapshot_is_read_and_that_once(directory):
    disk = WatchedDisk()
    with open_storage(directory, disk) as storage:
        assert storage.recovered.snapshot.data == b"480"
        assert [entry.index for entry in storage.recovered.entries] == list(range(481, 501))
    expected = starting_at(directory, 480)
    assert len(expected) < 5
    assert read_by(disk) == expected


def test_a_torn_tail_costs_no_look_at_what_is_before_the_snapshot(directory):
    last = directory / "wal" / segments(directory)[-1]
    content = last.read_bytes().rstrip(b"\0")
    last.write_bytes(content[:-3])
    disk = WatchedDisk()
    with open_storage(directory, disk) as storage:
        assert storage.recovered.repair.repaired
        assert storage.recovered.entry_count == 20
    assert set(read_by(disk)) <= set(starting_at(directory, 480))


def test_a_snapshot_that_is_not_whole_costs_what_follows_on_the_one_before(directory):
    (newest,) = (directory / "snap").glob("*-00000000000001e0.snap")
    newest.write_bytes(newest.read_bytes()[:-1])
    disk = WatchedDisk()
    with open_storage(directory, disk) as storage:
        assert storage.recovered.snapshot.data == b"100"
        assert storage.recovered.entry_count == 400
    assert read_by(disk) == starting_at(directory, 480) + starting_at(directory, 100)


def test_damage_behind_the_snapshot_is_found_and_damage_before_it_is_for_verify(directory):
    """What is before it is no part of what the node starts from."""
    old = directory / "wal" / segments(directory)[3]
    content = bytearray(old.read_bytes())
    content[1_000] ^= 1
    old.write_bytes(content)
    open_storage(directory, WatchedDisk()).close()
    late = directory / "wal" / segments(directory)[-2]
    content = bytearray(late.read_bytes())
    content[1_000] ^= 1
    late.write_bytes(content)
    with pytest.raises(CrcMismatchError):
        open_storage(directory, WatchedDisk())
