"""Saves that are one call of the native twin: durable, in order, refused after a failure, and
beside everything else that is done to a log.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from directories import FIRST_SEGMENT, contents_of, entries, open_and_read
from implementations import native_codec, saves_in_python
from prometheus_client import CollectorRegistry

import raftwal
from raftwal import WAL, Entry, HardState, SnapshotMetadata
from raftwal.errors import InvalidEntryError, TornTailError, WriteFailedError
from raftwal.fs import Descriptor, DiskFile
from raftwal.metrics import storage_metrics
from raftwal.testing import UnsyncedDisk

if not hasattr(native_codec(), "Tail"):
    pytest.skip("this system has no native tail", allow_module_level=True)


@pytest.fixture
def writing_to(monkeypatch):
    """Has native saves go to a device, in this context."""

    @contextlib.contextmanager
    def go(device):
        with open(device, "r+b", buffering=0) as failing, monkeypatch.context() as patch:
            descriptor = Descriptor(failing.fileno(), syncs=True)
            patch.setattr(DiskFile, "descriptor", lambda _: descriptor)
            yield

    return go


@pytest.fixture
def log(tmp_path):
    """A log whose next saves are native ones: it has an entry, and room."""
    with WAL.create(tmp_path / "log", b"m", preallocation="reserve") as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        assert log._tail.takes_saves
        yield log


def is_native(log):
    return log._tail.takes_saves


def read(log):
    """What another reader finds while the log is open."""
    return WAL.open_for_read(log._directory).read_all()


def test_a_save_is_in_the_file_when_it_returns(log):
    for index in range(2, 50):
        log.save(None, entries(index, index))
        assert read(log).entries[-1] == entries(index, index)[0]
    assert is_native(log)
    assert log.last_index == 49


@pytest.mark.parametrize(
    ("device", "call", "reason"),
    [("/dev/full", "write", errno.ENOSPC), ("/dev/null", "data sync", errno.EINVAL)],
)
def test_after_a_failed_call_the_log_refuses_everything(tmp_path, writing_to, device, call, reason):
    with writing_to(device):
        log = WAL.create(tmp_path / "log", preallocation="reserve")
        log.save(HardState(1, 1, 0), entries(1, 1))
        failed = []
        log.when_failed(lambda: failed.append(log.failure))
        with pytest.raises(WriteFailedError, match=f"{call} failed") as caught:
            log.save(None, entries(2, 2))
        assert caught.value.path == str(tmp_path / "log" / FIRST_SEGMENT)
        assert caught.value.offset > 0
        assert caught.value.__cause__.errno == reason
        assert failed == [caught.value.__cause__]
        for refused in (
            lambda: log.save(None, entries(2, 2)),
            lambda: log.save(HardState(2, 2, 0)),
            lambda: log.save_next(lambda index: entries(index, index)),
            lambda: log.submit(None, entries(2, 2)),
            lambda: log.save_snapshot(SnapshotMetadata(1, 1)),
            log.sync,
            log.flush,
            log.check_usable,
        ):
            with pytest.raises(WriteFailedError):
                refused()
        log.close()
    assert open_and_read(tmp_path / "log").entries == entries(1, 1)


def test_a_write_that_stops_half_way_is_a_failure(tmp_path):
    """The file may not grow any more: what is taken of the write is a torn tail."""
    program = """
        import resource, signal, sys
        from raftwal import WAL, Entry, HardState
        from raftwal.errors import WriteFailedError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = WAL.create(sys.argv[1], preallocation="reserve")
        log.save(HardState(1, 1, 0), [Entry(1, 1, b"kept")])
        log.save(None, [Entry(1, 2, b"kept, too")])
        assert log._tail.takes_saves
        end = log._tail.offset
        resource.setrlimit(resource.RLIMIT_FSIZE, (end + 300, resource.RLIM_INFINITY))
        try:
            log.save(None, [Entry(1, 3, b"x" * 1000)])
        except WriteFailedError as error:
            print(error.offset == end, "File too large" in str(error))
        log.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path / "log"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True True\n"
    segment = (tmp_path / "log" / FIRST_SEGMENT).read_bytes()
    assert b"x" * 200 in segment, "half of it is there"
    with pytest.raises(TornTailError):
        open_and_read(tmp_path / "log")
    raftwal.repair(tmp_path / "log")
    assert [entry.index for entry in open_and_read(tmp_path / "log").entries] == [1, 2]


def test_all_who_wait_for_a_write_that_fails_are_told(tmp_path, writing_to):
    with writing_to("/dev/full"), ThreadPoolExecutor(20) as threads:
        log = WAL.create(tmp_path / "log", preallocation="reserve")
        log.save(HardState(1, 1, 0), entries(1, 1))
        together = threading.Barrier(20)

        def save(_):
            together.wait()
            with pytest.raises(WriteFailedError):
                log.save_next(lambda index: entries(index, index))
            return True

        assert all(threads.map(save, range(20)))
        log.close()
    assert open_and_read(tmp_path / "log").entries == entries(1, 1)


def test_entries_that_cannot_follow_are_refused_as_ever(log):
    for wrong in (
        [Entry(1, 3, b"")],
        [Entry(0, 2, b"")],
        [Entry(1, 2, "text")],
        [Entry(1, 2, b"", 3)],
        [Entry(1, 2, b""), Entry(1, 4, b"")],
        [(1, 2)],
        [None],
    ):
        with pytest.raises(InvalidEntryError):
            log.save(None, wrong)
    with pytest.raises(InvalidEntryError):
        log.save(HardState(0, 5, 5), entries(2, 2))
    log.save(None, entries(2, 2))
    assert read(log).entries == entries(1, 2)


def test_a_hard_state_comes_last_and_a_commit_index_alone_waits(log):
    log.save(HardState(1, 1, 1), entries(2, 3))
    assert is_native(log)
    assert log.hard_state == read(log).hard_state == HardState(1, 1, 1)
    log.save(HardState(1, 1, 3))
    assert is_native(log)
    assert log.hard_state == HardState(1, 1, 3)
    assert read(log).hard_state == HardState(1, 1, 1), "it is no promise"
    log.save(None, entries(4, 4))
    assert read(log).hard_state == HardState(1, 1, 3)
    log.save(HardState(2, 3, 3))
    assert read(log).hard_state == HardState(2, 3, 3), "a vote is"
    log.save(HardState(2, 3, 4))
    log.flush()
    assert read(log).hard_state == HardState(2, 3, 4)


def _uses(log):
    """Everything that goes on in Python, by turns with saves that do not."""
    last = 1
    for turn in range(40):
        for _ in range(3):
            last += 1
            log.save(HardState(1, 1, last - 1) if turn % 3 else None, entries(last, last))
        if turn % 10 == 0:
            log.save(None, [Entry(1, last, b"in its place")])
        elif turn % 10 == 1:
            log.save(HardState(1, 1, last))
            log.sync()
        elif turn % 10 == 2:
            log.save_snapshot(SnapshotMetadata(last, 1))
        elif turn % 10 == 3:
            last += 1
            log.submit(None, entries(last, last)).result(30)
        elif turn % 10 == 4:
            log.save(HardState(1, 1, last))
            log.flush()
        elif turn % 10 == 5:
            log.release_to(last)
        elif turn % 10 == 6:
            log.save(None, [Entry(1, last + 1, b"x" * 9000), Entry(1, last + 2, None)])
            last += 2
        elif turn % 10 == 7:
            with log.alone():
                last += 1
                log.save(None, entries(last, last))
        elif turn % 10 == 8:
            (made,) = log.save_next(lambda index: entries(index, index))
            last += 1
            assert made.index == last
        elif turn % 10 == 9:
            log.save(None, (entry for entry in entries(last + 1, last + 2)))
            last += 2


@pytest.mark.parametrize("preallocation", ["zeros", "reserve"])
def test_the_files_are_those_of_saves_in_python(tmp_path, preallocation):
    """Across segments that are cut, and everything else that is done to a log."""
    settings = {"segment_bytes": 1 << 14, "preallocation": preallocation, "fs": UnsyncedDisk()}
    with WAL.create(tmp_path / "native", b"m", **settings) as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        assert is_native(log)
        _uses(log)
    with saves_in_python(), WAL.create(tmp_path / "python", b"m", **settings) as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        assert log._tail is None
        _uses(log)
    assert len(contents_of(tmp_path / "native")) > 2
    assert contents_of(tmp_path / "native") == contents_of(tmp_path / "python")


def test_threads_share_a_log_beside_everything_else(tmp_path):
    """Each finds its own entries in it, in its order."""
    stop = threading.Event()
    saved = [[] for _ in range(12)]

    def save(mine, number):
        for turn in range(60):
            data = b"%d %d" % (number, turn)
            (entry,) = log.save_next(lambda index: [Entry(1, index, data)])  # noqa: B023
            mine.append(entry)

    def interrupt():
        for turn in itertools.count():
            if stop.is_set():
                return
            (log.sync, log.flush, lambda: log.release_to(1), lambda: log.last_index)[turn % 4]()

    log = WAL.create(tmp_path / "log", segment_bytes=1 << 14, preallocation="zeros")
    log.save(HardState(1, 1, 0), entries(1, 1))
    with ThreadPoolExecutor(13) as threads:
        beside = threads.submit(interrupt)
        saves = [threads.submit(save, mine, number) for number, mine in enumerate(saved)]
        for one in saves:
            one.result(60)
        stop.set()
        beside.result(60)
    log.close()
    found = open_and_read(tmp_path / "log", 1 << 14).entries
    assert found[1:] == sorted(itertools.chain(*saved), key=lambda entry: entry.index)
    assert len(found) == 1 + 12 * 60
    for mine in saved:
        assert [entry.index for entry in mine] == sorted(entry.index for entry in mine)


def test_a_numbering_that_raises_leaves_the_log_as_it_was(log):
    with pytest.raises(ZeroDivisionError):
        log.save_next(lambda index: [Entry(1, index // 0, b"")])
    log.save_next(lambda index: entries(index, index))
    assert is_native(log)
    assert read(log).entries == entries(1, 2)


def test_metrics_count_native_saves(tmp_path):
    registry = CollectorRegistry()
    metrics = storage_metrics("n", registry=registry).wal

    def value(name):
        return registry.get_sample_value(name, {"node": "n"})

    with WAL.create(tmp_path / "log", metrics=metrics, preallocation="reserve") as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        before = value("raftwal_wal_written_bytes_total")
        syncs = value("raftwal_wal_fsync_duration_seconds_count")
        end = log._tail.offset
        log.save(HardState(1, 1, 1), entries(2, 4))
        log.save(None, entries(5, 5))
        assert is_native(log)
        assert value("raftwal_wal_entries_total") == 5
        assert value("raftwal_last_index") == 5
        assert value("raftwal_commit_index") == 1
        assert value("raftwal_wal_fsync_duration_seconds_count") == syncs + 2
        assert value("raftwal_wal_written_bytes_total") == before + log._tail.offset - end
        log.save(HardState(1, 1, 5))
        assert value("raftwal_commit_index") == 5
        log.save(HardState(7, 2, 5))
        assert is_native(log)
        assert value("raftwal_term") == 7


def test_a_log_that_was_opened_goes_on_natively(tmp_path):
    with WAL.create(tmp_path / "log") as log:
        log.save(HardState(1, 1, 0), entries(1, 3))
    for first in (4, 6):
        with WAL.open(tmp_path / "log") as log:
            log.read_all()
            assert log.last_index == first - 1
            log.save(None, entries(first, first))
            assert is_native(log)
            log.save(None, entries(first + 1, first + 1))
            assert log.hard_state == HardState(1, 1, 0)
    assert open_and_read(tmp_path / "log").entries == entries(1, 7)


def test_a_disk_that_is_not_the_systems_sees_every_call(tmp_path):
    """A file system of somebody else's, or one that extends the system's own."""

    class Watched(DiskFile):
        pass

    class Disk(UnsyncedDisk):
        def create(self, path):
            return Watched(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    with WAL.create(tmp_path / "log", fs=Disk(), preallocation="reserve") as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        assert not is_native(log)
