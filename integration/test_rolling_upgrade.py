"""A cluster goes from FileJournal to raftwal and back: live, one node at a time, or all at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from faulty_nodes import check_leaders, check_votes, promises_file
from steady_clients import SteadyClients
from switching_kvstore import DUMP, JOURNAL
from witnessed_kvstore import EVERYTHING

from examples.demo.cluster import KVCluster, KVNodeProcess

ROOT = Path(__file__).parents[1]
NODE_PROGRAM = Path(__file__).with_name("switching_kvstore.py")
# Between two steps, on each node.
WRITES = 40
OPTIONS = ["--snapshot-entries", "150", "--segment-bytes", str(1 << 16), "--write-timeout", "5"]


class SwitchingCluster(KVCluster):
    """Three nodes, each on plain PySyncObj or on raftwal."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 3, OPTIONS)
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self._commands: dict[str, Sequence[str]] = {}
        for node in self.nodes:
            arguments = node.command[node.command.index("examples.kvstore") + 1 :]
            self._commands[node.name] = [str(promises_file(node)), *arguments]
            # env(1) becomes the program that it starts: one process, whose id is known.
            node.command = ["env", f"PYTHONPATH={path}", sys.executable, str(NODE_PROGRAM)]
        self._program = list(self.nodes[0].command)

    def logs(self) -> str:
        """For `conftest`: what the nodes wrote."""
        return self.log_tails()

    def start_as(self, role: str, node: KVNodeProcess) -> None:
        node.command = [*self._program, role, *self._commands[node.name]]
        node.start()

    def roles(self) -> list[str]:
        """Asked of the nodes: raftwal adds to PySyncObj's status."""
        return ["raftwal" if "storage_failure" in node.status() else "plain" for node in self.nodes]

    def leader_last(self) -> list[KVNodeProcess]:
        leader = self.wait_for_leader()
        return [*(node for node in self.nodes if node is not leader), leader]

    def check(self, acknowledged: dict[str, str]) -> None:
        """All have what was acknowledged, and nobody broke a promise on the way."""
        self.wait_ready()
        self.wait_in_step()
        for node in self.nodes:
            values = json.loads(node.get(EVERYTHING))
            lost = [key for key, value in acknowledged.items() if values.get(key) != value]
            assert not lost, f"{node.name} lost {len(lost)} of {len(acknowledged)}: {lost[:5]}"
            check_votes(node)
        check_leaders(self.nodes)


@pytest.fixture
def cluster(tmp_path):
    with SwitchingCluster(tmp_path / "cluster") as cluster:
        yield cluster


def raftwal(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "raftwal", *map(str, arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def back_to_file_journal(node: KVNodeProcess) -> None:
    """As an operator does it: the old files are moved away, the directory is turned round."""
    files = [node.data_dir / name for name in (JOURNAL, f"{JOURNAL}.meta", DUMP)]
    for path in files:
        if path.exists():
            path.rename(path.with_name(f"old.{path.name}"))
    journal, _, dump = files
    print(raftwal("migrate", "--back", f"{journal}.raftwal", journal, "--dump", dump))


def test_a_rolling_upgrade_and_the_way_back_lose_nothing(cluster):
    for node in cluster.nodes:
        cluster.start_as("plain", node)
    cluster.wait_ready()
    with SteadyClients(cluster.nodes) as clients:
        clients.wait_for_acknowledged(2 * WRITES, cluster.nodes)

        for number, node in enumerate(cluster.leader_last(), 1):
            assert node.terminate() == 0, node.log_tail()
            cluster.start_as("raftwal", node)
            node.wait_ready()
            assert "event=migrated" in node.log.read_text(), "it did not start from its old files"
            assert cluster.roles().count("raftwal") == number
            clients.wait_for_acknowledged(WRITES, cluster.nodes)

        for number, node in enumerate(cluster.leader_last(), 1):
            # What raftwal has promised is on its disk.
            node.kill()
            back_to_file_journal(node)
            cluster.start_as("plain", node)
            node.wait_ready()
            assert cluster.roles().count("plain") == number
            clients.wait_for_acknowledged(WRITES, cluster.nodes)
        clients.stop()
        acknowledged = clients.acknowledged()
    assert len(acknowledged) > 6 * WRITES * len(cluster.nodes)
    cluster.check(acknowledged)


def test_a_cluster_that_switches_all_at_once_has_everything_on_its_disks(cluster):
    """No node has a peer to ask for what it lost on the way."""
    acknowledged: dict[str, str] = {}

    def write() -> None:
        with SteadyClients(cluster.nodes) as clients:
            clients.wait_for_acknowledged(2 * WRITES, cluster.nodes)
        acknowledged.update(clients.acknowledged())

    def start_all_as(role: str) -> None:
        for node in cluster.nodes:
            cluster.start_as(role, node)
        cluster.check(acknowledged)

    for node in cluster.nodes:
        cluster.start_as("plain", node)
    cluster.wait_ready()
    write()
    for node in cluster.nodes:
        node.send_signal(signal.SIGTERM)
    for node in cluster.nodes:
        assert node.wait() == 0, node.log_tail()
    start_all_as("raftwal")
    write()
    cluster.kill_all()
    for node in cluster.nodes:
        back_to_file_journal(node)
    start_all_as("plain")
