"""Writers: threads that PUT through every node and remember what was acknowledged."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Sequence
from types import TracebackType

import httpx

from examples.demo.cluster import KVNodeProcess

_PAUSE_SECONDS = 0.02


def value_of(key: str) -> bytes:
    """What is written under a key: anyone can tell what should be there."""
    return hashlib.sha256(key.encode()).hexdigest().encode() * 4


class Writers:
    """Each thread writes a key once, to the next node in turn, until it is told to stop.

    A context manager: started on entry, stopped on exit.
    """

    def __init__(self, nodes: Sequence[KVNodeProcess], count: int = 6) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self._nodes = nodes
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,), name=f"writer{number}")
            for number in range(count)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Begin no more writes, and wait for the answers to those under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, acknowledged: int, seconds: float) -> bool:
        """Wait until so many writes are acknowledged; whether they were in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self.acknowledged) >= acknowledged, timeout=seconds
            )

    def _write(self, writer: int) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            key = f"writer{writer}/{number:06}"
            self._put(self._nodes[(writer + number) % len(self._nodes)], key)

    def _put(self, node: KVNodeProcess, key: str) -> None:
        value = value_of(key)
        try:
            committed = node.put(key, value).status_code == 204
        except httpx.ConnectError:
            # The node is down, and the write never left.
            self._stop.wait(_PAUSE_SECONDS)
            return
        except httpx.TransportError:
            committed = False
        with self._changed:
            if committed:
                self.acknowledged[key] = value
            else:
                self.unknown.append(key)
            self._changed.notify_all()
