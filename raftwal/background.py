"""What happens beside the thread that calls: one task at a time, in a thread of its own.

The executor is a seam: whoever passes one in decides when and where tasks run.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_thread = threading.local()


def is_task_of_this_thread() -> bool:
    """Whether the thread that asks is running a task: it must not wait for one."""
    return bool(getattr(_thread, "runs_a_task", False))


class PassingThreads(Executor):
    """A thread for each task, which does not keep the program from ending."""

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        self._threads: list[threading.Thread] = []

    def submit(
        self, call: Callable[..., _Result], /, *arguments: Any, **keywords: Any
    ) -> Future[_Result]:
        """Begin ``call``.  Raises ``RuntimeError`` when there is no thread to be had."""
        future: Future[_Result] = Future()

        def run() -> None:
            try:
                result = call(*arguments, **keywords)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=run, name=self._thread_name, daemon=True)
        thread.start()
        self._threads.append(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was begun, if asked to."""
        for thread in self._threads if wait else ():
            thread.join()


class Background:
    """Runs tasks on ``executor``, or on a thread of its own named ``thread_name``.

    With ``passing``, on threads of its own that do not keep the program from ending: for what
    may be broken off anywhere.
    """

    def __init__(
        self, executor: Executor | None, thread_name: str, *, passing: bool = False
    ) -> None:
        self._own_executor: Executor | None = None
        if executor is None:
            executor = self._own_executor = (
                PassingThreads(thread_name)
                if passing
                else ThreadPoolExecutor(1, thread_name_prefix=thread_name)
            )
        self._executor = executor

    @property
    def has_own_threads(self) -> bool:
        """Whether a task may take as long as it likes: it keeps nobody else's from being run."""
        return self._own_executor is not None

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Begin ``task``.  One that cannot be begun has failed with an ``OSError``."""

        begun_by = getattr(_thread, "begun_by", None) or threading.get_ident()

        def run() -> _Result:
            before = is_task_of_this_thread(), getattr(_thread, "begun_by", None)
            _thread.runs_a_task, _thread.begun_by = True, begun_by
            try:
                return task()
            finally:
                _thread.runs_a_task, _thread.begun_by = before

        try:
            return self._executor.submit(run)
        except RuntimeError as error:
            # No thread to be had: out of them, or the interpreter is shutting down.
            failed: Future[_Result] = Future()
            failed.set_exception(OSError(errno.EAGAIN, str(error)))
            return failed

    @staticmethod
    def rest(seconds: float, until: threading.Event) -> bool:
        """Have the task that asks do nothing for a while, or until the event; whether it did.

        Not one that runs in the thread which began it: nobody is there to profit.
        """
        if getattr(_thread, "begun_by", None) == threading.get_ident():
            return False
        until.wait(seconds)
        return True

    def close(self) -> None:
        """Wait for what was begun on a thread of its own."""
        if self._own_executor is not None:
            self._own_executor.shutdown()
