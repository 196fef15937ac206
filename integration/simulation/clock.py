"""Simulated time: a queue of what happens when, and the clock that everybody reads."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

SECONDS_PER_READING = 2e-5
"""What reading the clock costs, so that a loop that waits for time to pass ends."""


class Clock:
    """Runs events in the order of their times; those of the same time as they were made."""

    def __init__(self) -> None:
        self._now = 0.0
        self._spent = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    @property
    def now(self) -> float:
        """The time, as far as the event that runs has got."""
        return self._now + self._spent

    def read(self) -> float:
        """The time, for who is simulated: see ``SECONDS_PER_READING``."""
        self._spent += SECONDS_PER_READING
        return 1000.0 + self._now + self._spent

    def spend(self, seconds: float) -> None:
        """What runs takes this long."""
        self._spent += seconds

    def at(self, time: float, event: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event, arguments))

    def after(self, seconds: float, event: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, event, *arguments)

    def run(self, until: float, stop: Callable[[], bool]) -> None:
        """Run events up to the time ``until``, or until ``stop()`` says so."""
        events = self._events
        while events and events[0][0] <= until:
            time, _, event, arguments = heapq.heappop(events)
            # What was due while another event took its time comes late.
            self._now = max(time, self._now)
            self._spent = 0.0
            event(*arguments)
            if stop():
                return
        self._now, self._spent = max(self._now, until), 0.0
