"""A state too large for a message stands beside its snapshot, in a file of its own."""

import errno
import io
import os
import stat

import pytest
from watched_disk import Failing, WatchedDisk

from raftwal import ConfState, HardState, RaftStorage, Snapshot, SnapshotMetadata, Snapshotter
from raftwal.errors import NoSnapshotError, WriteFailedError

STATE = bytes(range(256)) * 5000
NAME = "0000000000000005.snap.db"


def snapshot(index):
    return Snapshot(SnapshotMetadata(index, 1, ConfState((1,))), b"")


@pytest.fixture
def snapshots(tmp_path):
    return Snapshotter(tmp_path / "snap")


def test_it_is_saved_under_its_index_and_found_there(tmp_path, snapshots):
    """Without a directory, too, and in pieces: larger than one."""
    assert len(STATE) > 1 << 20
    assert snapshots.save_database(io.BytesIO(STATE), 5) == len(STATE)
    path = snapshots.database_path(5)
    assert path == str(tmp_path / "snap" / NAME)
    with open(path, "rb") as file:
        assert file.read() == STATE
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert snapshots.names() == []


def test_an_empty_state(snapshots):
    assert snapshots.save_database(io.BytesIO(), 5) == 0
    assert os.path.getsize(snapshots.database_path(5)) == 0


def test_no_database(snapshots):
    with pytest.raises(NoSnapshotError, match=r"snap\.db"):
        snapshots.database_path(5)
    assert snapshots.release_databases(100) == 0


def test_it_is_durable_before_it_has_its_name(tmp_path):
    disk = WatchedDisk()
    Snapshotter(tmp_path / "snap", fs=disk).save_database(io.BytesIO(STATE), 5)
    calls = [call for call, name in disk.calls if name.startswith(NAME) or call == "sync_directory"]
    assert calls[-4:] == ["write", "sync", "rename", "sync_directory"]


def test_one_that_is_there_stays_and_its_name_is_made_durable(tmp_path):
    """It got its name when it was whole; the crash may have come before the directory sync."""
    disk = WatchedDisk()
    snapshots = Snapshotter(tmp_path / "snap", fs=disk)
    snapshots.save_database(io.BytesIO(b"first"), 5)
    disk.calls.clear()
    snapshots.save_database(io.BytesIO(b"second"), 5)
    assert disk.calls[-1] == ("sync_directory", "snap")
    assert (tmp_path / "snap" / NAME).read_bytes() == b"first"
    assert os.listdir(tmp_path / "snap") == [NAME]


@pytest.mark.parametrize("call", ["create", "write", "sync", "rename", "sync_directory"])
def test_one_that_cannot_be_saved_leaves_nothing_unfinished(tmp_path, call):
    (tmp_path / "snap").mkdir()
    disk = WatchedDisk(Failing(errno.ENOSPC, calls=(call,)))
    snapshots = Snapshotter(tmp_path / "snap", fs=disk)
    with pytest.raises(WriteFailedError, match="No space left"):
        snapshots.save_database(io.BytesIO(STATE), 5)
    disk.before = None
    assert os.listdir(tmp_path / "snap") == ([NAME] if call == "sync_directory" else [])
    assert snapshots.save_database(io.BytesIO(STATE), 5) == len(STATE)


def test_a_stream_that_fails_leaves_nothing(tmp_path, snapshots):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise ConnectionResetError("the peer is gone")

    with pytest.raises(ConnectionResetError):
        snapshots.save_database(Broken(), 5)
    assert os.listdir(tmp_path / "snap") == []


def test_those_below_an_index_are_released(tmp_path, snapshots):
    for index in (3, 5, 7):
        snapshots.save_database(io.BytesIO(b"state"), index)
    (tmp_path / "snap" / "whatever.snap.db").write_bytes(b"not ours")
    assert snapshots.release_databases(7) == 2
    assert sorted(os.listdir(tmp_path / "snap")) == ["0000000000000007.snap.db", "whatever.snap.db"]


def test_a_storage_purges_them_with_the_snapshots_that_need_them(tmp_path):
    """Not before: an older snapshot is of use only with its database."""
    with RaftStorage.open(tmp_path / "node", keep_snapshots=2) as storage:
        snapshots = Snapshotter(tmp_path / "node" / "snap")
        storage.save(HardState(1, 1, 9), [(1, index, b"x", 0) for index in range(1, 10)])
        for index in (2, 4, 6):
            snapshots.save_database(io.BytesIO(b"state"), index)
            storage.save_snapshot(snapshot(index))
        snapshots.save_database(io.BytesIO(b"state"), 9)
    names = sorted(name for name in os.listdir(tmp_path / "node" / "snap") if name.endswith(".db"))
    assert names == [f"{index:016x}.snap.db" for index in (4, 6, 9)]


def test_what_a_crash_left_unfinished_is_removed_at_the_next_start(tmp_path):
    RaftStorage.open(tmp_path / "node").close()
    (tmp_path / "node" / "snap" / f"{NAME}.tmp").write_bytes(b"half")
    RaftStorage.open(tmp_path / "node").close()
    assert os.listdir(tmp_path / "node" / "snap") == []
