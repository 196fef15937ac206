"""A machine with its disk, and the process on it: started, killed, cut off from power."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from integration.simulation.application import DurableStore, PlainStore
from integration.simulation.network import Connection, End, Poller, Server
from integration.simulation.tasks import Tasks, task_at_hand
from raftwal.errors import ReadFailedError, WriteFailedError
from raftwal.testing import PowerCutError, SimulatedDisk
from raftwal.testing.simulated_inodes import Inode

if TYPE_CHECKING:
    from integration.simulation.world import World

_NEXT_AT_ONCE = 0.0005
_OPERATOR_SECONDS = (1.0, 6.0)


class Process:
    """One life of a node: from its start to its end."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.poller = Poller(self)
        self.ends: list[End] = []
        self.server: Server | None = None
        self._disk = machine.disk
        self.node: Any = None
        self.tasks = Tasks(self, 0.1)
        self.saves = Tasks(self, machine.world.settings.save_seconds)
        self.paused_until = 0.0
        self._callers: list[End] = []
        self._ready: dict[End, None] = {}
        self._wake_at = float("inf")
        self._was_woken = False

    @property
    def is_alive(self) -> bool:
        """Whether what it does still has effects; its disk is cut off when it ends."""
        return not self._disk.is_off

    @property
    def is_listening(self) -> bool:
        return self.server is not None

    def applied(self, position: int, operation: int, result: Any, fingerprint: int) -> None:
        if self.is_alive:
            self.machine.world.invariants.applied(self, position, operation, result, fingerprint)

    def wake_at(self, time: float) -> None:
        time = max(time, self.paused_until)
        if time < self._wake_at:
            self._wake_at = time
            self.machine.world.clock.at(time, self._wake, time)

    def end_poll(self) -> None:
        """A thread has something for the one that ticks."""
        self._was_woken = True
        self.wake_at(self.machine.world.clock.now)

    def pause(self, seconds: float) -> None:
        """As a process that is swapped out, or a garbage collection that takes long."""
        self.paused_until = self.machine.world.clock.now + seconds

    def has_arrived(self, end: End) -> None:
        self._ready[end] = None
        self.wake_at(self.machine.world.clock.now)

    def has_been_called(self, end: End) -> None:
        self._callers.append(end)
        self.wake_at(self.machine.world.clock.now)

    def forget(self, end: End) -> None:
        self._ready.pop(end, None)
        if end in self.ends:
            self.ends.remove(end)

    def handle_arrivals(self) -> None:
        """What a poll does."""
        self._other_threads_go_on()
        callers, self._callers = self._callers, []
        for end in callers:
            if self.server is not None:
                self.server.accept(end)
        for end in list(self._ready):
            connection: Connection | None = end.connection
            if connection is None:
                continue
            connection.process()
            self._other_threads_go_on()
            if not end.incoming:
                self._ready.pop(end, None)

    def _other_threads_go_on(self) -> None:
        self.saves.go_on_in_a_tick()
        self.tasks.go_on_in_a_tick()

    def _wake(self, time: float) -> None:
        if time != self._wake_at or not self.is_alive:
            return
        self._wake_at = float("inf")
        clock = self.machine.world.clock
        if clock.now < self.paused_until:
            self.wake_at(self.paused_until)
            return
        had_work = bool(self._ready or self._callers) or self._was_woken
        self._was_woken = False
        succeeded = self.machine.run(self.node.doTick)
        if self.is_alive:
            self.machine.world.invariants.look_at(self)
            period = (
                _NEXT_AT_ONCE
                if had_work and succeeded
                else self.machine.world.settings.tick_seconds
            )
            self.wake_at(clock.now + period)

    def end(self, *, told: bool, was_closed: bool = False) -> None:
        """From here on nothing of this process has any effect."""
        self._disk.cut_power()
        self.tasks.drop()
        self.saves.drop()
        for end in list(self.ends):
            if told:
                end.close(abruptly=self.machine.random.random() < 0.5)
            else:
                end.vanish()
        durable = getattr(self.node, "_raftwal_node", None)
        if durable is not None and not was_closed:
            # What remains in memory is collected at some time, and must do nothing then.
            durable._closed = True
            durable.barrier.close()


class Machine:
    """Has a name, a disk that survives, and at most one process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.address = f"{name}:1"
        self.random = random.Random(f"{world.seed} {name}")
        self.is_on = True
        self.is_retired = False
        self.is_member = True
        self.process: Process | None = None
        self.partners: list[str] = []
        self.slow_disk_until = 0.0
        self._dies_of: str | None = None
        self._take(SimulatedDisk(self.random.randrange(1 << 30)))
        self.disk.make_directory("/data")
        self.disk.write_back()

    def _take(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        disk.before = self._before_call

    def _before_call(self, call: str, path: str) -> None:
        task = task_at_hand()
        if task is None:
            self.world.clock.spend(self.seconds_before(call))
        else:
            task.stop_before(call)

    def seconds_before(self, call: str) -> float:
        """How long a call of the disk takes."""
        settings = self.world.settings
        if call not in ("sync", "sync_data"):
            return self.random.expovariate(1 / 1e-4)
        if self.world.clock.now < self.slow_disk_until:
            return self.random.random() * settings.slow_sync_seconds
        return self.random.expovariate(1 / settings.sync_seconds)

    @property
    def is_serving(self) -> bool:
        return self.process is not None and self.process.is_alive

    @property
    def has_node(self) -> bool:
        return self.process is not None and self.process.node is not None

    def run(self, call: Callable[[], Any]) -> bool:
        """Call into the process; the machine, or the process, may end in the middle of it.

        Returns whether nothing was raised.
        """
        world = self.world
        process = self.process
        world.running = process
        succeeds = False
        try:
            call()
            succeeds = True
        except PowerCutError:
            pass
        except Exception as error:
            # As the thread of PySyncObj that ticks: it logs, waits a little and goes on.
            world.trace.note(self.name, f"raised {type(error).__name__}: {error}")
            world.raised[f"{type(error).__name__}: {str(error)[:60]}"] += 1
        finally:
            world.running = None
        if self.disk.is_off:
            how, self._dies_of = self._dies_of or "power", None
            if how == "power":
                self._power_is_cut()
            else:
                self._is_killed()
        return succeeds

    # What happens to it.

    def start(self) -> None:
        """The operator starts the process, unless it runs."""
        if self.process is not None or self.is_retired:
            return
        self.is_on = True
        self.process = process = Process(self)
        self.world.trace.note(self.name, "starts")
        refusals: list[Exception] = []

        def make() -> None:
            try:
                process.node = self.world.make_node(self, process)
            except Exception as error:
                refusals.append(error)

        self.run(make)
        if not process.is_alive:
            return
        if refusals:
            self._did_not_start(refusals[0])
            return
        self.world.invariants.started(process)
        process.wake_at(self.world.clock.now + 0.001)

    def _did_not_start(self, error: Exception) -> None:
        assert self.process is not None
        self.process.end(told=True, was_closed=True)
        self.process = None
        self._disk_of_a_new_process()
        self.world.trace.note(self.name, f"does not start: {type(error).__name__}: {error}")
        if not isinstance(error, ReadFailedError | WriteFailedError | OSError):
            self.world.invariants.violated("refuses to start", f"{self.name}: {error!r}")
        self.world.clock.after(self.random.uniform(*_OPERATOR_SECONDS), self.start)

    def stop(self) -> None:
        """An orderly end."""
        process = self.process
        if process is None:
            return
        self.world.trace.note(self.name, "stops")
        if process.node is not None:
            self.run(process.node.destroy)
        if self.process is process:
            process.end(told=True, was_closed=True)
            self.process = None
            self._disk_of_a_new_process()

    def kill(self) -> None:
        """SIGKILL: what was written stays, synced or not."""
        if self.process is not None:
            self._is_killed()

    def _is_killed(self) -> None:
        self.world.trace.note(self.name, "is killed")
        assert self.process is not None
        self.process.end(told=True)
        self.process = None
        self._disk_of_a_new_process()

    def _disk_of_a_new_process(self) -> None:
        """After a failed sync the documentation wants the machine restarted, not the process:
        the kernel may hold what the disk does not, and take it for written.
        """
        if _holds_what_the_disk_does_not(self.disk):
            self._power_is_cut()
        else:
            self._take(self.disk.after_kill())

    def cut_power(self) -> None:
        """The machine goes off, and is off until it is started."""
        if self.is_on:
            self._power_is_cut()

    def _power_is_cut(self) -> None:
        self.world.trace.note(self.name, "loses power")
        self.disk.cut_power()
        if self.process is not None:
            self.process.end(told=False)
            self.process = None
        self.is_on = False
        self._take(self.disk.after_crash(self.random.randrange(1 << 30)))

    def end_in_a_call(self, how: str, calls_from_now: int) -> None:
        """Have the disk's ``calls_from_now``-th call end the process, or the power."""
        if self.process is not None:
            self._dies_of = how
            self.disk.cut_power_at = len(self.disk.calls) + calls_from_now

    def storage_failed(self, error: BaseException) -> None:
        """The hook: as the documentation wants it, the machine is started anew."""
        self.world.trace.note(self.name, f"has stopped: {error}")
        self.world.clock.after(self.random.uniform(*_OPERATOR_SECONDS), self._start_anew)

    def _start_anew(self) -> None:
        if self.process is not None and getattr(self.process.node, "storage_failure", None):
            self.disk.faults.clear()
            self.disk.capacity = None
            self.cut_power()
            self.start()


def _holds_what_the_disk_does_not(disk: SimulatedDisk) -> bool:
    return any(
        isinstance(node, Inode) and node.is_clean and node.content != node.durable
        for node in disk._root.reachable()
    )


MAKERS = {"raftwal": DurableStore, "filejournal": PlainStore}
