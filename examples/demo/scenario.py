"""What the demo does to its cluster, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from examples.demo.checking import Loss, find_losses
from examples.demo.cluster import KVCluster, KVNodeProcess, NodeError
from examples.demo.fsyncs import Fsyncs, fsyncs_of
from examples.demo.screen import Screen
from examples.demo.writers import Writers, value_of

WRITES_SECONDS = 30.0


class NodeResult(NamedTuple):
    """One node, after its last recovery."""

    name: str
    role: str
    ready_seconds: float
    recovery_seconds: float
    snapshot_index: int
    entries_replayed: int
    torn_tail_repaired: bool
    applied_index: int
    fsyncs: Fsyncs


class Result(NamedTuple):
    """What the demo found."""

    acknowledged: int
    unknown: int
    unknown_but_there: int
    losses: list[Loss]
    election_seconds: float
    leader_recovery: NodeResult
    nodes: list[NodeResult]


class Scenario:
    """Steady writes, a dead leader, a dead cluster; then the check.

    Every wait is bounded: what does not come in time raises `NodeError`.
    """

    def __init__(self, cluster: KVCluster, screen: Screen, writes: int) -> None:
        self._cluster = cluster
        self._screen = screen
        self._writes = writes

    def run(self) -> Result:
        try:
            return self._run()
        except httpx.HTTPError as error:
            raise NodeError(f"no answer: {error!r}; {self._cluster.log_tails()}") from error

    def _run(self) -> Result:
        took = self._cluster.start()
        self._screen.say(f"started {_names(self._cluster.nodes)}: ready in {max(took):.2f} s")
        with Writers(self._cluster.nodes) as writers:
            self._await_writes(writers, self._writes, "steady writes through every node")
            old_leader, election_seconds = self._kill_leader(writers)
            leader_recovery = self._restart(old_leader, writers)
            ready_seconds = self._kill_all(writers)
        return self._check(writers, election_seconds, leader_recovery, ready_seconds)

    def _kill_leader(self, writers: Writers) -> tuple[KVNodeProcess, float]:
        old = self._cluster.wait_for_leader()
        old.kill()
        killed_at = time.monotonic()
        self._screen.say(f"kill -9 {old.name}, the leader, after {_count(writers)} writes")
        new = self._cluster.wait_for_leader()
        election_seconds = time.monotonic() - killed_at
        self._screen.say(f"{new.name} leads, {election_seconds:.2f} s later")
        self._await_writes(writers, self._writes // 3, f"writes without {old.name}", down=old)
        return old, election_seconds

    def _restart(self, node: KVNodeProcess, writers: Writers) -> NodeResult:
        node.start()
        ready_seconds = node.wait_ready()
        self._screen.say(f"{node.name} is back, {_recovery(_result_of(node, ready_seconds))}")
        self._await_writes(writers, self._writes // 3, "writes through all three again")
        return _result_of(node, ready_seconds)

    def _kill_all(self, writers: Writers) -> list[float]:
        self._cluster.kill_all()
        self._screen.say(f"kill -9 all three at once, after {_count(writers)} writes")
        took = self._cluster.start()
        for node, seconds in zip(self._cluster.nodes, took, strict=True):
            self._screen.say(f"{node.name} is back, {_recovery(_result_of(node, seconds))}")
        self._await_writes(writers, self._writes // 3, "writes after the restart")
        return took

    def _check(
        self,
        writers: Writers,
        election_seconds: float,
        leader_recovery: NodeResult,
        ready_seconds: Sequence[float],
    ) -> Result:
        nodes = self._cluster.nodes
        index = self._cluster.wait_in_step()
        self._screen.say(f"every node has applied index {index}")
        acknowledged = writers.acknowledged
        reads = len(acknowledged) * len(nodes)
        with self._screen.bar("reads: every acknowledged write, from every node", reads) as bar:
            losses = find_losses(acknowledged, nodes, bar.advance)
        unknown_but_there = sum(nodes[0].get(key) == value_of(key) for key in writers.unknown)
        return Result(
            acknowledged=len(acknowledged),
            unknown=len(writers.unknown),
            unknown_but_there=unknown_but_there,
            losses=losses,
            election_seconds=election_seconds,
            leader_recovery=leader_recovery,
            nodes=[_result_of(*each) for each in zip(nodes, ready_seconds, strict=True)],
        )

    def _await_writes(
        self, writers: Writers, more: int, what: str, down: KVNodeProcess | None = None
    ) -> None:
        """Wait for ``more`` acknowledged writes while every node but ``down`` lives."""
        start = len(writers.acknowledged)
        deadline = time.monotonic() + WRITES_SECONDS
        with self._screen.bar(what, more) as bar:
            while not writers.wait_for(start + more, seconds=0.1):
                bar.set(len(writers.acknowledged) - start)
                for node in self._cluster.nodes:
                    if node is not down and not node.alive:
                        raise node.error(f"ended with status {node.wait()}, and nobody killed it")
                if time.monotonic() > deadline:
                    raise NodeError(
                        f"{len(writers.acknowledged) - start} of {more} writes were acknowledged "
                        f"within {WRITES_SECONDS:g} s; {self._cluster.log_tails()}"
                    )
            bar.set(more)


def _result_of(node: KVNodeProcess, ready_seconds: float) -> NodeResult:
    status = node.status()
    recovered = status["recovered"]
    return NodeResult(
        name=node.name,
        role=status["role"],
        ready_seconds=ready_seconds,
        recovery_seconds=recovered["seconds"],
        snapshot_index=recovered["snapshot_index"],
        entries_replayed=recovered["entries"],
        torn_tail_repaired=recovered["repaired"],
        applied_index=status["last_applied"],
        fsyncs=fsyncs_of(node.metrics()),
    )


def _recovery(result: NodeResult) -> str:
    return (
        f"ready in {result.ready_seconds:.2f} s: snapshot at index {result.snapshot_index}, "
        f"{result.entries_replayed} entries replayed"
    )


def _names(nodes: Sequence[KVNodeProcess]) -> str:
    return ", ".join(node.name for node in nodes)


def _count(writers: Writers) -> int:
    return len(writers.acknowledged)
