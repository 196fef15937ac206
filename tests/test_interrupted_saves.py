"""Wherever an interrupt comes to a thread that leads, those who wait for it are told."""

from __future__ import annotations

import contextlib
import inspect
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from directories import entries, open_and_read
from test_group_commit import PATIENCE, SlowDisk, create, until

from raftwal.errors import WriteFailedError
from raftwal.wal import group_commit


class InterruptAt:
    """Raises ``KeyboardInterrupt`` in this thread where it enters or leaves a function of the
    group commit for the ``number``-th time since ``others_wait``: there Python looks for signals.
    """

    def __init__(self, number: int) -> None:
        self._left = number
        self.others_wait = False
        self.where: str | None = None

    def __enter__(self) -> InterruptAt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        if frame.f_code.co_filename != group_commit.__file__:
            return None
        frame.f_trace_lines = False
        # A generator that yields has not returned.
        yields = event == "return" and frame.f_code.co_flags & inspect.CO_GENERATOR
        if self.others_wait and event in ("call", "return") and not yields:
            self._left -= 1
            if self._left == 0:
                self.where = f"{event} of {frame.f_code.co_name}"
                raise KeyboardInterrupt
        return self._trace


def interrupted(directory, number, act):
    """Where a thread that leads is interrupted while others wait; ``None`` if it ends before."""
    disk = SlowDisk()
    log = create(directory, disk)
    log.save(None, entries(1, 1))
    disk.is_stuck = True
    waiting = []
    interrupt = InterruptAt(number)
    with ThreadPoolExecutor(8) as threads:

        def have_others_wait():
            assert disk.reached.wait(PATIENCE)
            for index in (3, 4, 5):
                waiting.append(threads.submit(log.save, None, entries(index, index)))
                until(lambda: len(log._group._waiters) == len(waiting))
            waiting.append(log.submit(None, entries(6, 6)))
            waiting.append(log.submit(None, entries(7, 7)))
            interrupt.others_wait = True
            disk.answer()

        others = threads.submit(have_others_wait)
        with contextlib.suppress(KeyboardInterrupt, WriteFailedError), interrupt:
            act(log)
        others.result(PATIENCE)
        told = [one.exception(PATIENCE) for one in waiting]
        if log.failure is None:
            assert told == [None] * 5
            threads.submit(log.save, None, entries(8, 8)).result(PATIENCE)
        else:
            assert all(error is None or isinstance(error, WriteFailedError) for error in told)
        threads.submit(log.close).result(PATIENCE)
    durable = {index for index, error in enumerate(told, 3) if error is None}
    assert durable <= {entry.index for entry in open_and_read(directory, 1 << 16).entries}
    return interrupt.where


def _alone(log):
    log.submit(None, entries(2, 2))
    with log.alone():
        pass


@pytest.mark.parametrize(
    "act", [lambda log: log.save(None, entries(2, 2)), _alone], ids=["a save", "alone"]
)
def test_wherever_an_interrupt_comes_those_who_wait_are_told(tmp_path, act):
    seen = []
    while where := interrupted(tmp_path / str(len(seen)), len(seen) + 1, act):
        seen.append(where)
    assert {"call of _hand_over", "return of _hand_over", "return of _tell"} <= set(seen)
