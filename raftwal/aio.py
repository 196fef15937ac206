"""`AsyncRaftStorage`: a storage for a program that runs on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from raftwal.background import Background
from raftwal.model import Entry, HardState, Snapshot
from raftwal.storage import RaftStorage


class AsyncRaftStorage:
    """What takes time of a `RaftStorage`, to be awaited; the event loop never waits for a disk.

    Tasks that save at the same time share one write and one sync, and saves take effect in
    the order of the calls.  A task that is cancelled takes nothing back: what it has called
    is done, or will be.  Whatever takes no time (`RaftStorage.entries`, ``last_index`` and
    the rest) is asked of ``storage`` itself, which nobody else saves to.  For one event
    loop.  ``executor`` runs the calls that take long, on threads of its own by default.
    """

    def __init__(self, storage: RaftStorage, executor: Executor | None = None) -> None:
        self.storage = storage
        # First come, first served.  Held while a call keeps `RaftStorage.submit` waiting.
        self._order = asyncio.Lock()
        self._done: deque[tuple[Future[None], asyncio.Future[None]]] = deque()
        self._is_called = False
        self._calls = Background(executor, "raftwal-async")
        self._snapshot_files = Background(executor, "raftwal-async-snapshot")

    async def save(self, hard_state: HardState | None, entries: Iterable[Entry] = ()) -> None:
        """As `RaftStorage.save`."""
        if not isinstance(entries, Sequence):
            entries = list(entries)
        await self._order.acquire()
        if hard_state is not None and self.storage.vouches(hard_state):
            await self._beside(self.storage.save, hard_state, entries)
            return
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self.storage.submit(hard_state, entries, lambda done: self._note(done, saved))
        finally:
            self._order.release()
        await saved

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """As `RaftStorage.save_snapshot`; saves go on while its file is written."""
        async with self._order:
            self.storage.check_snapshot(snapshot.metadata)
        await asyncio.shield(asyncio.ensure_future(self._save_snapshot(snapshot)))

    async def _save_snapshot(self, snapshot: Snapshot) -> None:
        call = self._snapshot_files.submit(lambda: self.storage.save_snapshot_file(snapshot))
        await asyncio.wrap_future(call)
        await self._order.acquire()
        await self._beside(self.storage.record_snapshot, snapshot.metadata)

    async def sync(self) -> None:
        """As `RaftStorage.sync`."""
        await self._order.acquire()
        await self._beside(self.storage.sync)

    async def close(self) -> None:
        """As `RaftStorage.close`, after all that was called before."""
        await self._order.acquire()
        await self._beside(self.storage.close)
        self._calls.close()
        self._snapshot_files.close()

    async def __aenter__(self) -> AsyncRaftStorage:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _beside(self, call: Callable[..., None], *arguments: Any) -> None:
        """Make a call that may take long; then, cancelled or not, the next may have its turn."""
        done = asyncio.wrap_future(self._calls.submit(lambda: call(*arguments)))
        done.add_done_callback(lambda _: self._order.release())
        await asyncio.shield(done)

    def _note(self, done: Future[None], saved: asyncio.Future[None]) -> None:
        """In the thread that has done ``done``: have ``saved`` told, in that of the event loop.

        Many are told with one call into the loop: each takes the interpreter's lock from the
        thread that calls, which would have to wait for it before the next.
        """
        self._done.append((done, saved))
        if not self._is_called:
            self._is_called = True
            # A loop that was closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                saved.get_loop().call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        # Before it is looked at what there is: whoever comes from here on calls again.
        self._is_called = False
        while self._done:
            done, saved = self._done.popleft()
            if saved.done():
                continue
            error = done.exception()
            if error is None:
                saved.set_result(None)
            else:
                saved.set_exception(error)
