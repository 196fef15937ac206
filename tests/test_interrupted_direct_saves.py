"""Native saves whose thread is interrupted, or late: nothing that was told to be durable is lost,
and nothing is told to be durable that is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from directories import entries
from implementations import native_codec, saves_in_python

from raftwal import WAL, HardState, SnapshotMetadata
from raftwal.errors import WriteFailedError
from raftwal.model import MAX_UINT64, Entry
from raftwal.testing import UnsyncedDisk
from raftwal.wal.admitting import Gate

codec: Any = native_codec()

if not hasattr(codec, "Tail"):
    pytest.skip("this system has no native tail", allow_module_level=True)


class InterruptedTail:
    """A tail that does what it is told, and then interrupts whoever told it, once."""

    def __init__(self, tail, call):
        self.__dict__.update(tail=tail, call=call, was_called=False, meanwhile=lambda: None)

    def __getattr__(self, name):
        attribute = getattr(self.tail, name)
        if name != self.call:
            return attribute

        def interrupted(*arguments):
            result = attribute(*arguments)
            if self.was_called:
                return result
            self.__dict__["was_called"] = True
            self.meanwhile()
            raise KeyboardInterrupt

        return interrupted

    def __setattr__(self, name, value):
        setattr(self.tail, name, value)


@pytest.fixture
def log(tmp_path):
    log = WAL.create(tmp_path / "log", b"m", fs=UnsyncedDisk())
    log.save(HardState(1, 1, 0), entries(1, 1))
    assert log._tail.takes_saves
    yield log
    log.close()


def interrupt(log, call):
    direct = log._group._direct
    direct.tail = InterruptedTail(direct.tail, call)
    return direct.tail


def test_what_was_saved_before_an_interrupted_close_is_not_written_over(log, tmp_path):
    log.save(None, entries(2, 9))
    tail = interrupt(log, "close")
    seen = []
    tail.__dict__["meanwhile"] = lambda: seen.append((log.last_index, log.hard_state))
    with pytest.raises(KeyboardInterrupt):
        log.sync()
    assert seen[0] == (9, HardState(1, 1, 0))
    with pytest.raises(WriteFailedError):
        log.save(None, entries(10, 10))
    with pytest.raises(WriteFailedError):
        log.save_next(lambda first: entries(first, first))
    log.close()
    assert WAL.open_for_read(tmp_path / "log").read_all().entries == entries(1, 9)


def test_an_interrupt_before_the_log_is_ones_own_leaves_it_open(log):
    interrupted = log._group._direct
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def interrupt():
            raise KeyboardInterrupt

        patch.setattr(interrupted, "close", interrupt)
        log.flush()
    assert log._tail.takes_saves
    log.save(None, entries(2, 2))


def test_an_account_beside_the_log_does_not_miss_an_interrupted_save(log, tmp_path):
    """The log takes nothing more: it may hold a save of which the account knows nothing."""
    accounted = []
    interrupt(log, "queue")
    gate = Gate(lambda state, entries: None, accounted.append)
    with pytest.raises(KeyboardInterrupt):
        log.save_through(gate, None, entries(2, 2))
    assert accounted == []
    with pytest.raises(WriteFailedError):
        log.save(None, entries(2, 2))


def test_who_asks_late_for_a_write_that_failed_is_told_so(tmp_path):
    """And not what the sync of nothing says, once the tail is closed."""
    path = tmp_path / "file"
    path.write_bytes(bytes(65_536))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        tail = codec.Tail(HardState, False)
        tail.open(descriptor, True, 0, 0, 65_536, 65_536, 1, 1, 0, HardState())
        write = tail.queue(None, entries(2, 2))
        assert tail.commit(write) is None
        assert tail.close() is not None
        assert tail.commit(write) is None
    finally:
        os.close(descriptor)


def test_threads_save_while_memory_is_traced(tmp_path):
    """A trace takes the interpreter's lock, which somebody may hold who waits for the mutex."""
    program = """
        import sys, threading, tracemalloc
        from raftwal import WAL, Entry

        tracemalloc.start()
        sys.setswitchinterval(1e-5)

        def save():
            for _ in range(300):
                log.save_next(lambda index: [Entry(1, index, b"x")])

        with WAL.create(sys.argv[1]) as log:
            threads = [threading.Thread(target=save, daemon=True) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(log.last_index)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split()[-1] == str(16 * 300)


def test_what_finalizers_save_does_not_wait_for_the_save_that_they_interrupt(tmp_path):
    """Garbage is collected wherever Python makes an object; a lock that is held there is not
    to be had.
    """
    program = """
        import gc, sys
        from raftwal import WAL, Entry, HardState

        class Saving:
            def __init__(self):
                self.itself = self

            def __del__(self):
                log.save(HardState(1, 1, 5))

        with WAL.create(sys.argv[1]) as log:
            log.save(HardState(1, 1, 0), [Entry(1, 1, b"")])
            gc.disable()
            for number in (1 << 64, -1, 1 << 2000):
                refused = [Entry(1, number, b"")]
                save = log._tail.save
                Saving()
                try:
                    raise KeyError
                except KeyError:
                    gc.set_threshold(1)
                    gc.enable()
                    assert save(None, refused) is False
                    gc.disable()
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "log")],
        check=True,
        timeout=60,
    )


def test_no_entry_goes_on_natively_behind_the_highest_index(tmp_path):
    """Where an index that is one higher would be 0, which is allowed, and means nothing."""

    def last_indexes(path):
        log = WAL.create(path, fs=UnsyncedDisk())
        log.save_snapshot(SnapshotMetadata(MAX_UINT64, 1))
        log.save(HardState(1, 0, 0), [Entry(1, 0, b"")])
        log.save(None, [Entry(1, 0, b"")])
        seen = log.last_index
        log.close()
        return seen

    with saves_in_python():
        expected = last_indexes(tmp_path / "by_python")
    assert last_indexes(tmp_path / "straight") == expected == MAX_UINT64
