"""A run by hand: what a follower acknowledged to a leader of an earlier term comes late.

Five nodes.  ``leader`` takes commands that only ``friend`` gets, whose answers crawl.  The
others elect ``other``, which makes both drop them; then it hands the leadership back.
Now the old answers arrive: they claim entries that the friend does not have any more.
"""

from __future__ import annotations

from collections.abc import Callable

from integration.simulation.schedule import settings_of
from integration.simulation.world import Outcome, World


def run(seed: int) -> Outcome:
    settings = settings_of(seed)._replace(
        size=5,
        fault_seconds=60.0,
        append_entries_period=0.3,
        min_timeout=1.2,
        max_timeout=2.0,
        tick_seconds=0.15,
        leader_fallback=30.0,
        connection_timeout=60.0,
        connection_retry=0.2,
        compaction_entries=1000,
        compaction_seconds=1000.0,
        append_batch_bytes=1 << 16,
        clients=0,
    )
    world = World(seed, settings=settings, schedule=[])
    _Plot(world)
    return world.run()


class _Plot:
    def __init__(self, world: World) -> None:
        self._world = world
        self._all = set(world.machines)
        world.clock.at(8.0, self._begin)

    def _begin(self) -> None:
        world = self._world
        machine = world.leader()
        if machine is None:
            return
        self.leader = machine.name
        self.friend, self.witness, *_ = sorted(self._all - {self.leader})
        world.network.slow[self.friend, self.leader] = 12.0
        self._cut({self.leader, self.friend}, self._all - {self.leader, self.friend})
        for _ in range(12):
            world.clients.ask(machine, "put")
        self._when(self._another_leads, self._heal)

    def _another_leads(self) -> bool:
        machine = self._world.leader()
        return machine is not None and machine.name not in (self.leader, self.friend)

    def _heal(self) -> None:
        self._world.network.cut.clear()
        self._world.clock.after(0.2, self._when, self._has_followed, self._hand_back)

    def _has_followed(self) -> bool:
        """The first leader has the log of the second one."""
        one, two = self._world.machine(self.leader), self._world.leader()
        if two is None or not one.has_node or two is one:
            return False
        return one.process.node._SyncObj__raftLog[-1] == two.process.node._SyncObj__raftLog[-1]

    def _hand_back(self) -> None:
        leader = self._world.leader()
        if leader is not None and leader.process is not None:
            node, address = leader.process.node, self._world.machine(self.leader).address
            leader.run(lambda: node.transferLeadership(address))
        self._when(self._leads_again, self._ask_alone, self._hand_back)

    def _leads_again(self) -> bool:
        machine = self._world.leader()
        return machine is not None and machine.name == self.leader

    def _ask_alone(self) -> None:
        """Commands that only the leader and one other node get."""
        world = self._world
        self._cut({self.leader, self.witness}, self._all - {self.leader, self.witness})
        world.network.cut.discard((self.friend, self.leader))
        for _ in range(4):
            world.clients.ask(world.machine(self.leader), "put")
        world.clock.after(14.0, self._others_go_on)

    def _others_go_on(self) -> None:
        for name in (self.leader, self.witness):
            self._world.machine(name).kill()

    def _cut(self, one: set[str], other: set[str]) -> None:
        self._world.network.cut |= {(a, b) for a in one for b in other}
        self._world.network.cut |= {(b, a) for a in one for b in other}

    def _when(
        self,
        condition: Callable[[], bool],
        then: Callable[[], None],
        otherwise: Callable[[], None] | None = None,
        tries: int = 8,
    ) -> None:
        if condition():
            then()
        elif tries > 0:
            self._world.clock.after(0.3, self._when, condition, then, otherwise, tries - 1)
        elif otherwise is not None:
            otherwise()
        else:
            self._world.clock.after(0.3, self._when, condition, then, otherwise, 8)
