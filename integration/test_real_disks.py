"""Real file systems under real nodes: full, read-only, or cut from power."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from errno import ENOSPC, EROFS
from pathlib import Path

import pytest
from faulty_nodes import DEADLINE_SECONDS, FaultyCluster, hook_calls, is_serving, last_words
from small_disks import SmallDisk, small_disks

from examples.demo.cluster import KVNodeProcess

OPTIONS = ["--segment-bytes", str(1 << 14), "--snapshot-entries", "1000000"]


@contextmanager
def nodes_on_disks(kind: str, directory: Path):
    """A cluster whose data directories are file systems of their own; ``disk_of`` each."""
    paths = [directory / f"node{number}" for number in (1, 2, 3)]
    with small_disks(kind, paths) as disks, FaultyCluster(directory, OPTIONS) as nodes:
        nodes.start()
        yield nodes, {str(disk.path): disk for disk in disks}


def disk_of(node: KVNodeProcess, disks: dict[str, SmallDisk]) -> SmallDisk:
    return disks[str(node.data_dir)]


def raftwal(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "raftwal", *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def check_refused_start(node: KVNodeProcess, code: int) -> None:
    """It ends with status 1, and its last line says why, without a traceback."""
    since = node.log.stat().st_size
    node.start()
    assert node.wait() == 1
    said = last_words(node, since)
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("kvstore: ")
    assert os.strerror(code) in said.splitlines()[-1]


def stop(node: KVNodeProcess) -> None:
    """SIGSTOP, and wait until no thread of it runs."""
    node.send_signal(signal.SIGSTOP)
    os.waitpid(node.process.pid, os.WUNTRACED)


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_leader_on_a_full_disk_stops_and_recovers_once_there_is_space(tmp_path, kind):
    with nodes_on_disks(kind, tmp_path) as (nodes, disks):
        with nodes.clients() as clients:
            node = nodes.of_role("leader")
            clients.wait_for_acknowledged(3, nodes.nodes)
            disk_of(node, disks).fill()
            # It has a segment or two that were prepared.
            assert os.strerror(ENOSPC) in nodes.wait_until_failed(node)
            nodes.wait_for_leader_besides(node)
            clients.wait_for_acknowledged(10, nodes.others(node))
            assert node.terminate() == 0
            assert len(hook_calls(node)) == 1
            nodes.check_disk(node)
            # Restarted before there is space, it stops again, and spoils nothing.
            node.start()
            node.wait_until(lambda: is_serving(node), "serving")
            assert os.strerror(ENOSPC) in nodes.wait_until_failed(node)
            assert node.terminate() == 0
        assert {each.status for each in clients.refused_by(node)} == {503}
        nodes.check_disk(node)
        assert raftwal("verify", node.data_dir).returncode == 0
        disk_of(node, disks).free()
        node.start()
        nodes.check()


def test_a_leader_whose_file_system_turns_read_only_stops_and_the_others_go_on(tmp_path):
    with nodes_on_disks("ext4", tmp_path) as (nodes, disks):
        with nodes.clients() as clients:
            node = nodes.of_role("leader")
            clients.wait_for_acknowledged(3, nodes.nodes)
            disk_of(node, disks).turn_read_only()
            assert os.strerror(EROFS) in nodes.wait_until_failed(node)
            nodes.wait_for_leader_besides(node)
            clients.wait_for_acknowledged(10, nodes.others(node))
            assert node.terminate() == 0
        assert {each.status for each in clients.refused_by(node)} == {503}
        assert len(hook_calls(node)) == 1
        check_refused_start(node, EROFS)
        disk_of(node, disks).mount_again()
        nodes.check_disk(node)
        node.start()
        nodes.check()


def test_a_node_does_not_start_on_a_read_only_directory_and_says_why(tmp_path):
    with nodes_on_disks("ext4", tmp_path) as (nodes, disks):
        with nodes.clients() as clients:
            node = nodes.of_role("follower")
            clients.wait_for_acknowledged(3, nodes.nodes)
            assert node.terminate() == 0
            disk_of(node, disks).set_read_only(True)
            check_refused_start(node, EROFS)
            plain = node.command
            node.command = [*plain, "--data-dir", str(node.data_dir / "new")]
            check_refused_start(node, EROFS)
            node.command = plain
            clients.wait_for_acknowledged(5, nodes.others(node))
        for command in ("dump", "verify", "repair"):
            done = raftwal(command, node.data_dir)
            assert done.returncode == 0, done.stdout + done.stderr
        disk_of(node, disks).set_read_only(False)
        nodes.check_disk(node)
        node.start()
        nodes.check()


def test_a_power_cut_of_all_disks_at_once_loses_nothing_acknowledged(tmp_path):
    """What ext4 had not written out is gone, as after a power cut, and so is its journal's end."""
    with nodes_on_disks("ext4", tmp_path) as (nodes, disks):
        for _ in range(3):
            with nodes.clients() as clients:
                clients.wait_for_acknowledged(20, nodes.nodes)
                # At once, as power goes: a sync that were under way meanwhile could report
                # success, since ext4 does not shut down in one step.
                for node in nodes.nodes:
                    stop(node)
                for disk in disks.values():
                    disk.cut_power()
                nodes.kill_all()
            for disk in disks.values():
                disk.mount_again()
            for node in nodes.nodes:
                nodes.check_disk(node)
                node.start()
            nodes.wait_ready(DEADLINE_SECONDS)
            nodes.check()
