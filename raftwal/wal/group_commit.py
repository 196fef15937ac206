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

    __slots__ = ("failed", "gate", "is_told", "leads", "write")

    def __init__(self, write: int) -> None:
        self.write = write
        self.gate = threading.Lock()
        self.gate.acquire()
        self.leads = False
        self.is_told = False
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
        # The waiter that was given the lead, or the number of the thread that has it.
        self._led_by: _Waiter | int | None = None
        self._taken = _NOBODY
        self._alone_by: int | None = None
        self._waiters: list[_Waiter] = []
        self._waiting_to_be_alone: deque[_Waiter] = deque()
        self._submitted: list[_Submitted] = []
        self._settled: deque[tuple[Future[None], bool]] = deque()
        self._background: Background | None = None
        self._is_scheduled = False
        self._task: Future[None] | None = None
        self._runs_in: int | None = None

    def save(self, admit: Admit, *arguments: Any) -> None:  # noqa: PLR0912, PLR0915 - see `finally`
        """Call ``admit``; return when what it queued is durable, if it has to be.

        Raises what ``admit`` does, and `WriteFailedError`.
        """
        me: _Waiter | int = threading.get_ident()
        if self._alone_by == me:
            self._save_alone(admit, arguments)
            return
        leads = is_committed = False
        undone: BaseException | None = None
        waiter: _Waiter | None = None
        direct_write = 0
        try:
            with self._order:
                admitted = admit(*arguments)
                if not admitted:
                    return
                write = self._appender.sealed_writes + 1
                if admitted != GROUPED:
                    direct_write = admitted
                elif self._led_by is not None:
                    waiter = _Waiter(write)
                    self._waiters.append(waiter)
                else:
                    leads = True
                    self._led_by = me
                    self._take()
            if direct_write:
                assert self._direct is not None  # it gave the number
                written = self._direct.tail.commit(direct_write)
                if written is not True:
                    self.told(written)
                return
            if waiter is not None:
                me = waiter
                waiter.gate.acquire()
                if not waiter.leads:
                    if waiter.failed:
                        raise self._appender.refusal()
                    return
                leads = True
                with self._order:
                    self._take()
                    if self._direct is not None and self._direct.is_wanted:
                        # Nobody queues here meanwhile: those who come can go on natively.
                        is_committed = True
                        self._appender.commit()
            if not is_committed:
                self._appender.commit()
            if self._appender.taken_writes < write:
                self._commit_up_to(write)
        except BaseException as error:
            if leads:
                # It holds what others wait for; and an interrupt says nothing of the disk.
                undone = error
            elif waiter is not None:
                leads = self._leave(waiter)
            raise
        finally:
            # All of it in one frame: wherever an interrupt comes, this finds the lead.
            if leads:
                try:
                    self._hand_over(me, undone)
                except BaseException:
                    self._hand_over(me, undone)
                    raise

    def told(self, written: tuple[int, float, float] | None) -> None:
        """Note what the native tail has to tell of a write; raises when that has failed."""
        assert self._direct is not None  # it tells
        if written is not None:
            self._direct.tell(written)
            return
        with self._order:
            failure = self._direct.close()
        raise failure or self._appender.refusal()

    def _commit_up_to(self, write: int) -> None:
        """What was taken first was for others, whose records cannot be of one write with those of
        the leader: commit what follows, too.
        """
        while self._appender.taken_writes < write:
            with self._order:
                self._tell(self._taken)
                self._take()
            self._appender.commit()

    def _save_alone(self, admit: Admit, arguments: tuple[Any, ...]) -> None:
        if admit(*arguments):
            try:
                self._appender.take()
                self._appender.commit()
            except BaseException as error:
                # What was taken and not written would be missing before whatever follows.
                self._appender.fail(error)
                raise

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
            is_to_begin = self._is_to_begin()
        if is_to_begin:
            self._begin()
        return future

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:  # noqa: PLR0912 - likewise
        """Nobody else queues or writes meanwhile; what others queued before is durable.

        May be entered again by the thread that is in it.
        """
        me: _Waiter | int = threading.get_ident()
        if self._alone_by == me:
            yield
            return
        leads = False
        is_alone = False
        undone: BaseException | None = None
        waiter: _Waiter | None = None
        try:
            with self._order:
                if self._led_by is not None:
                    waiter = _Waiter(0)
                    self._waiting_to_be_alone.append(waiter)
                else:
                    leads = True
                    self._led_by = me
            if waiter is not None:
                me = waiter
                waiter.gate.acquire()
                leads = True
            with self._order:
                if self._direct is not None:
                    self._direct.close()
                while self._appender.failure is None and (self._waiters or self._has_to_write()):
                    self._take()
                    self._appender.commit()
                    self._tell(self._taken)
                is_alone = True
                self._alone_by = threading.get_ident()
                try:
                    yield
                finally:
                    self._alone_by = None
        except BaseException as error:
            if waiter is not None and not leads:
                leads = self._leave(waiter)
            elif leads and not is_alone:
                undone = error
            raise
        finally:
            if leads:
                try:
                    self._hand_over(me, undone)
                except BaseException:
                    self._hand_over(me, undone)
                    raise

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

    def _take(self) -> None:
        """The first write is the leader's, and so are those who wait for it."""
        self._appender.take()
        if not self._waiters and not self._submitted:
            self._taken = _NOBODY
            return
        taken = self._appender.taken_writes
        group = _Group(
            [one for one in self._waiters if one.write <= taken],
            [one for one in self._submitted if one.write <= taken],
        )
        waiters, submitted = len(group.waiters), len(group.submitted)
        # From here on no interrupt comes between: they are in one of both.
        self._taken = group
        del self._waiters[:waiters]
        del self._submitted[:submitted]

    def _tell(self, group: _Group, *, failed: bool = False) -> None:
        """Can be called again after an interrupt."""
        for waiter in group.waiters:
            if not waiter.is_told:
                waiter.failed = failed
                waiter.is_told = True
                waiter.gate.release()
        if group.submitted:
            self._settled += [(one.future, failed) for one in group.submitted]
            group.submitted.clear()

    def _hand_over(self, me: _Waiter | int, undone: BaseException | None) -> None:
        """The leader is done: tell its group, and have the next one led.

        ``undone`` has kept it from that.  After an interrupt this is called again.
        """
        if undone is not None:
            self._appender.fail(undone)
        with self._order:
            failed = self._appender.failure is not None
            if self._led_by == me:
                self._tell(self._taken, failed=failed)
                if failed:
                    self._tell(_Group(self._waiters, self._submitted), failed=True)
                    self._waiters = []
                self._pass_the_lead()
            is_to_begin = self._is_to_begin()
        if is_to_begin:
            self._begin()

    def _pass_the_lead(self) -> None:
        queue = self._waiting_to_be_alone or self._waiters
        if queue:
            waiter = queue[0]
            waiter.leads = True
            # From here on no interrupt comes between.
            self._led_by = waiter
            del queue[0]
            waiter.gate.release()
            return
        self._led_by = None
        if self._direct is not None and not self._submitted:
            self._direct.open()

    def _leave(self, waiter: _Waiter) -> bool:
        """A thread was interrupted while it waited; whether it has the lead to hand over."""
        with self._order:
            for waiters in (self._waiters, self._waiting_to_be_alone):
                if waiter in waiters:
                    waiters.remove(waiter)
            return waiter.leads

    def _is_to_begin(self) -> bool:
        if self._is_scheduled:
            return False
        return bool(self._settled) or (bool(self._submitted) and self._led_by is None)

    def _begin(self) -> None:
        self._is_scheduled = True
        try:
            if self._background is None:
                self._background = Background(self._executor, "raftwal-submitted")
            task = self._task = self._background.submit(self._run)
        except BaseException:
            # Whoever comes next begins it, at worst once more than need be.
            self._is_scheduled = False
            raise
        if task.done() and task.exception() is not None:
            # No thread to be had: it takes longer here, and is right all the same.
            self._run()

    def _run(self) -> None:
        """Settle what is durable, and lead where there is nobody else, until all is done."""
        me = threading.get_ident()
        with self._order:
            if self._runs_in is not None:
                return
            self._runs_in = me
        try:
            while self._run_once(me):
                pass
        except BaseException:
            with self._order:
                self._runs_in, self._is_scheduled = None, False
                is_to_begin = self._is_to_begin()
            if is_to_begin:
                self._begin()
            raise

    def _run_once(self, me: int) -> bool:  # noqa: PLR0912 - likewise
        """Whether there was something to do: if not, that is the end of the run."""
        leads = False
        undone: BaseException | None = None
        try:
            with self._order:
                if not self._settled:
                    if not self._submitted or self._led_by is not None:
                        # At once: whoever comes next begins another run.
                        self._runs_in, self._is_scheduled = None, False
                        return False
                    if self._has_to_write():
                        leads = True
                        self._led_by = me
                        self._take()
                    else:
                        self._tell(_Group([], self._submitted))
            if leads:
                with contextlib.suppress(Exception):  # It is kept as the log's failure.
                    self._appender.commit()
        except BaseException as error:
            undone = error
            raise
        finally:
            if leads:
                try:
                    self._hand_over(me, undone)
                except BaseException:
                    self._hand_over(me, undone)
                    raise
        while self._settled:
            future, failed = self._settled[0]
            if not future.done():
                if failed:
                    future.set_exception(self._appender.refusal())
                else:
                    future.set_result(None)
            self._settled.popleft()
        return True
