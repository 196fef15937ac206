"""An operator who changes the cluster's membership, one node at a time, as PySyncObj asks for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pysyncobj import FAIL_REASON

from integration.simulation.machines import Machine

if TYPE_CHECKING:
    from integration.simulation.world import World

_TRY_AGAIN_SECONDS = 2.0
_FEWEST = 2


class Membership:
    """Nodes are started with the list of members that was confirmed last."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changing: Machine | None = None
        self._adds = False
        self._informs_after = 0.0
        self._names = iter("fghijklmnopqrstuvwxyz")

    def join(self) -> None:
        world = self._world
        name = next(self._names, None)
        if self._changing is not None or name is None:
            return
        machine = world.add_machine(name)
        machine.is_member = False
        machine.partners = [each.address for each in world.members()]
        machine.start()
        self._begin(machine, adds=True)

    def leave(self, machine: Machine) -> None:
        if self._changing is None and machine.is_member and len(self._world.members()) > _FEWEST:
            machine.is_member = False
            self._begin(machine, adds=False)

    def _begin(self, machine: Machine, *, adds: bool) -> None:
        self._changing, self._adds = machine, adds
        self._try()

    def _try(self) -> None:
        machine, world = self._changing, self._world
        if machine is None:
            return
        if self._is_done(machine):
            self._end(machine)
            return
        serving = [each for each in world.members() if each.is_serving and each.has_node]
        if serving:
            asked = world.membership_random.choice(serving)
            process = asked.process
            assert process is not None
            node = process.node

            def answer(result: Any, reason: int) -> None:
                if process.is_alive:
                    world.trace.note(asked.name, f"membership: {reason}")
                    if reason == FAIL_REASON.SUCCESS and self._changing is machine:
                        self._end(machine)

            def call() -> None:
                if self._adds:
                    node.addNodeToCluster(machine.address, callback=answer)
                else:
                    node.removeNodeFromCluster(machine.address, callback=answer)

            what = "add" if self._adds else "remove"
            world.trace.note(asked.name, f"is asked to {what} {machine.name}")
            asked.run(call)
            leader = world.leader()
            if not self._adds and leader is machine and machine.process is not None:
                # A leader does not remove itself.
                machine.run(machine.process.node.transferLeadership)
        world.clock.after(_TRY_AGAIN_SECONDS, self._try)

    def _is_done(self, machine: Machine) -> bool:
        """Whether the leader has applied all it has, and the change is among it."""
        leader = self._world.leader()
        if leader is None or leader.process is None:
            return False
        node = leader.process.node
        if leader is machine:
            return self._adds and node.raftLastApplied == node._SyncObj__raftLog[-1][1]
        if node.raftLastApplied != node._SyncObj__raftLog[-1][1]:
            return False
        return self._adds == any(each.id == machine.address for each in node.otherNodes)

    def _end(self, machine: Machine) -> None:
        self._changing = None
        world = self._world
        world.trace.note(machine.name, "is a member" if self._adds else "is no member any more")
        if self._adds:
            machine.is_member = True
        else:
            machine.stop()
            machine.is_retired = True
        addresses = [each.address for each in world.members()]
        for each in world.members():
            each.partners = [address for address in addresses if address != each.address]

    def inform(self) -> None:
        """A node that was away while the membership changed refuses the nodes that it does not
        know, also after a restart, since its dump has the old list.  So it is served again
        once one leads that it knows; one that knows nobody any more has to be removed.
        """
        world, leader = self._world, self._world.leader()
        if leader is None or leader.process is None or world.clock.now < self._informs_after:
            return
        for machine in world.members():
            if machine is leader or not machine.has_node:
                continue
            assert machine.process is not None
            known = {node.id for node in machine.process.node.otherNodes}
            if leader.address not in known:
                choices = [each.address for each in world.members() if each.address in known]
                if choices:
                    self._informs_after = world.clock.now + 5.0
                    node, chosen = leader.process.node, world.membership_random.choice(choices)
                    world.trace.note(leader.name, f"is asked to hand over to {chosen}")
                    leader.run(functools.partial(node.transferLeadership, chosen))
                else:
                    self.leave(machine)
                return

    @property
    def is_changing(self) -> bool:
        return self._changing is not None
