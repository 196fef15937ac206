"""One data directory: log and snapshots together, and what a node recovers from them."""

import shutil

import pytest
from directories import FIRST_SEGMENT, contents_of, entries
from watched_disk import WatchedDisk

from raftwal import (
    ConfState,
    Entry,
    HardState,
    Identity,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
    Snapshotter,
    valid_snapshots,
)
from raftwal.errors import ClosedError, NoSnapshotError, SnapshotAheadOfLogError, WriteFailedError
from raftwal.testing import InlineExecutor

SMALL = {"segment_bytes": 512}


def snapshot(index, term=1, data=b"state"):
    return Snapshot(SnapshotMetadata(index, term, ConfState((7, 8))), data)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def filled(data, last=10, commit=None, **settings):
    storage = RaftStorage.open(data, **{**SMALL, **settings})
    for entry in entries(1, last, size=60):
        storage.save(HardState(1, 7, entry.index - 1), [entry])
    storage.save(HardState(1, 7, last if commit is None else commit))
    storage.sync()
    return storage


def recovered(data, **settings):
    with RaftStorage.open(data, **{**SMALL, **settings}) as storage:
        return storage.recovered


def names(directory, ending):
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(ending))


def test_new_directory(data):
    with RaftStorage.open(data / "node", b"whose", segment_bytes=512) as storage:
        found = storage.recovered
        assert found[:5] == (None, HardState(), [], b"whose", found.repair)
        assert not found.repair.repaired
        assert storage.last_index == 0
        assert storage.snapshot_metadata.index == 0
        assert storage.load_snapshot() is None
    assert sorted(path.name for path in (data / "node").iterdir()) == ["snap", "wal"]


def test_everything_comes_back(data):
    filled(data).close()
    found = recovered(data)
    assert found.snapshot is None
    assert found.hard_state == HardState(1, 7, 10)
    assert found.entries == entries(1, 10, size=60)


def test_recovery_starts_from_the_snapshot(data):
    with filled(data) as storage:
        storage.save_snapshot(snapshot(4))
        storage.save_snapshot(snapshot(6, data=b"newer"))
        assert storage.load_snapshot() == snapshot(6, data=b"newer")
    found = recovered(data)
    assert found.snapshot == snapshot(6, data=b"newer")
    assert found.entries == entries(7, 10, size=60)
    assert found.hard_state == HardState(1, 7, 10)


def test_snapshot_file_is_durable_before_the_log_records_it(data):
    disk = WatchedDisk()
    with filled(data, fs=disk, segment_bytes=4096) as storage:
        disk.calls.clear()
        storage.save_snapshot(snapshot(5))
    calls = disk.calls
    assert calls.index(("sync_directory", "snap")) < calls.index(("write", FIRST_SEGMENT))
    assert calls.index(("write", FIRST_SEGMENT)) < calls.index(("sync_data", FIRST_SEGMENT))


def test_snapshot_file_that_the_log_does_not_vouch_for_is_ignored(data):
    """Written, but the node died before it recorded it: that one counts for nothing."""
    with filled(data) as storage:
        storage.save_snapshot(snapshot(4))
        storage.save_snapshot_file(snapshot(8))
    Snapshotter(data / "snap").save(snapshot(6, term=9))
    assert recovered(data).snapshot == snapshot(4)


def test_snapshot_above_the_commit_index_is_not_started_from(data):
    with filled(data, commit=5) as storage:
        storage.save_snapshot(snapshot(4))
        storage.save_snapshot(snapshot(9))
        assert storage.snapshot_metadata.index == 4
    assert recovered(data).snapshot == snapshot(4)


def test_broken_snapshot_falls_back_to_the_one_before(data):
    with filled(data) as storage:
        storage.save_snapshot(snapshot(4))
        storage.save_snapshot(snapshot(6))
    newest = data / "snap" / names(data / "snap", ".snap")[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    found = recovered(data)
    assert found.snapshot == snapshot(4)
    assert found.entries == entries(5, 10, size=60)
    assert names(data / "snap", ".broken") == [f"{newest.name}.broken"]


def test_broken_only_snapshot_falls_back_to_the_whole_log(data):
    with filled(data) as storage:
        storage.save_snapshot(snapshot(4))
    path = data / "snap" / names(data / "snap", ".snap")[0]
    path.write_bytes(b"")
    found = recovered(data)
    assert found.snapshot is None
    assert found.entries == entries(1, 10, size=60)


def test_missing_snapshot_whose_entries_are_purged_is_an_error(data):
    """The log starts after what the snapshot covered: nothing to start from."""
    with filled(data, keep_segments=1, keep_snapshots=1) as storage:
        storage.save_snapshot(snapshot(10))
    assert FIRST_SEGMENT not in names(data / "wal", ".wal")
    (data / "snap" / names(data / "snap", ".snap")[0]).unlink()
    before = contents_of(data)
    with pytest.raises(SnapshotAheadOfLogError, match="Put the missing snapshot file back"):
        RaftStorage.open(data, **SMALL)
    assert contents_of(data) == before


def test_broken_newest_snapshot_whose_entries_are_purged_is_an_error(data):
    """An older one is whole, but the log does not reach back to it."""
    with filled(data, 40, keep_segments=1) as storage:
        storage.save_snapshot(snapshot(10))
        storage.save_snapshot(snapshot(40))
    newest = data / "snap" / names(data / "snap", ".snap")[-1]
    newest.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(SnapshotAheadOfLogError, match="Put the missing snapshot file back"):
            RaftStorage.open(data, **SMALL)


def test_torn_tail_is_repaired(data):
    filled(data, segment_bytes=4096).close()
    segment = data / "wal" / FIRST_SEGMENT
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-3])
    found = recovered(data)
    assert found.repair.repaired
    assert found.repair.segment == str(segment)
    assert found.entries == entries(1, 10, size=60)
    assert found.hard_state == HardState(1, 7, 9)
    assert not recovered(data).repair.repaired


def test_segments_and_snapshots_to_keep(data):
    with filled(data, 40, keep_segments=3, keep_snapshots=2) as storage:
        before = names(data / "wal", ".wal")
        for index in (10, 20, 30, 40):
            storage.save_snapshot(snapshot(index))
        assert names(data / "wal", ".wal") == before[-3:]
        assert [name[17:33] for name in names(data / "snap", ".snap")] == [
            f"{index:016x}" for index in (30, 40)
        ]
        assert storage.snapshot_metadata == snapshot(40).metadata
    found = recovered(data)
    assert found.snapshot == snapshot(40)
    assert found.entries == []
    assert found.hard_state == HardState(1, 7, 40)


def test_nothing_is_purged_that_recovery_needs(data):
    """However few are to be kept, every entry after the snapshot stays."""
    with filled(data, 40, keep_segments=0, keep_snapshots=0) as storage:
        storage.save_snapshot(snapshot(15))
    found = recovered(data)
    assert found.snapshot == snapshot(15)
    assert found.entries == entries(16, 40, size=60)


def test_received_snapshot_purges_only_once_the_commit_index_reaches_it(data):
    """Until then recovery would start from the old one, and needs what it needs."""
    with filled(data, keep_segments=1, keep_snapshots=1) as storage:
        storage.save_snapshot(snapshot(4))
        segments = names(data / "wal", ".wal")
        storage.save_snapshot(snapshot(50, term=1))
        assert storage.snapshot_metadata.index == 4
        assert storage.last_index == 10
        assert names(data / "wal", ".wal")[: len(segments)] == segments
        assert len(names(data / "snap", ".snap")) == 2
        storage.save(HardState(1, 7, 50))
        assert storage.snapshot_metadata.index == storage.last_index == 50
        assert len(names(data / "snap", ".snap")) == 1
        storage.save(None, entries(51, 52))
    found = recovered(data)
    assert found.snapshot == snapshot(50)
    assert found.entries == entries(51, 52)


def test_crash_before_the_commit_reaches_a_received_snapshot(data):
    with filled(data, keep_segments=1, keep_snapshots=1) as storage:
        storage.save_snapshot(snapshot(4))
        storage.save_snapshot(snapshot(50))
    found = recovered(data)
    assert found.snapshot == snapshot(4)
    assert found.entries == entries(5, 10, size=60)


def test_entries_that_a_received_snapshot_contradicts_are_dropped(data):
    """This node's entries 8 to 10 were never committed; its leader had others there."""
    with filled(data, commit=7) as storage:
        storage.save(HardState(5, 8, 7))
        storage.save_snapshot(snapshot(9, term=4))
        storage.save(HardState(5, 8, 9))
    found = recovered(data)
    assert found.snapshot == snapshot(9, term=4)
    assert found.entries == []
    with RaftStorage.open(data, **SMALL) as storage:
        storage.save(None, [Entry(4, 10, b"the leader's")])
    assert recovered(data).entries == [Entry(4, 10, b"the leader's")]


def test_stale_entries_of_a_higher_term_than_the_received_snapshot(data):
    """A leader that died had written them; nobody committed them, and the log stays sound."""
    with filled(data, commit=7) as storage:
        storage.save(HardState(6, 8, 7), entries(8, 10, term=6))
        storage.save(HardState(7, 8, 7))
        storage.save_snapshot(snapshot(10, term=5))
        storage.save(HardState(7, 8, 10), entries(11, 12, term=5))
    found = recovered(data)
    assert found.snapshot == snapshot(10, term=5)
    assert found.entries == entries(11, 12, term=5)
    assert valid_snapshots(data / "wal")[-1].index == 10


def test_entries_that_agree_with_a_received_snapshot_are_kept(data):
    """Raft paper, figure 13, step 6: same index and term, so what follows is retained."""
    with filled(data, commit=7) as storage:
        storage.save_snapshot(snapshot(9, term=1))
        storage.save(HardState(1, 7, 9))
    assert recovered(data).entries == entries(10, 10, size=60)


def test_identity(data):
    identity = Identity("host:1", "blue")
    RaftStorage.open(data, identity=identity, **SMALL).close()
    assert Identity.decode(recovered(data, identity=identity).metadata) == identity
    assert Identity.decode(recovered(data).metadata) == identity, "none given: any will do"
    assert Identity.decode(b"something else") is None
    assert Identity.decode(None) is None
    with pytest.raises(ValueError, match="not both"):
        RaftStorage.open(data, b"raw", identity=identity)


def test_membership_is_always_recorded(data):
    """etcd 3.5 and later refuse a snapshot record without one."""
    with filled(data) as storage:
        storage.save_snapshot(Snapshot(SnapshotMetadata(4, 1), b"state"))
    assert valid_snapshots(data / "wal")[-1] == SnapshotMetadata(4, 1, ConfState())


def test_closed_storage_refuses(data):
    with filled(data) as storage:
        pass
    storage.close()
    for call in (storage.sync, storage.flush, lambda: storage.save(None, entries(11, 11))):
        with pytest.raises(ClosedError):
            call()


def test_snapshot_file_gone_while_open(data):
    with filled(data) as storage:
        storage.save_snapshot(snapshot(4))
        (data / "snap" / names(data / "snap", ".snap")[0]).unlink()
        with pytest.raises(NoSnapshotError):
            storage.load_snapshot()


def test_purge_that_fails_is_left_for_the_next_time(data):
    """Nothing depends on a file's being gone, so the node goes on."""
    disk = WatchedDisk()
    with filled(data, 40, keep_segments=1, fs=disk) as storage:
        count = len(names(data / "wal", ".wal"))

        def refuse(call, path, arguments):
            if call == "remove":
                raise PermissionError(path)

        disk.before = refuse
        storage.save_snapshot(snapshot(40))
        assert len(names(data / "wal", ".wal")) == count
        disk.before = None
        storage.purge()
        assert len(names(data / "wal", ".wal")) == 1
        assert storage.failure is None


def test_left_over_of_an_unfinished_snapshot_is_removed(data):
    filled(data).close()
    (data / "snap" / "0000000000000001-0000000000000005.snap.tmp").write_bytes(b"half")
    recovered(data)
    assert names(data / "snap", ".tmp") == []


def test_data_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailedError):
        RaftStorage.open(tmp_path / "file" / "data", **SMALL)


def test_nothing_is_removed_before_the_commit_that_vouches_for_a_received_snapshot_is_synced(
    tmp_path,
):
    """A kill at the first removal must leave a directory that recovers from the snapshot."""
    images = []

    def copy_before_removing(call, path, arguments):
        if call == "remove" and path.endswith((".wal", ".snap")) and not images:
            images.append(shutil.copytree(tmp_path / "node", tmp_path / "image"))

    disk = WatchedDisk(copy_before_removing)
    conf_state = ConfState(voters=(1,))
    with RaftStorage.open(
        tmp_path / "node",
        fs=disk,
        segment_bytes=2048,
        keep_segments=1,
        keep_snapshots=1,
        executor=InlineExecutor(),
    ) as storage:
        for index in range(1, 60):
            storage.save(HardState(1, 1, index), [Entry(1, index, b"x" * 100)])
            if index == 35:
                storage.save_snapshot(Snapshot(SnapshotMetadata(35, 1, conf_state), b"old"))
                images.clear()
                shutil.rmtree(tmp_path / "image", ignore_errors=True)
        storage.save_snapshot(Snapshot(SnapshotMetadata(500, 1, conf_state), b"new"))
        assert not images
        storage.save(HardState(1, 1, 500))
    assert images
    with RaftStorage.open(tmp_path / "image") as recovered:
        assert recovered.recovered.snapshot.data == b"new"
        assert recovered.recovered.hard_state.commit == 500
