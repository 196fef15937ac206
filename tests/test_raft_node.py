"""The example node keeps Raft's promises on `RaftStorage`: over loss, kills and snapshots."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.raft_node import node as raft_node
from examples.raft_node.node import Node
from raftwal.testing import UnsyncedDisk

MEMBERS = (1, 2, 3)
ROOT = Path(__file__).parents[1]


class Cluster:
    """Three nodes, and a network that loses, delays and reorders, from one seed."""

    def __init__(self, directory: Path, seed: int) -> None:
        print(f"seed {seed}; replay with RAFTWAL_SEED={seed}")
        self.random = random.Random(seed)
        random.seed(seed)
        self.directory = directory
        self.network: list = []
        self.paths = {node_id: directory / f"{node_id}-0" for node_id in MEMBERS}
        self.nodes = {node_id: self.start(node_id) for node_id in MEMBERS}
        self.isolated: set[int] = set()
        self.leaders: dict[int, int] = {}
        self.applied: dict[int, dict] = {}
        self.loss = 0.0

    def start(self, node_id: int) -> Node:
        return Node(node_id, MEMBERS, str(self.paths[node_id]), self.network.append)

    def kill(self, node_id: int) -> None:
        """What a killed process leaves is what its files hold at that moment."""
        old = self.paths[node_id]
        number = int(old.name.partition("-")[2]) + 1
        self.paths[node_id] = self.directory / f"{node_id}-{number}"
        shutil.copytree(old, self.paths[node_id])
        self.nodes[node_id].storage.close()
        shutil.rmtree(old)
        self.nodes[node_id] = self.start(node_id)

    def step(self) -> None:
        for node in self.nodes.values():
            node.raft.tick()
            node.process()
        messages, self.network[:] = list(self.network), []
        self.random.shuffle(messages)
        for message in messages:
            is_cut_off = {message.sender, message.to} & self.isolated
            if message.sender != message.to and (is_cut_off or self.random.random() < self.loss):
                continue
            if self.random.random() < self.loss:
                self.network.append(message)
                continue
            node = self.nodes[message.to]
            node.raft.step(message)
            node.process()
            self.check(node)

    def check(self, node: Node) -> None:
        if node.raft.role == "leader":
            leader = self.leaders.setdefault(node.raft.term, node.raft.id)
            assert leader == node.raft.id, f"two leaders in term {node.raft.term}"
        values = self.applied.setdefault(node.applied, dict(node.values))
        assert values == node.values, f"two states at index {node.applied}"

    def propose(self, key: str, value: int) -> None:
        for node in self.nodes.values():
            if node.raft.role == "leader":
                node.raft.propose(json.dumps({key: value}).encode())
                node.process()

    def run_until(self, is_reached, steps: int = 5000) -> None:
        for _ in range(steps):
            if is_reached():
                return
            self.step()
        raise AssertionError("not reached")

    def close(self) -> None:
        for node in self.nodes.values():
            node.storage.close()


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """Nothing here cuts the power, so the syncs are spared."""
    opened = raft_node.RaftStorage.open
    monkeypatch.setattr(
        raft_node.RaftStorage,
        "open",
        lambda path, **given: opened(path, fs=UnsyncedDisk(), segment_bytes=4096, **given),
    )


def test_nodes_agree_over_loss_kills_and_snapshots(tmp_path):
    """No two leaders in a term, one state at each index, and nothing applied is lost."""
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    cluster = Cluster(tmp_path, seed)
    highest = 0
    for number in range(400):
        cluster.loss = cluster.random.choice((0.0, 0.05, 0.3))
        if cluster.random.random() < 0.05:
            cluster.isolated = {cluster.random.choice(MEMBERS)}
        elif cluster.random.random() < 0.1:
            cluster.isolated = set()
        if cluster.random.random() < 0.05:
            cluster.kill(cluster.random.choice(MEMBERS))
        cluster.propose(f"key {number % 50}", number)
        for _ in range(cluster.random.randrange(4)):
            cluster.step()
        highest = max(highest, *(node.applied for node in cluster.nodes.values()))
    cluster.isolated, cluster.loss = set(), 0.0

    def have_the_last() -> bool:
        # Whoever leads may be about to lose its term, and what it was given with it.
        cluster.propose("last", 1)
        return all("last" in node.values for node in cluster.nodes.values())

    cluster.run_until(have_the_last)
    cluster.run_until(lambda: len({node.applied for node in cluster.nodes.values()}) == 1)
    assert all(node.applied >= highest for node in cluster.nodes.values())
    first, *others = [node.values for node in cluster.nodes.values()]
    assert all(other == first for other in others)
    cluster.close()


def test_a_node_that_lags_behind_a_compaction_is_sent_the_snapshot(tmp_path):
    cluster = Cluster(tmp_path, 1)
    cluster.run_until(lambda: any(node.raft.role == "leader" for node in cluster.nodes.values()))
    leader = next(node for node in cluster.nodes.values() if node.raft.role == "leader")
    behind = next(node_id for node_id in MEMBERS if node_id != leader.raft.id)
    cluster.isolated = {behind}
    for number in range(250):
        cluster.propose(f"key {number}", number)
    cluster.run_until(lambda: "key 249" in leader.values)
    assert leader.storage.first_index > 100
    assert not cluster.nodes[behind].values
    cluster.isolated = set()
    cluster.run_until(lambda: cluster.nodes[behind].values == leader.values)
    assert cluster.nodes[behind].storage.snapshot_metadata.index > 100
    cluster.kill(behind)
    assert len(cluster.nodes[behind].values) >= 100
    cluster.run_until(lambda: cluster.nodes[behind].values == leader.values)
    cluster.close()


def test_it_is_under_150_lines():
    assert len((ROOT / "examples/raft_node/node.py").read_text().splitlines()) < 150


def test_it_runs_and_goes_on_where_it_ended(tmp_path):
    for found in (0, 100, 200):
        done = subprocess.run(
            [sys.executable, "-m", "examples.raft_node", str(tmp_path / "nodes")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.startswith(f"found {found} values, wrote 100"), done.stderr
