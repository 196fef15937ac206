"""Clients of the key-value store, their histories, and what these must be.

Every operation goes through the log, reads too, so an order is known in which they took
effect: that of the state machines.  A history is linearizable if this order agrees with
real time and with every answer.  A read of a node's local state promises no such thing;
how often one is stale is counted.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pysyncobj import FAIL_REASON

if TYPE_CHECKING:
    from integration.simulation.machines import Machine
    from integration.simulation.world import World

_PATIENCE = 8.0
# The command is not in any log, and will not be.
_DENIED = (
    FAIL_REASON.QUEUE_FULL,
    FAIL_REASON.MISSING_LEADER,
    FAIL_REASON.DISCARDED,
    FAIL_REASON.NOT_LEADER,
    FAIL_REASON.REQUEST_DENIED,
)


class Operation:
    __slots__ = ("answered", "asked", "number", "reason", "result")

    def __init__(self, number: int, asked: float) -> None:
        self.number = number
        self.asked = asked
        self.answered: float | None = None
        self.reason: int | None = None
        self.result: Any = None


class Clients:
    def __init__(self, world: World, count: int) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed} clients")
        self.operations: list[Operation] = []
        self.local_reads = 0
        self.stale_reads = 0
        self.acknowledged = 0
        self._highest_acknowledged = 0
        self._waiting: set[int] = set()
        self.is_active = True
        for _ in range(count):
            world.clock.at(self._random.uniform(0.5, 3.0), self._next)

    def _next(self) -> None:
        if not self.is_active:
            return
        world, source = self._world, self._random
        settings = world.settings
        serving = [each for each in world.members() if each.is_serving]
        if not serving:
            world.clock.after(1.0, self._next)
            return
        machine = source.choice(serving)
        for _ in range(source.choice(settings.burst)):
            last = self.ask(machine)
        world.clock.after(_PATIENCE, self._lose_patience, last)
        self._waiting.add(last.number)
        if source.random() < 0.3:
            self._read_locally(machine)

    def ask(self, machine: Machine, kind: str | None = None) -> Operation:
        source, world = self._random, self._world
        operation = Operation(len(self.operations) + 1, world.clock.now)
        self.operations.append(operation)
        key = f"k{source.randrange(5)}"
        kind = kind or source.choice(("put", "put", "get", "compare_and_set"))
        process = machine.process
        assert process is not None

        def answer(result: Any, reason: int) -> None:
            # A process that is no more answers nobody.
            if process.is_alive and operation.answered is None:
                self._answered(operation, result, reason)

        def call() -> None:
            node = process.node
            if kind == "put":
                size = source.choice(world.settings.value_bytes)
                node.put(key, operation.number, source.randbytes(size), callback=answer)
            elif kind == "get":
                node.get(key, operation.number, callback=answer)
            else:
                node.compare_and_set(key, node.values.get(key), operation.number, callback=answer)

        world.trace.note(machine.name, f"is asked to {kind} {key}: operation {operation.number}")
        machine.run(call)
        return operation

    def _answered(self, operation: Operation, result: Any, reason: int) -> None:
        world, invariants = self._world, self._world.invariants
        operation.answered, operation.result, operation.reason = world.clock.now, result, reason
        position = invariants.positions.get(operation.number)
        name = {v: k for k, v in vars(FAIL_REASON).items() if k.isupper()}.get(reason, reason)
        world.trace.note("cli", f"operation {operation.number}: {name}, {result!r}")
        if reason == FAIL_REASON.SUCCESS:
            self.acknowledged += 1
            if position is None:
                invariants.violated("lost write", f"{operation.number} acknowledged, not applied")
            else:
                self._highest_acknowledged = max(self._highest_acknowledged, position)
                if invariants.sequence[position - 1][1] != result:
                    invariants.violated("wrong answer", f"operation {operation.number}: {result!r}")
        if operation.number in self._waiting:
            self._waiting.discard(operation.number)
            world.clock.after(
                self._random.expovariate(1 / world.settings.think_seconds), self._next
            )

    def _lose_patience(self, operation: Operation) -> None:
        if operation.number in self._waiting:
            self._waiting.discard(operation.number)
            self._next()

    def _read_locally(self, machine: Machine) -> None:
        if machine.is_serving and hasattr(machine.process.node, "count"):
            self.local_reads += 1
            if machine.process.node.count < self._highest_acknowledged:
                self.stale_reads += 1

    def check_history(self) -> None:
        """At the end of a run: denied means never; and the order agrees with real time."""
        invariants = self._world.invariants
        positions = invariants.positions
        done: list[tuple[float, int, Operation]] = []
        for operation in self.operations:
            position = positions.get(operation.number)
            if operation.reason in _DENIED and position is not None:
                invariants.violated(
                    "denied, but applied", f"operation {operation.number}: {operation.reason}"
                )
            if operation.reason == FAIL_REASON.SUCCESS and position is not None:
                assert operation.answered is not None
                done.append((operation.answered, position, operation))
        done.sort(key=lambda each: each[:2])
        highest, at = 0, 0
        for operation in self.operations:  # in the order in which they were asked
            while at < len(done) and done[at][0] < operation.asked:
                highest = max(highest, done[at][1])
                at += 1
            position = positions.get(operation.number)
            if position is not None and position < highest:
                invariants.violated(
                    "not linearizable",
                    f"operation {operation.number} took effect at {position}, "
                    f"before one at {highest} that was answered before it was asked",
                )
                return
