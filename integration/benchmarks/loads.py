"""What is asked of a leader, in its own process: as many commands as it can take, one at a
time, or so many a second.

The caller's thread stands for the application's, as in PySyncObj's own benchmark; the
callbacks run in the thread that ticks.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any, NamedTuple

from pysyncobj import FAIL_REASON

_DEADLINE_SECONDS = 120.0
_PAYLOADS = 200


class Throughput(NamedTuple):
    """``commands`` were committed and called back in ``seconds``; ``total`` with those
    before and after.
    """

    commands: int
    seconds: float
    total: int


class Latency(NamedTuple):
    """Seconds from a call to its callback, or from when the call was due."""

    seconds: list[float]
    offered: float
    """Calls a second; 0 for one at a time."""
    lasted: float
    """Until the last callback, in seconds."""


class Load:
    """Commands of ``payload_bytes`` characters each to one node, which leads."""

    def __init__(self, node: Any, payload_bytes: int) -> None:
        self._node = node
        # As in PySyncObj's benchmark: hexadecimal digits, which its transport compresses by half.
        source = random.Random(payload_bytes)
        digits = f"%0{payload_bytes}x"
        self._payloads = [digits % source.randrange(16**payload_bytes) for _ in range(_PAYLOADS)]
        self._asked = 0
        self._answered = 0
        self._failures: dict[int, int] = {}
        self._wanted = 0
        self._reached = threading.Event()

    def saturate(self, window: int, warm_up: float, seconds: float) -> Throughput:
        """Keep ``window`` commands under way, for ``warm_up`` seconds and ``seconds`` more.

        The count is taken once a tick, at the same point of each, so that what a tick
        commits at once falls on one side.
        """
        before = self._answered
        marks: list[tuple[float, int]] = []
        begin = time.perf_counter() + warm_up
        end = begin + seconds

        def mark() -> None:
            now = time.perf_counter()
            if now >= begin and (not marks or marks[-1][1] != self._answered):
                marks.append((now, self._answered))

        self._node.addOnTickCallback(mark)
        try:
            # At least two marks, however long a commit takes.
            while time.perf_counter() < end or (len(marks) < 2 and self._in_time(end)):
                for _ in range(window - (self._asked - self._answered)):
                    self._put(self._count)
                self._wait_for(min(self._asked, self._answered + max(1, window // 8)))
            last = len(marks)
            self._wait_for(self._asked)
        finally:
            self._node.removeOnTickCallback(mark)
        if last < 2:
            raise RuntimeError("nothing was committed while it was measured")
        (first_time, first), (last_time, final) = marks[0], marks[last - 1]
        return Throughput(final - first, last_time - first_time, self._answered - before)

    def one_at_a_time(self, seconds: float) -> Latency:
        """One command, and the next when that is called back."""
        latencies: list[float] = []
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            asked = time.perf_counter()
            self._put(self._timed(latencies, asked))
            self._wait_for(self._asked)
        return Latency(latencies, 0.0, time.perf_counter() - begin)

    def steadily(self, rate: float, seconds: float) -> Latency:
        """``rate`` commands a second, whether or not those before them are done.

        A command that could be sent late only counts from when it was due.
        """
        latencies: list[float] = []
        begin = time.perf_counter()
        for number in range(max(1, int(rate * seconds))):
            due = begin + number / rate
            while (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            self._put(self._timed(latencies, due))
        self._wait_for(self._asked)
        return Latency(latencies, rate, time.perf_counter() - begin)

    def _put(self, callback: Any) -> None:
        number = self._asked
        self._asked += 1
        self._node.put(number, self._payloads[number % _PAYLOADS], callback=callback)

    def _count(self, _: Any, reason: int) -> None:
        if reason != FAIL_REASON.SUCCESS:
            self._failures[reason] = self._failures.get(reason, 0) + 1
        self._answered += 1
        if self._answered >= self._wanted:
            self._reached.set()

    def _timed(self, latencies: list[float], since: float) -> Any:
        def called_back(result: Any, reason: int) -> None:
            latencies.append(time.perf_counter() - since)
            self._count(result, reason)

        return called_back

    def _in_time(self, end: float) -> bool:
        return time.perf_counter() < end + _DEADLINE_SECONDS

    def _wait_for(self, answered: int) -> None:
        """Wait until so many were called back; a failure among them ends the run."""
        self._wanted = answered
        while self._answered < answered:
            # A callback that still saw what was wanted before can set it too early.
            self._reached.clear()
            if self._answered < answered and not self._reached.wait(_DEADLINE_SECONDS):
                raise TimeoutError(f"{self._asked - self._answered} commands were not called back")
        if self._failures:
            raise RuntimeError(f"commands failed, by PySyncObj's FAIL_REASON: {self._failures}")
