"""Saves from several threads: in one order, and out in one write and one sync.

Whoever comes while nobody writes leads: it takes what is queued, writes and syncs it. Those who
come meanwhile queue their records and wait. When the leader is done, the first of them leads for
all whose records can be one write. So a thread that is alone pays for two free locks, and many
share a sync.

What is submitted instead of saved waits for no thread of the caller's: whoever leads writes it
too, and a task in the background leads where nobody else does.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from raftwal.background import Background
from raftwal.wal.appending import Appender
from raftwal.wal.direct import DirectSaves

Admit = Callable[..., int]
"""Checks and queues a save, or raises.

Gives 0 where it need not be durable before anyone is told, `GROUPED` where it has to be, and the
number of its write where it was queued in `DirectSaves`.
"""
GROUPED = -1


class _Waiter:
    """A thread that waits until its records are durable, or until it is the one to lead."""

    __slots__ = ("failed", "gate", "leads", "write")

    def __init__(self, write: int) -> None:
        self.write = write
        self.gate = threading.Lock()
        self.gate.acquire()
        self.leads = False
        self.failed = False


class _Submitted(NamedTuple):
    """A future, and the number of the write after which it is done."""

    future: Future[None]
    write: int
    wants_sync: bool


class _Group(NamedTuple):
    """Who is told when what was taken is durable."""

    waiters: list[_Waiter]
    submitted: list[_Submitted]


_NOBODY = _Group([], [])


class GroupCommit:
    """Orders whatever is done to the tail of a log.  ``executor`` runs what is submitted."""

    def __init__(
        self, appender: Appender, direct: DirectSaves | None, executor: Executor | None
    ) -> None:
        self._appender = appender
        self._direct = direct
        self._executor = executor
        # Held while records are queued; by `alone`, while the disk is at work, too.
        self._order = threading.Lock()
        self._is_led = False
        self._alone_by: int | None = None
        self._waiters: list[_Waiter] = []
        self._waiting_to_be_alone: deque[_Waiter] = deque()
        self._submitted: list[_Submitted] = []
        self._settled: list[tuple[Future[None], bool]] = []
        self._background: Background | None = None
        self._is_scheduled = False
        self._task: Future[None] | None = None
        self._runs_in: int | None = None

    def save(self, admit: Admit, *arguments: Any) -> None:  # noqa: PLR0912 - see `finally`
        """Call ``admit``; return when what it queued is durable, if it has to be.

        Raises what ``admit`` does, and `WriteFailedError`.
        """
        if self._alone_by is not None and self._alone_by == threading.get_ident():
            self._save_alone(admit, arguments)
            return
        leads = is_committed = False
        waiter: _Waiter | None = None
        group = _NOBODY
        direct_write = 0
        try:
            with self._order:
                admitted = admit(*arguments)
                if not admitted:
                    return
                write = self._appender.sealed_writes + 1
                if admitted != GROUPED:
                    direct_write = admitted
                elif self._is_led:
                    waiter = _Waiter(write)
                    self._waiters.append(waiter)
                else:
                    leads = self._is_led = True
                    group = self._take()
            if direct_write:
                assert self._direct is not None  # it gave the number
                written = self._direct.tail.commit(direct_write)
                if written is not True:
                    self.told(written)
                return
            if waiter is not None:
                waiter.gate.acquire()
                if not waiter.leads:
                    if waiter.failed:
                        raise self._appender.refusal()
                    return
                leads = True
                with self._order:
                    group = self._take()
                    if self._direct is not None:
                        # Nobody queues here meanwhile: those who come can go on natively.
                        is_committed = True
                        self._appender.commit()
            if not is_committed:
                self._appender.commit()
            if self._appender.taken_writes < write:
                group = self._commit_up_to(write, group)
        except BaseException as error:
            if leads:
                # It holds what others wait for; and an interrupt says nothing of the disk.
                self._appender.fail(error)
            elif waiter is not None:
                leads = self._leave(waiter)
            raise
        finally:
            # All of it in one frame: wherever an interrupt comes, this finds the lead.
            if leads:
                self._hand_over(group)

    def told(self, written: tuple[int, float, float] | None) -> None:
        """Note what the native tail has to tell of a write; raises when that has failed."""
        assert self._direct is not None  # it tells
        if written is not None:
            self._direct.tell(written)
            return
        with self._order:
            failure = self._direct.close()
        raise failure or self._appender.refusal()

    def _commit_up_to(self, write: int, group: _Group) -> _Group:
        """What was taken first was for ``group``, whose records cannot be of one write with
        those of the leader: commit what follows, too, and return the group of the last.
        """
        while self._appender.taken_writes < write:
            with self._order:
                self._tell(group)
                group = self._take()
            self._appender.commit()
        return group

    def _save_alone(self, admit: Admit, arguments: tuple[Any, ...]) -> None:
        if admit(*arguments):
            self._appender.take()
            self._appender.commit()

    def submit(
        self, callback: Callable[[Future[None]], object] | None, admit: Admit, *arguments: Any
    ) -> Future[None]:
        """Call ``admit``; what is returned is done when what it queued is durable.

        Raises what ``admit`` does.
        """
        future: Future[None] = Future()
        # What is admitted goes to the log: there is no way to cancel it.
        future.set_running_or_notify_cancel()
        if callback is not None:
            future.add_done_callback(callback)
        with self._order:
            if self._direct is not None:
                self._direct.close()
            wants_sync = bool(admit(*arguments))
            if self._direct is not None:
                # What is not waited for by its thread is written in Python.
                self._direct.is_wanted = False
            write = self._appender.sealed_writes + 1
            self._submitted.append(_Submitted(future, write, wants_sync))
            is_to_begin = self._is_to_be_scheduled()
        if is_to_begin:
            self._begin()
        return future

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else queues or writes meanwhile; what others queued before is durable.

        May be entered again by the thread that is in it.
        """
        me = threading.get_ident()
        if self._alone_by == me:
            yield
            return
        leads = False
        waiter: _Waiter | None = None
        group = _NOBODY
        try:
            with self._order:
                if self._is_led:
                    waiter = _Waiter(0)
                    self._waiting_to_be_alone.append(waiter)
                else:
                    leads = self._is_led = True
            if waiter is not None:
                waiter.gate.acquire()
                leads = True
            with self._order:
                if self._direct is not None:
                    self._direct.close()
                while self._appender.failure is None and (self._waiters or self._has_to_write()):
                    group = self._take()
                    self._appender.commit()
                    self._tell(group)
                    group = _NOBODY
                self._alone_by = me
                try:
                    yield
                finally:
                    self._alone_by = None
        except BaseException:
            if waiter is not None and not leads:
                leads = self._leave(waiter)
            raise
        finally:
            if leads:
                self._hand_over(group)

    def close(self) -> None:
        """Return when all that was submitted is settled, unless a callback asks for it."""
        if self._runs_in == threading.get_ident():
            return
        if self._task is not None:
            self._task.exception()
        if self._background is not None:
            self._background.close()

    def _has_to_write(self) -> bool:
        """Whether there is a write for those who do not wait in `save`."""
        return self._appender.has_sealed or any(one.wants_sync for one in self._submitted)

    def _take(self) -> _Group:
        """The first write is the leader's, and so are those who wait for it."""
        self._appender.take()
        if not self._waiters and not self._submitted:
            return _NOBODY
        taken = self._appender.taken_writes
        group = _Group(
            [one for one in self._waiters if one.write <= taken],
            [one for one in self._submitted if one.write <= taken],
        )
        del self._waiters[: len(group.waiters)]
        del self._submitted[: len(group.submitted)]
        return group

    def _tell(self, group: _Group, *, failed: bool = False) -> None:
        self._settled += [(one.future, failed) for one in group.submitted]
        for waiter in group.waiters:
            waiter.failed = failed
            waiter.gate.release()

    def _hand_over(self, group: _Group) -> None:
        """The leader is done: tell its group, and have the next one led."""
        with self._order:
            if self._appender.failure is not None:
                self._tell(group, failed=True)
                self._tell(_Group(self._waiters, self._submitted), failed=True)
                self._waiters, self._submitted = [], []
            elif group is not _NOBODY:
                self._tell(group)
            if self._waiting_to_be_alone:
                _give_the_lead(self._waiting_to_be_alone.popleft())
            elif self._waiters:
                _give_the_lead(self._waiters.pop(0))
            else:
                self._is_led = False
                if self._direct is not None and not self._submitted:
                    self._direct.open()
            is_to_begin = self._is_to_be_scheduled()
        if is_to_begin:
            self._begin()

    def _leave(self, waiter: _Waiter) -> bool:
        """A thread was interrupted while it waited; whether it has the lead to hand over."""
        with self._order:
            for waiters in (self._waiters, self._waiting_to_be_alone):
                if waiter in waiters:
                    waiters.remove(waiter)
            return waiter.leads

    def _is_to_be_scheduled(self) -> bool:
        if self._is_scheduled:
            return False
        self._is_scheduled = bool(self._settled) or (bool(self._submitted) and not self._is_led)
        return self._is_scheduled

    def _begin(self) -> None:
        if self._background is None:
            self._background = Background(self._executor, "raftwal-submitted")
        task = self._task = self._background.submit(self._run)
        if task.done() and task.exception() is not None:
            # No thread to be had: it takes longer here, and is right all the same.
            self._run()

    def _run(self) -> None:
        """Settle what is durable, and lead where there is nobody else, until all is done."""
        self._runs_in = threading.get_ident()
        while True:
            leads = False
            group = _NOBODY
            try:
                with self._order:
                    settled, self._settled = self._settled, []
                    if not settled:
                        if not self._submitted or self._is_led:
                            self._is_scheduled, self._runs_in = False, None
                            return
                        if self._has_to_write():
                            leads = self._is_led = True
                            group = self._take()
                        else:
                            settled = [(one.future, False) for one in self._submitted]
                            self._submitted.clear()
                if leads:
                    with contextlib.suppress(Exception):  # It is kept as the log's failure.
                        self._appender.commit()
            finally:
                if leads:
                    self._hand_over(group)
            for future, failed in settled:
                if failed:
                    future.set_exception(self._appender.refusal())
                else:
                    future.set_result(None)


def _give_the_lead(waiter: _Waiter) -> None:
    waiter.leads = True
    waiter.gate.release()
