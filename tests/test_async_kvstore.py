"""The async_kvstore example: real node processes on loopback, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from examples.async_kvstore.app import MAX_VALUE_BYTES, not_acknowledged
from examples.demo.cluster import KVCluster, KVNodeProcess, free_addresses
from raftwal.errors import CommandNotAppliedError, CommandTimeoutError

ROOT = Path(__file__).parents[1]
SECONDS = 30
needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux has prlimit")


def as_the_example(nodes: KVCluster) -> KVCluster:
    """The processes take the same options."""
    for node in nodes.nodes:
        node.command[2] = "examples.async_kvstore"
    return nodes


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[KVNodeProcess]:
    with as_the_example(KVCluster(tmp_path, size=1)) as nodes:
        nodes.start()
        yield nodes.nodes[0]


def test_its_writes_survive_kill_9_of_all_nodes_and_it_ends_in_good_order(tmp_path):
    with as_the_example(KVCluster(tmp_path)) as nodes:
        nodes.start()
        first, *others = nodes.nodes
        for number, node in enumerate(nodes.nodes):
            node.wait_until(
                lambda node=node, key=f"key{number}": node.put(key, b"v").status_code == 204,
                "writable",
            )
        # The first answer may be lost in an election.
        first.wait_until(lambda: first.delete("key1").status_code == 404, "rid of a key")
        nodes.kill_all()
        first.start()
        first.wait_until(lambda: answers(first, "/healthz"), "up on its own")
        assert first.request("GET", "/readyz").status_code == 503
        for node in others:
            node.start()
        for node in nodes.nodes:
            node.wait_ready()
            node.wait_until(
                lambda node=node: (
                    [node.get(f"key{each}") for each in range(3)] == [b"v", None, b"v"]
                ),
                "back with all that was written",
            )
        assert first.terminate() == 0
        assert "wal_closed" in first.log.read_text()
        assert "Traceback" not in first.log.read_text()


@pytest.mark.parametrize(
    ("kind", "status"), [(CommandNotAppliedError, 503), (CommandTimeoutError, 504)]
)
def test_it_tells_what_was_not_written_from_what_may_be(kind, status):
    response = asyncio.run(not_acknowledged(None, kind("put", reason="REASON")))
    assert response.status_code == status
    assert json.loads(response.body)["error"] == "REASON"


def answers(node: KVNodeProcess, path: str) -> bool:
    try:
        return node.request("GET", path).status_code == 200
    except httpx.TransportError:
        return False


@needs_prlimit
def test_it_serves_its_paths_and_says_what_is_wrong(alone: KVNodeProcess):
    assert alone.put("a/b", bytes(range(256))).status_code == 204
    assert alone.get("a/b") == bytes(range(256))
    assert alone.get("nothing") is None
    assert alone.put("large", bytes(MAX_VALUE_BYTES)).status_code == 204
    assert alone.put("large", bytes(MAX_VALUE_BYTES + 1)).status_code == 413
    assert alone.delete("large").status_code == 204
    assert alone.delete("large").status_code == 404
    assert alone.request("PUT", "/kv/%ff", b"").status_code == 400
    assert alone.request("POST", "/kv/a").status_code == 405
    assert alone.request("GET", "/healthz").text == "ok"
    assert alone.request("GET", "/readyz").text == "ok"
    assert f'raftwal_last_index{{node="{alone.raft_address}"}}' in alone.metrics()

    raft, http = free_addresses(2)
    command = [*alone.command[:3], "--http", http]
    refused = {
        reason: subprocess.Popen(
            [*command, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for arguments, reason in (
            (["--listen", raft, "--data-dir", str(alone.data_dir)], "LockedError: the log is"),
            (
                ["--listen", alone.raft_address, "--data-dir", f"{alone.data_dir}-2"],
                f"NodeNotReadyError: cannot listen on {alone.raft_address}",
            ),
            (["--listen", "nowhere", "--data-dir", "unused"], "not an address"),
        )
    }
    for reason, process in refused.items():
        _, printed = process.communicate(timeout=SECONDS)
        assert process.returncode > 0
        assert reason in printed
        assert "Traceback" not in printed
    assert not (ROOT / "unused").exists()

    assert alone.process is not None
    resource.prlimit(alone.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    response = alone.put("key", b"value")
    assert (response.status_code, response.json()["error"]) == (504, "UNKNOWN_OUTCOME")
    # 120 is Python's own status where the last words could not be written: its log is a file, too.
    assert alone.wait() in (1, 120)
