"""The threads of a process besides the one that ticks, one step at a time.

A task is a greenlet that stops before each call of the disk.  When it goes on, the
scheduler says: between two ticks, or in the middle of one, as a thread would.  So every
call of every thread can come before or after anything that happens elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import greenlet

from raftwal.testing import PowerCutError

if TYPE_CHECKING:
    from integration.simulation.machines import Process

_STEPS_IN_A_TICK = (0, 0, 0, 1, 2, 5, 20)


class Tasks(Executor):
    """An executor on the run's own schedule.  ``seconds`` is how long a task waits to begin,
    on average.
    """

    def __init__(self, process: Process, seconds: float) -> None:
        self._process = process
        self._seconds = seconds
        self._under_way: list[_Task] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        machine = self._process.machine
        task = _Task(self, lambda: call(*args, **kwargs))
        self._under_way.append(task)
        self.go_on_after(task, machine.random.expovariate(1 / self._seconds))
        return task

    def go_on_after(self, task: _Task, seconds: float) -> None:
        task.step += 1
        self._process.machine.world.clock.after(seconds, self._go_on, task, task.step)

    def go_on_in_a_tick(self) -> None:
        """The thread that ticks loses its turn for a while."""
        source = self._process.machine.random
        for _ in range(source.choice(_STEPS_IN_A_TICK)):
            if not self._under_way:
                return
            source.choice(self._under_way).go_on()

    def drop(self) -> None:
        self._under_way.clear()

    def has_ended(self, task: _Task) -> None:
        if task in self._under_way:
            self._under_way.remove(task)

    def seconds_before(self, call: str) -> float:
        """How long the disk call that comes takes, before it has its effect."""
        return self._process.machine.seconds_before(call)

    def _go_on(self, task: _Task, step: int) -> None:
        # Somebody else may have had it go on meanwhile.
        if step == task.step and task in self._under_way:
            self._process.machine.run(task.go_on)


class _Task(Future[Any]):
    def __init__(self, tasks: Tasks, call: Callable[[], Any]) -> None:
        super().__init__()
        self._tasks = tasks
        self._call = call
        self._greenlet = greenlet.greenlet(self._run)
        self._may_stop = True
        self.step = 0

    def go_on(self) -> None:
        """Run to the next call of the disk, or to the end."""
        if not self._greenlet.dead:
            self._greenlet.parent = greenlet.getcurrent()
            self._greenlet.switch()

    def stop_before(self, call: str) -> None:
        """Called in the task's own greenlet."""
        if self._may_stop:
            self._tasks.go_on_after(self, self._tasks.seconds_before(call))
            self._greenlet.parent.switch()

    def result(self, timeout: float | None = None) -> Any:
        self._wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait()
        return super().exception(timeout)

    def _wait(self) -> None:
        waiting = task_at_hand()
        while waiting is not None and waiting._may_stop and not self.done():
            waiting.stop_before("wait")
        # Whoever ticks waits for it, and nothing else happens meanwhile.
        self._may_stop = False
        while not self.done() and not self._greenlet.dead:
            self.go_on()
        if not self.done():
            # The power went in the middle of it: nobody will ever say what came of it.
            raise PowerCutError

    def _run(self) -> None:
        self._greenlet.raftwal_task = self
        try:
            result = self._call()
        except Exception as error:
            self._tasks.has_ended(self)
            self.set_exception(error)
        else:
            self._tasks.has_ended(self)
            self.set_result(result)


def task_at_hand() -> _Task | None:
    """The task whose code runs, or ``None`` in the thread that ticks."""
    task: _Task | None = getattr(greenlet.getcurrent(), "raftwal_task", None)
    return task
