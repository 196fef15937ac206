"""The saves, measured: one thread after another, or many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from integration.benchmarks.peers.protocol import (
    MOST_BYTES_IN_CHUNK,
    MOST_IN_CHUNK,
    Request,
    data_offset,
)
from integration.benchmarks.peers.python.logs import Pair, Peer, ThreadedSave
from integration.benchmarks.peers.python.resources import Memory, cpu_seconds

Save = Callable[[Any], None]


def measure(request: Request, peer: Peer, directory: str, block: bytes) -> dict[str, Any]:
    """Raises `CannotError`."""
    writer = peer.open_(directory, request.sync)
    taken = Taken(request.seconds)
    memory = None
    length = _chunk_length(request)
    for first in range(1, request.count + 1, length):
        entries = _entries(first, min(length, request.count + 1 - first), block, request.size)
        batches = writer.prepared(entries, request.batch)
        del entries
        memory = memory or Memory()
        with taken:
            if request.threads > 1:
                taken.by_threads(_threaded(peer, writer), batches, request.threads)
            else:
                taken.one_by_one(writer.save, batches)
        if taken.stopped:
            break
    # What was done in full: the last save may be a shorter one.
    taken.entries = min(request.count, len(taken.nanoseconds) * request.batch)
    assert memory is not None
    figures = {**taken.figures(), **memory.figures()}
    writer.close()
    return figures


def _chunk_length(request: Request) -> int:
    most = min(MOST_IN_CHUNK, MOST_BYTES_IN_CHUNK // request.size)
    if request.threads > 1:
        return request.count
    return min(request.count, max(request.batch, most // request.batch * request.batch))


def _entries(first: int, length: int, block: bytes, size: int) -> list[Pair]:
    made = []
    for index in range(first, first + length):
        offset = data_offset(index, len(block), size)
        made.append((index, block[offset : offset + size]))
    return made


def _threaded(peer: Peer, writer: Any) -> ThreadedSave:
    own = peer.threaded(writer) if peer.threaded is not None else None
    if own is not None:
        return own
    turn = threading.Lock()

    def save(take: Callable[[], Any]) -> bool:
        with turn:
            batch = take()
            if batch is not None:
                writer.save(batch)
        return batch is not None

    return save


class Taken:
    """What the saves took so far.  A context manager around those that count."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.entries = 0
        self.seconds = 0.0
        self.cpu = 0.0
        self.stopped = False
        self.nanoseconds: list[int] = []

    def __enter__(self) -> None:
        self._deadline = time.perf_counter_ns() + int((self._limit - self.seconds) * 1e9)
        self._cpu = cpu_seconds()
        self._started = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        self.seconds += time.perf_counter() - self._started
        self.cpu += cpu_seconds() - self._cpu

    def one_by_one(self, save: Save, batches: list[Any]) -> None:
        clock, deadline, add = time.perf_counter_ns, self._deadline, self.nanoseconds.append
        before = clock()
        for batch in batches:
            save(batch)
            now = clock()
            add(now - before)
            before = now
            if now > deadline:
                self.stopped = True
                return

    def by_threads(self, save: ThreadedSave, batches: list[Any], count: int) -> None:
        """``save`` is given a function that takes the next entry; whoever calls it holds a lock."""
        left = iter(batches)
        clock, deadline = time.perf_counter_ns, self._deadline
        failures: list[BaseException] = []

        def take() -> Any:
            if failures or clock() > deadline:
                return None
            return next(left, None)

        def work(nanoseconds: list[int]) -> None:
            try:
                while True:
                    before = clock()
                    if not save(take):
                        return
                    nanoseconds.append(clock() - before)
            except BaseException as error:
                failures.append(error)

        each: list[list[int]] = [[] for _ in range(count)]
        threads = [threading.Thread(target=work, args=(its,)) for its in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        for its in each:
            self.nanoseconds.extend(its)
        self.stopped = len(self.nanoseconds) < len(batches)

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.nanoseconds)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e9

        return {
            "seconds": self.seconds,
            "cpu": self.cpu,
            "entries": self.entries,
            "saves": len(ordered),
            "p50": at(0.5),
            "p99": at(0.99),
            "longest": at(1.0),
            "stopped": self.stopped,
        }
