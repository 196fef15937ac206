"""What each kind of event in a schedule does."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from integration.simulation.schedule import LEADER, Event
from raftwal.testing import Fault

if TYPE_CHECKING:
    from integration.simulation.machines import Machine
    from integration.simulation.world import World

_FAILING_CALLS = (
    "write",
    "sync_data",
    "sync_data",
    "sync",
    "sync_directory",
    "create",
    "allocate",
    "truncate",
    "rename",
    "remove",
)


class Faults:
    """Plays a schedule to the machines of a run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kinds: dict[str, Callable[[Machine, Event, random.Random], None]] = {
            "kill": self._kill,
            "cut power": self._cut_power,
            "cut power everywhere": self._cut_power_everywhere,
            "kill everywhere": self._kill_everywhere,
            "kill in a call": self._kill_in_a_call,
            "cut power in a call": self._cut_power_in_a_call,
            "stop": self._stop,
            "partition": self._partition,
            "isolate": self._isolate,
            "one-way": self._one_way,
            "slow link": self._slow_link,
            "reset connections": self._reset_connections,
            "pause": self._pause,
            "compact": self._compact,
            "transfer leadership": self._transfer_leadership,
            "disk error": self._disk_error,
            "disk full": self._disk_full,
            "slow disk": self._slow_disk,
            "join": self._join,
            "leave": self._leave,
        }

    def play(self, event: Event) -> None:
        world = self._world
        machine = world.leader() if event.target == LEADER else world.machine(event.target)
        source = random.Random(event.number)
        if machine is None:
            machine = source.choice(world.members())
        if not machine.is_member:
            return
        world.trace.note(machine.name, f"fault: {event.kind}, {event.seconds:.2f} s")
        self.kinds[event.kind](machine, event, source)

    def end(self) -> None:
        """Everything works again."""
        world = self._world
        world.trace.note("", "faults end")
        world.network.cut.clear()
        world.network.slow.clear()
        for machine in world.machines.values():
            machine.disk.faults.clear()
            machine.disk.capacity = None
            machine.disk.cut_power_at = None
            machine.slow_disk_until = 0.0
            if machine.process is not None:
                machine.process.paused_until = 0.0
                machine.process.wake_at(world.clock.now)
            else:
                world.clock.after(source_of(machine) * 3, machine.start)

    def _kill(self, machine: Machine, event: Event, source: random.Random) -> None:
        machine.kill()
        self._world.clock.after(event.seconds, machine.start)

    def _cut_power(self, machine: Machine, event: Event, source: random.Random) -> None:
        machine.cut_power()
        self._world.clock.after(event.seconds, machine.start)

    def _cut_power_everywhere(self, machine: Machine, event: Event, source: random.Random) -> None:
        for each in self._world.members():
            self._cut_power(
                each, event._replace(seconds=source.uniform(0.1, event.seconds)), source
            )

    def _kill_everywhere(self, machine: Machine, event: Event, source: random.Random) -> None:
        for each in self._world.members():
            self._kill(each, event._replace(seconds=source.uniform(0.1, event.seconds)), source)

    def _kill_in_a_call(self, machine: Machine, event: Event, source: random.Random) -> None:
        machine.end_in_a_call("kill", source.choice((3, 10, 40, 200)) * source.randrange(1, 5))
        self._world.clock.after(event.seconds + 2.0, machine.start)

    def _cut_power_in_a_call(self, machine: Machine, event: Event, source: random.Random) -> None:
        machine.end_in_a_call("power", source.choice((3, 10, 40, 200)) * source.randrange(1, 5))
        self._world.clock.after(event.seconds + 2.0, machine.start)

    def _stop(self, machine: Machine, event: Event, source: random.Random) -> None:
        machine.stop()
        self._world.clock.after(event.seconds, machine.start)

    def _partition(self, machine: Machine, event: Event, source: random.Random) -> None:
        names = [each.name for each in self._world.machines.values()]
        left = {name for name in names if source.random() < 0.5} | {machine.name}
        self._cut(
            {(one, two) for one in left for two in names if two not in left}, event, both=True
        )

    def _isolate(self, machine: Machine, event: Event, source: random.Random) -> None:
        others = [each for each in self._world.machines if each != machine.name]
        self._cut({(machine.name, other) for other in others}, event, both=True)

    def _one_way(self, machine: Machine, event: Event, source: random.Random) -> None:
        others = [each for each in self._world.machines if each != machine.name]
        if source.random() < 0.5:
            others = others[: source.randrange(len(others) + 1)]
        if source.random() < 0.5:
            self._cut({(machine.name, other) for other in others}, event, both=False)
        else:
            self._cut({(other, machine.name) for other in others}, event, both=False)

    def _cut(self, pairs: set[tuple[str, str]], event: Event, *, both: bool) -> None:
        pairs = pairs | {(two, one) for one, two in pairs if both}
        cut = self._world.network.cut
        new = pairs - cut
        cut |= new
        self._world.clock.after(event.seconds, lambda: cut.difference_update(new))

    def _slow_link(self, machine: Machine, event: Event, source: random.Random) -> None:
        slow = self._world.network.slow
        seconds = source.choice((0.05, 0.3, 1.0, 3.0))
        others = [each for each in self._world.machines if each != machine.name]
        for other in others:
            if source.random() < 0.5:
                slow[machine.name, other] = seconds
            if source.random() < 0.5:
                slow[other, machine.name] = seconds

        def normal() -> None:
            for other in others:
                slow.pop((machine.name, other), None)
                slow.pop((other, machine.name), None)

        self._world.clock.after(event.seconds, normal)

    def _reset_connections(self, machine: Machine, event: Event, source: random.Random) -> None:
        if machine.process is None:
            return
        for end in list(machine.process.ends):
            if source.random() < 0.5:
                end.reset()

    def _pause(self, machine: Machine, event: Event, source: random.Random) -> None:
        if machine.process is not None:
            machine.process.pause(event.seconds)

    def _compact(self, machine: Machine, event: Event, source: random.Random) -> None:
        if machine.process is not None and machine.process.node is not None:
            machine.process.node.forceLogCompaction()

    def _transfer_leadership(self, machine: Machine, event: Event, source: random.Random) -> None:
        process = machine.process
        if process is not None and process.node is not None:
            machine.run(process.node.transferLeadership)

    def _disk_error(self, machine: Machine, event: Event, source: random.Random) -> None:
        call = source.choice(_FAILING_CALLS)
        path = source.choice(("", "", ".wal", ".tmp", "snap"))
        disk = machine.disk
        disk.faults.append(Fault(call, errno.EIO, source.choice((1, 1, 2, 5, 20)), path))

        def mend() -> None:
            machine.disk.faults.clear()

        self._world.clock.after(event.seconds, mend)

    def _disk_full(self, machine: Machine, event: Event, source: random.Random) -> None:
        used = sum(len(machine.disk.content(path)) for path in machine.disk.paths())
        machine.disk.capacity = used + source.choice((0, 100, 1000, 5000))

        def free() -> None:
            machine.disk.capacity = None

        self._world.clock.after(event.seconds, free)

    def _slow_disk(self, machine: Machine, event: Event, source: random.Random) -> None:
        machine.slow_disk_until = self._world.clock.now + event.seconds

    def _join(self, machine: Machine, event: Event, source: random.Random) -> None:
        self._world.membership.join()

    def _leave(self, machine: Machine, event: Event, source: random.Random) -> None:
        self._world.membership.leave(machine)


def source_of(machine: Machine) -> float:
    return machine.random.random()
