"""Zeros are written ahead of the records: they cost no save, and never get over a record."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from directories import FIRST_SEGMENT, contents_of, entries, make_log, open_and_read
from watched_disk import WatchedDisk

from raftwal import WAL, Entry, HardState, RaftStorage
from raftwal.background import Background
from raftwal.errors import InvalidSettingError, WriteFailedError
from raftwal.fs import DiskFile
from raftwal.testing import Fault, InlineExecutor, SimulatedDisk
from raftwal.wal import zeroing

SEGMENT = 1 << 20
PAGE = 4096
PATIENCE = 30.0


class WritesSeen(WatchedDisk):
    """Notes what is written where, and lets a test hold or fail the writes of zeros."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self.zeros: list[tuple[str, int, int]] = []
        self.records: list[tuple[str, int, int]] = []
        self.at_zeros = lambda name, offset: None
        self.record_comes = threading.Event()

    def _look(self, call: str, path: str, arguments: tuple) -> None:
        if call == "write":
            offset, data = arguments[0], b"".join(arguments[1:])
            name = os.path.basename(path)
            if any(data):
                self.records.append((name, offset, offset + len(data)))
                self.record_comes.set()
            else:
                self.at_zeros(name, offset)
                self.zeros.append((name, offset, offset + len(data)))

    def zeroed(self, name: str) -> list[tuple[int, int]]:
        """The stretches of a file, by its name then, into which zeros were written."""
        joined: list[tuple[int, int]] = []
        for start, end in sorted((s, e) for written, s, e in self.zeros if written == name):
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined


class Held(Executor):
    """Begins tasks when it is told to."""

    def __init__(self) -> None:
        self.tasks: list = []

    def submit(self, call, /, *args, **kwargs):
        future: Future = Future()
        self.tasks.append((future, call))
        return future

    def run(self, count: int) -> None:
        for _ in range(count):
            future, call = self.tasks.pop(0)
            future.set_result(call())


@pytest.fixture
def disk():
    return WritesSeen()


@pytest.fixture(autouse=True)
def no_first_zeros(monkeypatch):
    """So that in small segments there is something left for the background."""
    monkeypatch.setattr(zeroing, "FIRST_BYTES", 0)


def create(path, disk, executor=None, **settings):
    executor = executor or InlineExecutor()
    return WAL.create(
        path, **{"segment_bytes": SEGMENT, "fs": disk, "executor": executor, **settings}
    )


def test_the_first_segment_and_the_next_are_filled_with_zeros(tmp_path, disk):
    with create(tmp_path / "log", disk, preallocation="zeros"):
        assert disk.zeroed(FIRST_SEGMENT) == [(PAGE, SEGMENT)]
        assert disk.zeroed("0.tmp") == [(0, SEGMENT)]


def test_a_new_log_begins_with_zeros_before_there_is_a_record(tmp_path, disk, monkeypatch):
    """Beside the first saves, they would hold those up."""
    monkeypatch.setattr(zeroing, "FIRST_BYTES", SEGMENT // 2)
    held = Held()
    wal = create(tmp_path / "log", disk, held, preallocation="zeros")
    assert disk.zeroed(FIRST_SEGMENT) == [(0, SEGMENT // 2)]
    assert disk.calls.index(("sync", FIRST_SEGMENT)) > disk.calls.index(("write", FIRST_SEGMENT))
    held.run(2)
    wal.save(None, entries(1, 20))
    while held.tasks:
        held.run(1)
    wal.close()
    assert open_and_read(tmp_path / "log", SEGMENT).entries == entries(1, 20)


def test_reserved_space_is_left_as_it_is(tmp_path, disk):
    with create(tmp_path / "log", disk, preallocation="reserve"):
        assert not disk.zeros
        assert (tmp_path / "log" / "0.tmp").stat().st_size == SEGMENT


def test_a_reopened_tail_is_filled_behind_its_records(tmp_path, disk, monkeypatch):
    """What has been written before is not written again, where the system can tell."""
    make_log(tmp_path / "log", 100, segment_bytes=SEGMENT, preallocation="reserve")
    end = len((tmp_path / "log" / FIRST_SEGMENT).read_bytes().rstrip(b"\0"))
    for is_told, expected in ((False, [(end + -end % PAGE, SEGMENT)]), (True, [])):
        if is_told:
            monkeypatch.setattr(os, "lseek", lambda fd, offset, how: SEGMENT)
        else:
            monkeypatch.delattr(os, "SEEK_HOLE")
        wal = WAL.open(
            tmp_path / "log",
            segment_bytes=SEGMENT,
            fs=disk,
            executor=InlineExecutor(),
            preallocation="zeros",
        )
        wal.read_all()
        wal.close()
        monkeypatch.undo()
        assert disk.zeroed(FIRST_SEGMENT) == expected
        disk.zeros.clear()


def test_the_records_are_the_same_with_zeros_and_without(tmp_path):
    for way in ("zeros", "reserve"):
        make_log(tmp_path / way, 60, segment_bytes=1 << 14, size=900, preallocation=way)
    assert contents_of(tmp_path / "zeros") == contents_of(tmp_path / "reserve")


def test_another_way_to_preallocate_is_refused(tmp_path):
    with pytest.raises(InvalidSettingError, match="nothing"):
        WAL.create(tmp_path / "log", preallocation="nothing")
    make_log(tmp_path / "log")
    with pytest.raises(InvalidSettingError, match="preallocation"):
        WAL.open(tmp_path / "log", preallocation=None)
    with pytest.raises(InvalidSettingError, match="preallocation"):
        RaftStorage.open(tmp_path / "data", preallocation="")


def test_a_cut_does_not_wait_for_the_zeros(tmp_path, disk, monkeypatch):
    """The next segment is taken as it is; its zeros go on beyond the header."""
    monkeypatch.setattr(zeroing, "_LARGE_WRITE_BYTES", SEGMENT)
    held = Held()
    wal = create(tmp_path / "log", disk, held, segment_bytes=1 << 19, preallocation="zeros")
    held.run(1)  # The next segment has its space, and nothing else.
    wal.save(None, [Entry(1, 1, bytes([1]) * (1 << 19))])
    assert sorted(os.listdir(tmp_path / "log"))[1] == "0000000000000001-0000000000000002.wal"
    assert not disk.zeros
    while held.tasks:
        held.run(1)
    # Nobody knew where the header would end, so the zeros begin at a distance.
    (zeros,) = disk.zeroed("0000000000000001-0000000000000002.wal") or disk.zeroed("0.tmp")
    assert zeros[0] > PAGE and zeros[1] == 1 << 19
    assert not disk.zeroed(FIRST_SEGMENT), "the full segment has no use for them"
    wal.save(None, entries(2, 50))
    closing = threading.Thread(target=wal.close)
    closing.start()
    while closing.is_alive():
        if held.tasks:
            held.run(1)
        closing.join(0.001)
    assert open_and_read(tmp_path / "log").entries[1:] == entries(2, 50)


def test_a_record_waits_for_the_zeros_under_way_in_its_place(tmp_path, disk):
    reached, may_go_on = threading.Event(), threading.Event()

    def hold(name, offset):
        if name == FIRST_SEGMENT and offset == PAGE:
            reached.set()
            assert may_go_on.wait(PATIENCE)

    disk.at_zeros = hold
    with ThreadPoolExecutor() as threads:
        wal = create(tmp_path / "log", disk, threads, preallocation="zeros")
        assert reached.wait(PATIENCE)
        wal.save(None, entries(1, 1, size=PAGE - 500))  # Before them: no wait.
        zeros = wal._appender._zeroing
        disk.record_comes.clear()
        save = threads.submit(wal.save, None, entries(2, 2, size=PAGE))
        assert zeros._stop.wait(PATIENCE)
        assert not disk.record_comes.wait(0.2), "a record, and then the zeros"
        may_go_on.set()
        save.result(PATIENCE)
        wal.close()
    found = open_and_read(tmp_path / "log", SEGMENT).entries
    assert [entry.index for entry in found] == [1, 2]


@pytest.mark.parametrize("size", [100, 3000, 70_000])
def test_zeros_never_get_over_a_record(tmp_path, disk, monkeypatch, size):
    """Records that are as fast as the zeros, in a race through several segments."""

    def give_way(name, offset):
        disk.record_comes.clear()
        disk.record_comes.wait(0.002)

    disk.at_zeros = give_way
    monkeypatch.setattr(zeroing, "_LARGE_WRITE_BYTES", SEGMENT)
    monkeypatch.setattr(Background, "rest", lambda *_: None)
    monkeypatch.setattr(zeroing, "_BYTES_AT_ONCE", 1 << 16)
    count = 3 * SEGMENT // (size + 60) + 2
    saved = entries(1, min(count, 4000), size=size)
    with WAL.create(
        tmp_path / "log", segment_bytes=SEGMENT // 4, fs=disk, preallocation="zeros"
    ) as wal:
        for one in range(0, len(saved), 20):
            wal.save(None, saved[one : one + 20])
    assert disk.zeros
    assert open_and_read(tmp_path / "log", SEGMENT // 4).entries == saved


def test_a_full_disk_in_the_background_is_no_failure(tmp_path, disk):
    def full(name, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    disk.at_zeros = full
    wal = create(tmp_path / "log", disk, segment_bytes=1 << 14, preallocation="zeros")
    for entry in entries(1, 40, size=900):
        wal.save(HardState(1, 7, entry.index - 1), [entry])
    assert wal.failure is None
    wal.close()
    assert open_and_read(tmp_path / "log", 1 << 14).entries == entries(1, 40, size=900)


def test_a_next_segment_whose_zeros_failed_is_not_used(tmp_path):
    """Its sync failed before anything was promised on it."""
    disk = SimulatedDisk()
    disk.make_directory("/d")
    disk.sync_directory("/")
    disk.faults.append(Fault("sync_data", path="0.tmp"))
    wal = create("/d/log", disk, segment_bytes=700, preallocation="zeros")
    assert not disk.faults
    for entry in entries(1, 20, size=100):
        wal.save(None, [entry])
    wal.close()
    for left in disk.outcomes(10):
        with WAL.open_for_read("/d/log", fs=left) as reader:
            assert reader.read_all().entries == entries(1, 20, size=100)


def test_a_sync_of_zeros_takes_no_error_from_the_sync_of_a_save():
    """The tail's sync fails in the background, and with it what a save has just written: the
    save is not told that it is durable.
    """
    disk = SimulatedDisk()
    disk.make_directory("/d")
    held = Held()
    wal = create("/d/log", disk, held, segment_bytes=1 << 16, preallocation="zeros")

    def sync_in_the_background(call, path):
        # Between the save's write and its sync, as the other thread may.
        if call == "sync_data":
            disk.before = None
            disk.faults.append(Fault("sync_data", path=FIRST_SEGMENT))
            while held.tasks:
                held.run(1)
            assert not disk.faults

    disk.before = sync_in_the_background
    with pytest.raises(WriteFailedError):
        wal.save(None, entries(1, 1))
    assert wal.failure is not None


@pytest.mark.parametrize(("lead", "beyond_it"), [(0, 2), (SEGMENT // 2, 1)])
def test_the_disk_is_left_alone_between_zeros_that_are_far_ahead(
    tmp_path, disk, monkeypatch, lead, beyond_it
):
    """Those that are not are written without a rest."""
    rests = []
    clock = iter(range(10_000))
    monkeypatch.setattr(zeroing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(zeroing, "LEAD_BYTES", lead)
    monkeypatch.setattr(zeroing, "_LOOK_SECONDS", 1e9)
    monkeypatch.setattr(Background, "rest", lambda self, seconds, until: rests.append(seconds))
    create(tmp_path / "log", disk, preallocation="zeros").close()
    # The next segment's have time until there are records; but not on a lent executor.
    assert rests.count(1e9) == 0
    assert rests.count(zeroing._REST) == SEGMENT // zeroing._BYTES_AT_ONCE + beyond_it


def test_records_that_come_close_end_the_rest(tmp_path, disk, monkeypatch):
    """The zeros are far ahead and rest; the records come after them, and they go on."""
    monkeypatch.setattr(zeroing, "LEAD_BYTES", SEGMENT // 4)
    monkeypatch.setattr(zeroing, "_REST", 1e9)
    first = PAGE + zeroing._BYTES_AT_ONCE
    far_ahead, went_on = threading.Event(), threading.Event()

    def look(name, offset):
        if name == FIRST_SEGMENT and offset + (1 << 16) >= first:
            (went_on if offset >= first else far_ahead).set()

    disk.at_zeros = look
    with WAL.create(tmp_path / "log", segment_bytes=SEGMENT, fs=disk, preallocation="zeros") as wal:
        assert far_ahead.wait(PATIENCE)
        wal.save(None, entries(1, 10, size=SEGMENT // 100))
        assert went_on.wait(PATIENCE)


def test_the_next_segment_is_full_of_zeros_when_this_one_is_of_records(tmp_path, disk, monkeypatch):
    """Its zeros begin when an eighth of this one is full, and go on as the records do."""
    for at_once in ("_BYTES_AT_ONCE", "_BYTES_AT_ONCE_BESIDE_LONGER_WRITES"):
        monkeypatch.setattr(zeroing, at_once, 1 << 16)
    monkeypatch.setattr(zeroing, "_REST", 1e9)
    begun, half, all_of_it = (threading.Event() for _ in range(3))

    def look(name, offset):
        if name == "0.tmp":
            begun.set()
            if offset >= SEGMENT // 2:
                half.set()
            if offset + (1 << 16) >= SEGMENT * 7 // 8:
                all_of_it.set()

    disk.at_zeros = look
    with WAL.create(tmp_path / "log", segment_bytes=SEGMENT, fs=disk, preallocation="zeros") as wal:
        assert not begun.wait(0.1)
        for entry in entries(1, 40, size=SEGMENT // 100):
            wal.save(None, [entry])
        assert begun.wait(PATIENCE)
        assert not half.wait(0.1)
        for entry in entries(41, 70, size=SEGMENT // 100):
            wal.save(None, [entry])
        assert half.wait(PATIENCE)
        assert not all_of_it.wait(0.1)
        for entry in entries(71, 94, size=SEGMENT // 100):
            wal.save(None, [entry])
        assert all_of_it.wait(PATIENCE)


def test_large_writes_have_no_zeros_ahead(tmp_path, disk, monkeypatch):
    """The disk would have twice as much to do: until small ones come, in the next segment."""
    held = Held()
    wal = create(tmp_path / "log", disk, held, segment_bytes=2 * SEGMENT, preallocation="zeros")
    large, small = 1 << 17, 100
    for index in range(1, 13):
        wal.save(None, entries(index, index, size=large))
    assert wal._appender.progress.has_large_writes
    monkeypatch.setattr(Background, "rest", lambda *_: False)
    while held.tasks:
        held.run(1)
    assert not disk.zeros
    for index in range(13, 80):
        wal.save(None, entries(index, index, size=small))
    assert not wal._appender.progress.has_large_writes
    for index in range(80, 84):
        wal.save(None, entries(index, index, size=large))
    for index in range(84, 140):
        wal.save(None, entries(index, index, size=small))
    while held.tasks:
        held.run(1)
    wal.close()
    assert disk.zeros
    assert len(open_and_read(tmp_path / "log", 2 * SEGMENT).entries) == 139


@pytest.mark.parametrize(
    ("size", "among_records", "in_the_next"), [(100, 256, 256), (4000, 128, 32)]
)
def test_zeros_come_in_smaller_pieces_beside_longer_writes(
    tmp_path, disk, monkeypatch, size, among_records, in_the_next
):
    """In KiB: in the file that has the records each has a sync, for which they may have to wait."""
    held = Held()
    wal = create(tmp_path / "log", disk, held, preallocation="zeros")
    for entry in entries(1, 60, size=size):
        wal.save(None, [entry])
    pieces: dict[str, list[int]] = {FIRST_SEGMENT: [0], "0.tmp": [0]}

    def count(call, path, arguments):
        sizes = pieces[os.path.basename(path)]
        if call == "write":
            sizes[-1] += len(arguments[1]) >> 10
        elif call == "sync_data":
            sizes.append(0)

    disk.before = count
    monkeypatch.setattr(DiskFile, "write_back", lambda file, *_: count("sync_data", file.path, ()))
    while held.tasks:
        held.run(1)
    assert set(pieces[FIRST_SEGMENT][:-2]) == {among_records}
    assert set(pieces["0.tmp"][:-2]) == {in_the_next}
    disk.before = None
    wal.close()


def test_nobody_waits_for_a_rest(tmp_path, disk, monkeypatch):
    """Neither a record that catches up with the zeros, nor the end of the log."""
    monkeypatch.setattr(zeroing, "_REST", 1e9)
    wal = WAL.create(tmp_path / "log", segment_bytes=SEGMENT, fs=disk, preallocation="zeros")
    wal.save(None, entries(1, 1, size=SEGMENT // 2))
    wal.save(None, entries(2, 2, size=SEGMENT))
    wal.save(None, entries(3, 3))
    wal.close()
    assert [one.index for one in open_and_read(tmp_path / "log", SEGMENT).entries] == [1, 2, 3]


def test_a_task_in_the_thread_that_began_it_does_not_rest():
    """There is nobody else there, so it would only wait."""
    never = threading.Event()
    Background(InlineExecutor(), "").submit(lambda: Background.rest(1e9, never)).result()
    rested = []

    class Noted(threading.Event):
        def wait(self, timeout=None):
            rested.append(timeout)
            return True

    background = Background(None, "test")

    def task_that_begins_another():
        return background.submit(lambda: Background.rest(5.0, Noted()))

    background.submit(task_that_begins_another).result().result()
    background.close()
    assert rested == [5.0]


def test_a_log_that_failed_has_no_more_zeros_written(tmp_path, disk):
    held = Held()
    wal = create(tmp_path / "log", disk, held, preallocation="zeros")
    held.run(1)

    def fail(call, path, arguments):
        if call == "sync_data":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        disk._look(call, path, arguments)

    disk.before = fail
    with pytest.raises(WriteFailedError):
        wal.save(None, entries(1, 1))
    while held.tasks:
        held.run(1)
    assert not disk.zeros
    wal.close()


def test_nothing_of_the_zeros_stays_open(tmp_path, disk):
    """Whatever becomes of them, their files are closed with the log."""
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    held = Held()
    wal = create(tmp_path / "log", disk, held, preallocation="zeros")
    held.run(1)
    wal.close()
    while held.tasks:
        held.run(1)
    if before:
        assert set(os.listdir("/proc/self/fd")) == before
