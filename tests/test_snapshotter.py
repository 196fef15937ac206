"""The snapshotter: whole files or none, and the newest whole one that is vouched for."""

import stat

import pytest
from watched_disk import WatchedDisk

from raftwal import ConfState, Snapshot, SnapshotMetadata, Snapshotter
from raftwal.errors import NoSnapshotError, SnapshotFileError
from raftwal.snapshots import SnapshotName


def snapshot(index, term=1, data=b"state"):
    return Snapshot(SnapshotMetadata(index, term, ConfState((1, 2, 3))), data)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "snap"


@pytest.fixture
def snapshots(directory):
    return Snapshotter(directory)


def test_saved_snapshot_loads_again(directory, snapshots):
    membership = ConfState((1, 1 << 63), (3,), (4, 5), (6,), True)
    saved = Snapshot(SnapshotMetadata((1 << 64) - 1, 9, membership), bytes(range(256)) * 99)
    path = snapshots.save(saved)
    assert path == str(directory / "0000000000000009-ffffffffffffffff.snap")
    assert snapshots.load() == saved
    assert stat.S_IMODE((directory / path).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_empty_state_is_a_snapshot_too(snapshots):
    snapshots.save(snapshot(1, data=b""))
    assert snapshots.load() == snapshot(1, data=b"")


def test_newest_by_term_then_index(snapshots):
    for index, term in ((9, 1), (5, 2), (7, 2)):
        snapshots.save(snapshot(index, term))
    assert snapshots.load() == snapshot(7, 2)
    assert snapshots.names() == [SnapshotName(2, 7), SnapshotName(2, 5), SnapshotName(1, 9)]


def test_newest_among_those_vouched_for(snapshots):
    """Index and term count, the membership does not."""
    for index in (3, 5, 7):
        snapshots.save(snapshot(index))
    vouched = [SnapshotMetadata(0, 0), SnapshotMetadata(3, 1), SnapshotMetadata(5, 1)]
    assert snapshots.load_newest(vouched) == snapshot(5)
    assert snapshots.load_newest([*vouched, SnapshotMetadata(7, 2)]) == snapshot(5)
    with pytest.raises(NoSnapshotError):
        snapshots.load_newest([SnapshotMetadata(4, 1)])


def test_no_directory_and_no_snapshot(directory, snapshots):
    assert snapshots.names() == []
    with pytest.raises(NoSnapshotError):
        snapshots.load()
    assert not directory.exists()


def damage_empty(data):
    return b""


def damage_cut(data):
    return data[:-1]


def damage_flip(data):
    return data[:-3] + bytes((data[-3] ^ 1,)) + data[-2:]


def damage_zeros(data):
    return bytes(len(data))


def damage_garbage(data):
    return b"\xff" * len(data)


@pytest.mark.parametrize(
    "damage", [damage_empty, damage_cut, damage_flip, damage_zeros, damage_garbage]
)
def test_broken_file_is_set_aside_and_the_next_one_used(directory, snapshots, damage):
    snapshots.save(snapshot(3))
    broken = directory / snapshots.save(snapshot(5))
    data = damage(broken.read_bytes())
    broken.write_bytes(data)
    with pytest.raises(SnapshotFileError) as caught:
        snapshots.read(SnapshotName(1, 5))
    assert caught.value.path == str(broken)
    assert snapshots.load() == snapshot(3)
    assert sorted(path.name for path in directory.iterdir()) == [
        str(SnapshotName(1, 3)),
        f"{SnapshotName(1, 5)}.broken",
    ]
    assert (directory / f"{SnapshotName(1, 5)}.broken").read_bytes() == data


def test_every_bit_of_a_file_counts(directory, snapshots):
    """No flipped bit gives another state: the file is refused."""
    path = directory / snapshots.save(snapshot(5, data=b"the state"))
    whole = path.read_bytes()
    for position in range(len(whole) * 8):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            found = snapshots.read(SnapshotName(1, 5))
        except SnapshotFileError:
            continue
        assert found == snapshot(5, data=b"the state"), position


def test_file_under_the_name_of_another_is_refused(directory, snapshots):
    path = directory / snapshots.save(snapshot(5))
    path.rename(directory / str(SnapshotName(1, 6)))
    with pytest.raises(SnapshotFileError, match="index 5"):
        snapshots.read(SnapshotName(1, 6))


def test_synced_before_it_gets_its_name(directory):
    """A crash leaves the whole file or none."""
    disk = WatchedDisk()
    Snapshotter(directory, fs=disk).save(snapshot(5))
    name = f"{SnapshotName(1, 5)}.tmp"
    assert disk.calls[-5:] == [
        ("create", name),
        ("write", name),
        ("sync", name),
        ("rename", name),
        ("sync_directory", "snap"),
    ]


def test_purge_keeps_the_newest_and_all_that_are_newer(directory, snapshots):
    for index in range(1, 8):
        snapshots.save(snapshot(index))
    assert snapshots.purge(SnapshotMetadata(5, 1), keep=2) == 3
    assert [name.index for name in snapshots.names()] == [7, 6, 5, 4]
    assert snapshots.purge(SnapshotMetadata(5, 1), keep=0) == 1
    assert [name.index for name in snapshots.names()] == [7, 6, 5]


def test_unfinished_files_are_removed_and_others_are_not(directory, snapshots):
    snapshots.save(snapshot(1))
    for name in ("0000000000000001-0000000000000002.snap.tmp", "db", "notes.txt"):
        (directory / name).touch()
    snapshots.remove_unfinished()
    assert sorted(path.name for path in directory.iterdir()) == [
        str(SnapshotName(1, 1)),
        "db",
        "notes.txt",
    ]


def test_impossible_numbers_are_refused_before_anything_is_written(directory, snapshots):
    for metadata in (
        SnapshotMetadata(-1, 1),
        SnapshotMetadata(1, 1 << 64),
        SnapshotMetadata(1, 1, ConfState((-1,))),
    ):
        with pytest.raises(ValueError):
            snapshots.save(Snapshot(metadata, b""))
    assert not directory.exists()
