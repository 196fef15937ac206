"""`Waker`: ends the poll of the thread that ticks, from another thread."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

_READABLE = 1
"""``POLL_EVENT_TYPE.READ`` of PySyncObj's pollers."""


class Waker:
    """A pipe that one of PySyncObj's pollers listens to.  Made in the thread that polls."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._is_open = True
        poller.subscribe(self._reader, self._was_woken, _READABLE)

    def wake(self) -> None:
        """Have the poll that is under way, or the next one, return.  Safe in any thread."""
        with self._lock:
            if self._is_open:
                # Full: there is enough in it to wake whoever polls.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, b"w")

    def close(self) -> None:
        """Stop listening.  Idempotent."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            self._poller.unsubscribe(self._reader)
            os.close(self._reader)
            os.close(self._writer)

    def _was_woken(self, descriptor: int, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(descriptor, 1024):
                pass
