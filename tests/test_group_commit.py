"""Saves from several threads: in one order, few syncs, and all of them fail or none is lost."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import signal
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

import crash_points
import pytest
from crash_points import Check, History, check_failing_sync, entry, snapshot
from directories import contents_of, entries, open_and_read
from watched_disk import Failing, WatchedDisk

from raftwal import WAL, Entry, HardState, RaftStorage, Snapshot, SnapshotMetadata, held_log
from raftwal.errors import (
    ClosedError,
    InvalidEntryError,
    UnavailableError,
    WriteFailedError,
)
from raftwal.metrics import StorageMetrics
from raftwal.testing import InlineExecutor, SimulatedDisk
from raftwal.wal import group_commit

PATIENCE = 30.0


class SlowDisk(WatchedDisk):
    """Whose data syncs wait, while it ``is_stuck``, until it is told to answer."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self.is_stuck = False
        self.reached = threading.Event()
        self._may_answer = threading.Event()
        self.error: OSError | None = None

    def _look(self, call: str, path: str, arguments: tuple) -> None:
        if call == "sync_data" and self.is_stuck:
            self.reached.set()
            assert self._may_answer.wait(PATIENCE)
            if self.error is not None:
                raise self.error

    def answer(self) -> None:
        self.is_stuck = False
        self._may_answer.set()


@pytest.fixture
def disk():
    return SlowDisk()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(40) as threads:
        yield threads


def create(path, disk, **settings):
    # Zeros would have syncs of their own, which are counted here.
    settings = {"segment_bytes": 1 << 16, "preallocation": "reserve", **settings}
    return WAL.create(path, b"m", fs=disk, **settings)


def until(condition):
    """Polls: there is no event for "a thread has begun to wait"."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("waited in vain")


def waiting(log):
    return len(log._group._waiters)


def all_stuck(log, disk, threads, count, first=1):
    """``count`` saves in as many threads behind one that the disk holds up, in order."""
    disk.is_stuck = True
    saves = [threads.submit(log.save, None, entries(first, first))]
    assert disk.reached.wait(PATIENCE)
    for number in range(count):
        saves.append(
            threads.submit(log.save, None, entries(first + 1 + number, first + 1 + number))
        )
        until(lambda: waiting(log) == number + 1)  # noqa: B023 - called at once
    return saves


def test_saves_that_wait_for_a_sync_share_the_next_one(tmp_path, disk, threads):
    """And one write."""
    with create(tmp_path / "log", disk) as log:
        saves = all_stuck(log, disk, threads, 15)
        disk.calls.clear()
        disk.answer()
        for save in saves:
            save.result(PATIENCE)
        # The sync that was stuck, then one write and one sync for all that had come up.
        assert [call for call, _ in disk.calls] == ["sync_data", "write", "sync_data"]
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 16)


def test_a_thread_that_is_alone_syncs_each_save(tmp_path, disk):
    with create(tmp_path / "log", disk, executor=InlineExecutor()) as log:
        disk.calls.clear()
        for one in entries(1, 5):
            log.save(None, [one])
        assert [call for call, _ in disk.calls] == ["write", "sync_data"] * 5


def test_one_write_holds_all_records_of_a_save(tmp_path, disk):
    with create(tmp_path / "log", disk, executor=InlineExecutor()) as log:
        log.save(HardState(1, 1, 0), entries(1, 100))
        log.save(HardState(1, 1, 50))
        disk.calls.clear()
        log.save(HardState(1, 1, 100), entries(101, 200))
        assert [call for call, _ in disk.calls] == ["write", "sync_data"]


def test_a_group_is_written_as_one_save_of_its_entries_and_its_last_hard_state(tmp_path, disk):
    """So a reader knows what can be of one write; the bytes are those of that save."""
    with create(tmp_path / "one", WatchedDisk(), executor=InlineExecutor()) as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        log.save(HardState(1, 1, 1))
        log.save(HardState(2, 9, 3), entries(2, 6))
        log.save(None, entries(7, 7))
    with create(tmp_path / "many", disk) as log:
        disk.is_stuck = True
        futures = [log.submit(HardState(1, 1, 0), entries(1, 1))]
        assert disk.reached.wait(PATIENCE)
        futures += [
            log.submit(HardState(1, 1, 1)),
            log.submit(HardState(1, 1, 1), entries(2, 2)),
            log.submit(None, entries(3, 4)),
            log.submit(HardState(2, 9, 2)),
            log.submit(HardState(2, 9, 3)),
            log.submit(None, entries(5, 6)),
        ]
        disk.answer()
        wait(futures, PATIENCE)
        log.save(None, entries(7, 7))
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "many")


def test_entries_that_replace_some_of_the_group_are_of_the_next(tmp_path, disk, threads):
    """No single save holds such entries; so do snapshots stand for themselves."""
    with create(tmp_path / "log", disk) as log:
        saves = all_stuck(log, disk, threads, 3)
        saves.append(log.submit(HardState(2, 1, 0), entries(3, 3, term=2)))
        saves.append(threads.submit(log.save_snapshot, SnapshotMetadata(1, 1)))
        until(lambda: waiting(log) == 4)
        saves.append(threads.submit(log.save, HardState(2, 1, 1), entries(4, 5, term=2)))
        until(lambda: waiting(log) == 5)
        disk.calls.clear()
        disk.answer()
        for save in saves:
            save.result(PATIENCE)
        groups = ["write", "sync_data"] * 4
        assert [call for call, _ in disk.calls] == ["sync_data", *groups]
    found = open_and_read(tmp_path / "log", 1 << 16)
    assert found.entries == entries(1, 2) + entries(3, 5, term=2)
    assert found.hard_state == HardState(2, 1, 1)


@pytest.mark.parametrize("segment_bytes", [300, 2000, 1 << 16])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_is_read_back_as_after_the_same_saves_one_after_another(
    tmp_path, disk, segment_bytes, seed
):
    """However they are grouped, and wherever segments are cut."""
    source = random.Random(seed)
    saves: list[tuple[HardState | None, list[Entry]]] = []
    last = 0
    for number in range(80):
        first = max(1, last + 1 - source.choice((0, 0, 0, 0, 3)))
        term = 1 + number // 9
        saved = entries(first, first + source.choice((0, 0, 4, 60)), term, source.choice((0, 300)))
        state = HardState(term, 7, first - 1) if number % 9 == 0 or source.random() < 0.5 else None
        if source.random() < 0.2:
            saved = []
        last = saved[-1].index if saved else last
        saves.append((state, saved))
    settings = {"segment_bytes": segment_bytes}
    with create(tmp_path / "one", WatchedDisk(), **settings) as log:
        for state, saved in saves:
            log.save(state, saved)
    disk.is_stuck = True
    with create(tmp_path / "many", WatchedDisk() if seed == 0 else disk, **settings) as log:
        futures = [log.submit(state, saved) for state, saved in saves]
        disk.answer()
        wait(futures, PATIENCE)
        assert not [one for one in futures if one.exception()]
    one, many = (open_and_read(tmp_path / name) for name in ("one", "many"))
    assert many.entries == one.entries
    assert many.hard_state == one.hard_state
    sizes = [path.stat().st_size for path in sorted((tmp_path / "many").glob("*.wal"))[:-1]]
    assert all(size < segment_bytes + 61 * 340 * 2 for size in sizes)


@pytest.mark.parametrize("call", ["save", "submit"])
def test_saves_of_many_threads_are_read_back_in_their_order(tmp_path, call):
    """Who numbers entries does that and the call under a lock of its own, and waits outside."""
    order = threading.Lock()
    saved: list[Entry] = []
    storage = RaftStorage.open(tmp_path / "data", segment_bytes=4096, metrics=StorageMetrics())
    errors = []

    def work(number):
        source = random.Random(number)
        try:
            for _ in range(40):
                with order:
                    first = len(saved) + 1
                    new = entries(first, first + source.randrange(3), size=source.randrange(200))
                    saved.extend(new)
                    state = None
                    if number == 0:
                        # So that there is something to take a snapshot of.
                        state = HardState(1, 1, first - 1)
                    elif number % 2:
                        state = HardState(1, 1, source.choice((0, first - 1)))
                    commit = storage.hard_state.commit
                    if state is not None and state.commit < commit:
                        state = state._replace(commit=commit)
                    if call == "submit":
                        future = storage.submit(state, new)
                    else:
                        storage.save(state, new)
                if call == "submit":
                    future.result(PATIENCE)
                if number == 0 and storage.hard_state.commit > storage.snapshot_metadata.index:
                    index = storage.hard_state.commit
                    storage.save_snapshot(
                        Snapshot(SnapshotMetadata(index, storage.term(index)), b"state")
                    )
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    assert errors == []
    start = storage.snapshot_metadata.index
    assert start > 0
    storage.close()
    with RaftStorage.open(tmp_path / "data", metrics=StorageMetrics()) as storage:
        assert storage.recovered.snapshot.metadata.index == start
        assert storage.recovered.entries == saved[start:]


@pytest.mark.parametrize("kind", ["log", "storage"])
def test_entries_are_numbered_by_whoever_saves_them(tmp_path, disk, threads, kind):
    """Each behind the last, in one group."""
    if kind == "log":
        shared = log = create(tmp_path / "log", disk)
    else:
        shared = RaftStorage.open(
            tmp_path, fs=disk, preallocation="reserve", metrics=StorageMetrics()
        )
        log = shared._wal
    disk.is_stuck = True

    def propose(data):
        (saved,) = shared.save_next(lambda index: [Entry(1, index, data)])
        return saved

    proposals = [threads.submit(propose, b"0")]
    assert disk.reached.wait(PATIENCE)
    proposals += [threads.submit(propose, b"%d" % number) for number in range(1, 12)]
    until(lambda: waiting(log) == 11)
    with pytest.raises(ZeroDivisionError):
        shared.save_next(lambda index: 1 // 0)
    disk.calls.clear()
    disk.answer()
    saved = sorted((one.result(PATIENCE) for one in proposals), key=lambda entry: entry.index)
    assert [call for call, _ in disk.calls] == ["sync_data", "write", "sync_data"]
    shared.close()
    assert [one.index for one in saved] == list(range(1, 13))
    found = open_and_read(tmp_path / ("log" if kind == "log" else "wal"), 1 << 16)
    assert found.entries == saved


def test_a_failed_sync_fails_every_save_that_waits(tmp_path, disk, threads):
    """Those of its group and those behind it; nothing is tried again."""
    log = create(tmp_path / "log", disk)
    saves = all_stuck(log, disk, threads, 5)
    future = log.submit(None, entries(7, 7))
    told = []
    future.add_done_callback(told.append)
    disk.calls.clear()
    disk.error = OSError(errno.EIO, "broken")
    disk.answer()
    for save in [*saves, future]:
        with pytest.raises(WriteFailedError) as caught:
            save.result(PATIENCE)
        assert caught.value.__cause__ is disk.error
    until(lambda: told)
    for call in (lambda: log.save(None, entries(8, 8)), lambda: log.submit(None, ()), log.sync):
        with pytest.raises(WriteFailedError):
            call()
    log.close()
    assert not {"write", "sync_data", "sync"} & {call for call, _ in disk.calls}


def test_a_refused_save_is_refused_in_the_caller_and_leaves_no_trace(tmp_path, disk, threads):
    with create(tmp_path / "log", disk) as log:
        saves = all_stuck(log, disk, threads, 1)
        with pytest.raises(InvalidEntryError, match="cannot follow"):
            log.submit(None, entries(9, 9))
        with pytest.raises(InvalidEntryError, match="cannot follow"):
            log.save(None, entries(9, 9))
        saves.append(log.submit(None, entries(3, 3)))
        disk.answer()
        for save in saves:
            save.result(PATIENCE)
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 3)


def test_a_commit_index_alone_is_not_synced(tmp_path, disk):
    """A future of one is done in its turn, and its record goes out with the next sync."""
    with create(tmp_path / "log", disk, executor=InlineExecutor()) as log:
        log.save(HardState(1, 1, 0), entries(1, 1))
        disk.calls.clear()
        log.submit(HardState(1, 1, 1)).result(PATIENCE)
        assert disk.calls == []
        log.submit(None, entries(2, 2)).result(PATIENCE)
        assert [call for call, _ in disk.calls] == ["write", "sync_data"]
    assert open_and_read(tmp_path / "log", 1 << 16).hard_state == HardState(1, 1, 1)


def test_callbacks_come_in_order_in_one_thread(tmp_path, disk, threads):
    """With blocking saves in between, and when one of them raises."""
    told: list[int] = []
    seen_in = set()

    def tell(index):
        def told_of(future):
            assert future.result() is None
            seen_in.add(threading.current_thread().name)
            told.append(index)
            if index % 5 == 0:
                raise RuntimeError("what a callback raises is its own affair")

        return told_of

    log = create(tmp_path / "log", disk)
    futures = []
    for index in range(1, 200):
        if index % 7:
            futures.append(log.submit(HardState(1, 1, 0), entries(index, index), tell(index)))
        else:
            log.save(None, entries(index, index))
    wait(futures, PATIENCE)
    log.close()
    assert told == [index for index in range(1, 200) if index % 7]
    assert len(seen_in) == 1
    assert seen_in.pop().startswith("raftwal-submitted")


def test_a_future_cannot_be_cancelled(tmp_path, disk):
    """What was admitted goes to the log."""
    with create(tmp_path / "log", disk) as log:
        disk.is_stuck = True
        future = log.submit(None, entries(1, 1))
        assert not future.cancel()
        disk.answer()
        future.result(PATIENCE)


def test_a_callback_may_use_the_log(tmp_path, disk):
    log = create(tmp_path / "log", disk)
    done = threading.Event()

    def go_on(_):
        log.save(None, entries(2, 2))
        log.submit(None, entries(3, 3), lambda _: (log.close(), done.set()))

    log.submit(None, entries(1, 1), go_on)
    assert done.wait(PATIENCE)
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 3)


def test_close_saves_what_waits(tmp_path, disk, threads):
    log = create(tmp_path / "log", disk)
    saves = all_stuck(log, disk, threads, 4)
    saves.append(log.submit(None, entries(6, 6)))
    closing = threads.submit(log.close)
    until(lambda: log._group._waiting_to_be_alone)
    disk.answer()
    for save in [*saves, closing]:
        save.result(PATIENCE)
    with pytest.raises(ClosedError):
        log.save(None, entries(7, 7))
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 6)


def test_who_wants_the_log_alone_is_not_passed_over(tmp_path, disk, threads):
    """A flush, a release or a snapshot of the storage gets its turn however many save: it
    writes what was saved before it.
    """
    with create(tmp_path / "log", disk) as log:
        saves = all_stuck(log, disk, threads, 4)
        flush = threading.Thread(target=log.flush, name="alone")
        flush.start()
        until(lambda: log._group._waiting_to_be_alone)
        writes_in = []

        def note(call, path, arguments):
            if call == "write":
                writes_in.append(threading.current_thread().name)

        disk.before = note
        disk.answer()
        for save in saves:
            save.result(PATIENCE)
        flush.join(PATIENCE)
        assert writes_in == ["alone"]


class Interrupted:
    """A lock whose ``acquire`` ends with a Ctrl-C, after ``before`` has been awaited."""

    def __init__(self, before=lambda: None):
        self.before = before
        self.release = lambda: None
        self.acquired = 0

    def acquire(self):
        self.acquired += 1
        if self.acquired > 1:
            self.before()
            raise KeyboardInterrupt


@pytest.mark.parametrize("is_chosen", [False, True], ids=["among others", "chosen to lead"])
def test_an_interrupt_in_a_thread_that_waits_holds_up_nobody(
    tmp_path, disk, threads, monkeypatch, is_chosen
):
    log = create(tmp_path / "log", disk)
    disk.is_stuck = True
    saves = [threads.submit(log.save, None, entries(1, 1))]
    assert disk.reached.wait(PATIENCE)
    chosen = threading.Event()

    class Waiter(group_commit._Waiter):
        def __init__(self, write):
            self.write = write
            self.gate = Interrupted(lambda: is_chosen and chosen.wait(PATIENCE))
            self.gate.release = chosen.set
            self.gate.acquire()
            self.leads = self.failed = False

    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "_Waiter", Waiter)
        interrupted = threads.submit(log.save, None, entries(2, 2))
        until(lambda: waiting(log) or interrupted.done())
    saves += [threads.submit(log.save, None, entries(3, 3))]
    until(lambda: waiting(log) == 1 + is_chosen)
    disk.answer()
    for save in saves:
        save.result(PATIENCE)
    with pytest.raises(KeyboardInterrupt):
        interrupted.result(PATIENCE)
    log.save(None, entries(4, 4))
    log.close()
    # It was admitted: who was interrupted does not know, and it is there.
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 4)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread")
def test_ctrl_c_ends_the_wait_of_the_main_thread(tmp_path, disk, threads):
    log = create(tmp_path / "log", disk)
    saves = all_stuck(log, disk, threads, 2)
    main = threading.main_thread().ident

    def interrupt():
        until(lambda: waiting(log) == 3)
        signal.pthread_kill(main, signal.SIGINT)

    threads.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        log.save(None, entries(4, 4))
    disk.answer()
    for save in saves:
        save.result(PATIENCE)
    log.close()
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 4)


def test_without_a_thread_to_be_had_a_submitted_save_is_saved_all_the_same(tmp_path, disk):
    class Full(Executor):
        def submit(self, *_, **__):
            raise RuntimeError("can't start new thread")

    log = create(tmp_path / "log", disk, executor=Full())
    assert log.submit(None, entries(1, 1)).done()
    log.close()
    assert open_and_read(tmp_path / "log", 1 << 16).entries == entries(1, 1)


def test_the_storage_knows_what_was_submitted_and_says_when_it_failed(tmp_path, disk):
    failed = []

    class Gauge:
        def set(self, value):
            failed.append(value)

    storage = RaftStorage.open(
        tmp_path / "data",
        fs=disk,
        segment_bytes=1 << 16,
        preallocation="reserve",
        metrics=StorageMetrics(failed=Gauge()),
    )
    disk.is_stuck = True
    futures = [storage.submit(HardState(1, 1, 0), entries(n, n)) for n in range(1, 4)]
    assert storage.last_index == 3
    assert storage.entries(1, 4) == entries(1, 3)
    disk.error = OSError(errno.ENOSPC, "full")
    assert disk.reached.wait(PATIENCE)
    disk.answer()
    for future in futures:
        with pytest.raises(WriteFailedError):
            future.result(PATIENCE)
    assert failed == [0, 1]
    storage.close()


def test_a_submitted_save_that_reaches_a_received_snapshot_is_durable(tmp_path):
    with RaftStorage.open(tmp_path / "data", metrics=StorageMetrics()) as storage:
        storage.save(HardState(1, 1, 2), entries(1, 2))
        storage.save_snapshot(Snapshot(SnapshotMetadata(40, 2), b"theirs"))
        told = []
        storage.submit(HardState(2, 1, 40), [Entry(2, 41, b"x")], told.append).result(PATIENCE)
        assert storage.snapshot_metadata.index == 40
        until(lambda: told)
    with RaftStorage.open(tmp_path / "data", metrics=StorageMetrics()) as storage:
        assert storage.recovered.entries == [Entry(2, 41, b"x")]


def test_a_thread_that_reads_meets_whole_answers(tmp_path, threads):
    """While another is in the middle of replacing entries by fewer."""
    storage = RaftStorage.open(tmp_path / "data", metrics=StorageMetrics())
    storage.save(HardState(1, 1, 1), entries(1, 50))
    reads = threading.Event()
    answers = []

    def read():
        reads.set()
        with contextlib.suppress(UnavailableError):
            answers.append(storage.entries(1, 51))
        return storage.entries(40, 46)

    def in_the_middle(terms, new):
        threads_of_readers.append(threads.submit(read))
        assert reads.wait(PATIENCE)
        wait(threads_of_readers, 0.2)
        write_all(terms, new)

    threads_of_readers = []
    write_all = held_log.TermHistory.write_all

    class Terms(held_log.TermHistory):
        write_all = in_the_middle

    storage._held._terms.__class__ = Terms
    storage.save(HardState(2, 1, 1), entries(41, 45, term=2))
    (reader,) = threads_of_readers
    assert reader.result(PATIENCE) == entries(40, 40) + entries(41, 45, term=2)
    assert [len(answer) for answer in answers] in ([], [50])
    storage.close()


# Power cuts and failing calls, at every call of groups that are as large as can be.


class Grouping(Executor):
    """Runs tasks at once, but for those that come while it holds them together."""

    def __init__(self) -> None:
        self.holds = False
        self._held: list[tuple[Future, object]] = []

    def submit(self, call, /, *args, **kwargs):
        if not self.holds:
            return InlineExecutor().submit(call)
        future: Future = Future()
        self._held.append((future, call))
        return future

    def go_on(self) -> None:
        self.holds = False
        held, self._held = self._held, []
        for future, call in held:
            future.set_result(call())


class GroupHistory(History):
    """Of a group there may be any beginning of its entries, and any hard state of its saves."""

    def possible(self):
        before, pending = self.records[: self.acknowledged], self.records[self.acknowledged :]
        if any(isinstance(one, Snapshot) for one in pending):
            return super().possible()
        new = [one for one in pending if isinstance(one, Entry)]
        states = [[], *([one] for one in pending if isinstance(one, HardState))]
        records, found = self.records, []
        for count in range(len(new) + 1):
            for state in states:
                self.records = [*before, *new[:count], *state]
                found.append(self.state_after(len(self.records)))
        self.records = records
        return found


def groups(disk: SimulatedDisk, history: History) -> None:
    """Groups of several saves, with commits alone, cuts and snapshots among them."""
    executor = Grouping()
    storage = RaftStorage.open(
        crash_points.NODE,
        b"metadata",
        fs=disk,
        executor=executor,
        metrics=StorageMetrics(),
        **crash_points.SETTINGS,
    )
    index = 1
    for number in range(8):
        executor.holds = True
        term, promises = 1 + number // 2, []
        for commit, count in ((index - 1, 1), (None, 2), (index, 0), (index + 2, number % 3)):
            state = None if commit is None else HardState(term, 7, commit)
            new = [entry(one, term) for one in range(index, index + count)]
            index += count
            history.records += [*new, *([state] if state else [])]
            future = storage.submit(state, new)
            if new:
                promises.append((future, len(history.records)))
        executor.go_on()
        for future, count in promises:
            future.result(0)
            history.acknowledged = count
        if number in (2, 5):
            commit = storage.hard_state.commit
            history.save_snapshot(storage, snapshot(commit, storage.term(commit)))
    storage.close()


@pytest.fixture
def group_history(monkeypatch):
    monkeypatch.setattr(crash_points, "History", GroupHistory)


@pytest.mark.usefixtures("group_history")
def test_a_power_cut_in_a_group_leaves_what_was_acknowledged():
    check = Check(groups, outcomes=4, nested=0, seed=1)
    check.run()
    assert check.recoveries > 200


@pytest.mark.usefixtures("group_history")
def test_a_call_that_fails_in_a_group_is_final():
    assert check_failing_sync(groups, seed=1) > 20


def test_any_call_of_a_shared_log_failing_once(tmp_path, threads):
    """Whichever it is: who was told that a save is durable finds it, and nobody waits forever."""
    for nth in range(1, 24, 2):
        disk = WatchedDisk()
        log = create(tmp_path / f"log{nth}", disk, segment_bytes=512)
        disk.before = Failing(errno.EIO, nth)
        order, durable, numbers = threading.Lock(), [], itertools.count(1)

        def work(log=log, order=order, durable=durable, numbers=numbers):
            with contextlib.suppress(WriteFailedError):
                for _ in range(10):
                    with order:
                        index = next(numbers)
                        future = log.submit(None, entries(index, index, size=60))
                    future.result(PATIENCE)
                    durable.append(index)

        futures = [threads.submit(work) for _ in range(5)]
        for future in futures:
            future.result(PATIENCE)
        log.close()
        found = open_and_read(tmp_path / f"log{nth}").entries
        assert {one.index for one in found} >= set(durable), disk.before.failed_at
        assert found == entries(1, len(found), size=60)
