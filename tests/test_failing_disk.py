"""A disk that fails: the first failure is final, and nothing acknowledged is lost."""

import errno
import os

import pytest
from directories import FIRST_SEGMENT, contents_of, entries, make_log, open_and_read, read
from implementations import saves_in_python
from watched_disk import CHANGING_CALLS, Failing, WatchedDisk

import raftwal
from raftwal import (
    WAL,
    ConfState,
    Entry,
    HardState,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
    Snapshotter,
)
from raftwal.errors import RaftwalError, WriteFailedError
from raftwal.fs import DiskFile
from raftwal.testing import InlineExecutor

ERRORS = pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)


def run(wal):
    """Saves, cuts and snapshots; yields what was acknowledged after each call."""
    acknowledged = []
    for entry in entries(1, 20, size=100):
        try:
            wal.save(HardState(1, 7, entry.index - 1), [entry])
            acknowledged.append(entry)
            if entry.index % 6 == 0:
                wal.save_snapshot(SnapshotMetadata(entry.index - 1, 1, ConfState((7,))))
        except WriteFailedError:
            break
    return acknowledged


def calls_of_an_undisturbed_run(tmp_path):
    disk = WatchedDisk()
    with WAL.create(
        tmp_path / "whole", segment_bytes=512, fs=disk, executor=InlineExecutor()
    ) as wal:
        disk.calls.clear()
        assert len(run(wal)) == 20
        return [call for call, _ in disk.calls if call in CHANGING_CALLS]


@ERRORS
def test_every_call_of_a_run_failing_once(tmp_path, error):
    """Whichever call fails: refused from then on, no further sync, all acknowledged there."""
    calls = calls_of_an_undisturbed_run(tmp_path)
    final = 0
    for nth in range(1, len(calls) + 1):
        directory = tmp_path / f"log{nth}"
        disk = WatchedDisk()
        wal = WAL.create(directory, segment_bytes=512, fs=disk, executor=InlineExecutor())
        failing = disk.before = Failing(error, nth)
        acknowledged = run(wal)
        note = f"call {nth}: {failing.failed_at}"
        assert failing.failed_at, note
        if wal.failure is None:
            # Preparing the next segment failed, in the background: tried again at the cut.
            assert len(acknowledged) == 20, note
            wal.close()
        else:
            final += 1
            assert wal.failure.errno == error
            check_refuses_everything(wal, disk, note)
        found = open_and_read(directory).entries
        assert found[: len(acknowledged)] == acknowledged, note
        assert found == entries(1, len(found), size=100), note
        assert len(found) <= len(acknowledged) + 1, note
    assert final > len(calls) // 2


def check_refuses_everything(wal, disk, note=""):
    calls_before = len(disk.calls)
    for call in (
        lambda: wal.save(HardState(9, 7, 0), []),
        lambda: wal.save(None, entries(1, 1)),
        lambda: wal.save_snapshot(SnapshotMetadata(1, 1)),
        wal.sync,
        wal.flush,
        lambda: wal.release_to(1),
    ):
        with pytest.raises(WriteFailedError) as caught:
            call()
        assert isinstance(caught.value.__cause__, OSError), note
    wal.close()
    after = [call for call, _ in disk.calls[calls_before:]]
    assert not {"write", "sync", "sync_data", "truncate"} & set(after), note


def test_failed_sync_names_the_file_and_the_reason(tmp_path):
    disk = WatchedDisk()
    wal = WAL.create(tmp_path / "log", segment_bytes=4096, fs=disk, executor=InlineExecutor())
    disk.before = Failing(errno.EIO, calls=("sync_data",))
    with pytest.raises(WriteFailedError, match=os.strerror(errno.EIO)) as caught:
        wal.save(None, entries(1, 1))
    assert caught.value.path == str(tmp_path / "log" / FIRST_SEGMENT)
    assert caught.value.__cause__.errno == errno.EIO
    check_refuses_everything(wal, disk)


def test_short_writes_are_completed(tmp_path, monkeypatch):
    """A write that takes only part is continued from there."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:7], at))
    with saves_in_python():
        make_log(tmp_path / "short", 10)
    monkeypatch.undo()
    make_log(tmp_path / "long", 10)
    assert contents_of(tmp_path / "short") == contents_of(tmp_path / "long")


def test_write_that_stops_half_way_is_a_failure(tmp_path, monkeypatch):
    """The disk fills up inside a record: a torn tail, and nothing acknowledged is lost."""
    real = os.pwrite
    with saves_in_python():
        wal = WAL.create(tmp_path / "log", segment_bytes=4096)
    wal.save(None, entries(1, 3))
    room = [600]

    def fill(fd, data, at):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, bytes(data)[: room[0]], at)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", fill)
    with pytest.raises(WriteFailedError):
        wal.save(None, [Entry(1, 4, b"x" * 1000)])
    wal.close()
    monkeypatch.undo()
    raftwal.repair(tmp_path / "log")
    assert open_and_read(tmp_path / "log").entries == entries(1, 3)


def test_write_that_takes_nothing_does_not_loop(tmp_path, monkeypatch):
    file = DiskFile(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        file.write(0, b"data")
    file.close()


@ERRORS
def test_creation_that_fails_leaves_nothing(tmp_path, error):
    """Neither the log nor what it was made in; and then it can be made."""
    disk = WatchedDisk()
    WAL.create(tmp_path / "whole", fs=disk, segment_bytes=512, executor=InlineExecutor()).close()
    before_ready = disk.calls.index(("create", "0.tmp"))
    count = sum(1 for call, _ in disk.calls[:before_ready] if call in CHANGING_CALLS)
    for nth in range(1, count + 1):
        failing = Failing(error, nth)
        with pytest.raises(WriteFailedError):
            WAL.create(tmp_path / "log", fs=WatchedDisk(failing), segment_bytes=512)
        assert [path.name for path in tmp_path.iterdir()] == ["whole"], failing.failed_at
    WAL.create(tmp_path / "log", segment_bytes=512).close()


def test_opening_that_fails_is_final(tmp_path):
    """When what was read cannot be made durable, no second try can report success."""
    make_log(tmp_path / "log", 3)
    for call in ("sync", "sync_directory"):
        disk = WatchedDisk(Failing(errno.EIO, calls=(call,)))
        wal = WAL.open(tmp_path / "log", segment_bytes=4096, fs=disk)
        for _ in range(2):
            with pytest.raises(WriteFailedError):
                wal.read_all()
        assert wal.failure.errno == errno.EIO
        check_refuses_everything(wal, disk)


def test_failed_preparation_is_retried_at_the_cut(tmp_path):
    """No space for the next segment yet: nothing was promised, so it is tried again."""
    disk = WatchedDisk(Failing(errno.ENOSPC, 2, calls=("allocate",)))
    with WAL.create(tmp_path / "log", segment_bytes=512, fs=disk, executor=InlineExecutor()) as wal:
        assert len(run(wal)) == 20
        assert disk.before.failed_at == "allocate 0.tmp"
    assert open_and_read(tmp_path / "log").entries == entries(1, 20, size=100)


def test_no_space_at_the_cut_is_final(tmp_path):
    disk = WatchedDisk()
    wal = WAL.create(tmp_path / "log", segment_bytes=512, fs=disk, executor=InlineExecutor())

    def full(call, path, arguments):
        if call == "allocate":
            raise OSError(errno.ENOSPC, "no space", path)

    disk.before = full
    acknowledged = run(wal)
    assert wal.failure is None or wal.failure.errno == errno.ENOSPC
    assert len(acknowledged) < 20
    wal.close()
    assert open_and_read(tmp_path / "log").entries[: len(acknowledged)] == acknowledged


@ERRORS
def test_snapshot_save_that_fails_leaves_no_file(tmp_path, error):
    snapshot = Snapshot(SnapshotMetadata(5, 1, ConfState((7,))), b"state")
    disk = WatchedDisk()
    Snapshotter(tmp_path / "whole", fs=disk).save(snapshot)
    count = sum(1 for call, _ in disk.calls if call in CHANGING_CALLS)
    directory = tmp_path / "snap"
    directory.mkdir()
    for nth in range(1, count - 1):
        failing = Failing(error, nth)
        with pytest.raises(WriteFailedError):
            Snapshotter(directory, fs=WatchedDisk(failing)).save(snapshot)
        assert list(directory.iterdir()) == [], failing.failed_at
    assert failing.failed_at.startswith("sync_directory")


def test_snapshot_saved_again_is_not_lost_when_that_fails(tmp_path):
    """The log vouches for the file that was there; a failing second save keeps it whole."""
    snapshot = Snapshot(SnapshotMetadata(5, 1, ConfState((7,))), b"state")
    Snapshotter(tmp_path).save(snapshot)
    for call in ("write", "sync", "rename", "sync_directory"):
        disk = WatchedDisk(Failing(errno.EIO, calls=(call,)))
        with pytest.raises(WriteFailedError):
            Snapshotter(tmp_path, fs=disk).save(snapshot)
        assert Snapshotter(tmp_path).load() == snapshot, call


@ERRORS
def test_repair_that_fails_does_not_cut(tmp_path, error):
    """The copy comes first; only a failure after the cut may leave the log cut."""
    disk = WatchedDisk()
    for nth in range(1, 7):
        directory = tmp_path / f"log{nth}"
        make_log(directory, 5)
        segment = directory / FIRST_SEGMENT
        torn = segment.read_bytes().rstrip(b"\0")[:-9]
        segment.write_bytes(torn)
        failing = Failing(error, nth, (*CHANGING_CALLS, "open"))
        disk.before = failing
        try:
            raftwal.repair(directory, fs=disk)
        except RaftwalError as caught:
            assert isinstance(caught, WriteFailedError)
            after_cut = failing.failed_at == f"sync {FIRST_SEGMENT}"
            assert after_cut or segment.read_bytes() == torn, failing.failed_at
        raftwal.repair(directory)
        assert read(directory).entries == entries(1, 5)
        assert read(directory).hard_state == HardState(1, 7, 3), "the torn one was after it"


def test_storage_says_that_it_failed(tmp_path):
    disk = WatchedDisk()
    storage = RaftStorage.open(tmp_path / "data", segment_bytes=4096, fs=disk)
    storage.save(HardState(1, 7, 0), entries(1, 3))
    disk.before = Failing(errno.EIO, calls=("sync_data",))
    with pytest.raises(WriteFailedError):
        storage.save(None, entries(4, 4))
    assert storage.failure.errno == errno.EIO
    with pytest.raises(WriteFailedError):
        storage.save_snapshot(Snapshot(SnapshotMetadata(2, 1), b"state"))
    storage.close()
    with RaftStorage.open(tmp_path / "data", segment_bytes=4096) as storage:
        assert storage.recovered.entries[:3] == entries(1, 3)
