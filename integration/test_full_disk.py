"""A real full file system under one node: it stops, the others go on, nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import KV, cluster
from conftest import missing

from raftwal.errors import WriteFailedError


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, to be filled."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        missing("root on Linux, to mount a small file system")
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "raftwal-test", str(mounted)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        missing(f"permission to mount a tmpfs: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def fill_up(directory: Path) -> Path:
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filler


def test_a_leader_on_a_full_disk_stops_and_the_other_two_go_on(tmp_path, small_disk):
    with cluster(tmp_path) as nodes:
        full = nodes.addresses[0]
        plain = nodes.data_dir
        nodes.data_dir = lambda address: small_disk / "n" if address == full else plain(address)
        failures = []
        while True:
            nodes.start_all(on_storage_failure=failures.append, segment_bytes=1 << 14)
            leader = nodes.wait_for_leader()
            if leader.selfNode.id == full:
                break
            nodes.stop_all()
        expected = {"before": "it is full"}
        assert nodes.put(leader, "before", "it is full") == 0
        filler = fill_up(small_disk)

        # The segments at hand were preallocated: it goes on until the next is needed.
        answers = []
        for number in range(200):
            reason = nodes.put(leader, number, "x" * 500)
            answers.append(reason)
            if reason:
                break
            expected[number] = "x" * 500
        assert answers[-1] != 0, "the disk never filled up"
        assert leader.storage_failure is not None
        assert "No space left on device" in leader.healthy()
        assert len(failures) == 1
        assert isinstance(failures[0], WriteFailedError)

        successor = nodes.wait_for_leader()
        for number in range(1000, 1050):
            assert nodes.put(successor, number, number) == 0
            expected[number] = number

        filler.unlink()
        nodes.stop(full)
        nodes.start(full, segment_bytes=1 << 14)

        def complete(node: KV) -> bool:
            return expected.items() <= node.values.items()

        nodes.tick_until(
            lambda: all(map(complete, nodes.nodes.values())), "every node to hold everything"
        )
