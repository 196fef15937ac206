"""Calls of a node's storage, in order, one at a time, beside the thread that ticks.

A disk that is slow to sync then holds up what depends on it, and nothing else.  What
becomes of a call is told in the ticking thread, which is the only one that calls
anything here but the call itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, TypeVar

from raftwal.background import Background

_Result = TypeVar("_Result")


class _Call(NamedTuple):
    call: Callable[[], Any]
    then: Callable[[Any], None]


class StorageCalls:
    """``executor`` is the seam: by default a thread of its own.  ``wake`` is called, in any
    thread, when `advance` has something to do.
    """

    def __init__(self, executor: Executor | None, wake: Callable[[], None]) -> None:
        self._background = Background(executor, "raftwal-save")
        self._wake = wake
        self._waiting: deque[_Call] = deque()
        self._running: tuple[Future[Any], _Call] | None = None

    @property
    def are_under_way(self) -> bool:
        """Whether a call runs or waits."""
        return self._running is not None

    def add(self, call: Callable[[], _Result], then: Callable[[_Result], None]) -> None:
        """Run ``call`` after those before it; `advance` then gives its result to ``then``."""
        self._waiting.append(_Call(call, then))
        self._begin_next()

    def advance(self) -> None:
        """Take up what is done.  Raises what a call raised; those after it do not run."""
        while self._running is not None and self._running[0].done():
            (future, call), self._running = self._running, None
            try:
                result = future.result()
            except BaseException:
                self._waiting.clear()
                raise
            self._begin_next()
            call.then(result)

    def finish(self) -> None:
        """Wait for all of them.  Raises what `advance` does."""
        while self._running is not None:
            self._running[0].exception()
            self.advance()

    def close(self) -> None:
        """Wait for the one that runs; what waits is dropped."""
        self._waiting.clear()
        if self._running is not None:
            self._running[0].exception()
            self._running = None
        self._background.close()

    def _begin_next(self) -> None:
        if self._running is None and self._waiting:
            call = self._waiting.popleft()
            future = self._background.submit(call.call)
            self._running = future, call
            future.add_done_callback(lambda _: self._wake())
