"""The kvstore example: real node processes on loopback, asked over HTTP."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from examples.demo.cluster import KVCluster, KVNodeProcess, free_addresses
from examples.demo.fsyncs import fsyncs_of
from examples.kvstore.api import MAX_KEY_BYTES
from examples.kvstore.store import MAX_VALUE_BYTES

ROOT = Path(__file__).parents[1]
OPTIONS = ["--snapshot-entries", "20", "--segment-bytes", "65536", "--write-timeout", "3"]
needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux has prlimit")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KVCluster]:
    """Three nodes that are all up, for the tests that leave them so."""
    with KVCluster(tmp_path_factory.mktemp("kvstore"), options=OPTIONS) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KVCluster]:
    """Three nodes for a test that kills some."""
    with KVCluster(tmp_path, options=OPTIONS) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[KVNodeProcess]:
    """A cluster of one node."""
    with KVCluster(tmp_path, size=1, options=OPTIONS) as cluster:
        cluster.start()
        yield cluster.nodes[0]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.kvstore", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_node_serves_writes_and_deletes(running):
    leader = running.wait_for_leader()
    roles = set()
    for node in running.nodes:
        roles.add(node.status()["role"])
        assert node.put(f"from/{node.name}", node.name.encode()).status_code == 204
        assert node.get(f"from/{node.name}") == node.name.encode(), "it reads its own write"
    assert roles == {"leader", "follower"}
    running.wait_in_step()
    for node in running.nodes:
        assert {each.get(f"from/{node.name}") for each in running.nodes} == {node.name.encode()}
        assert node.delete(f"from/{node.name}").status_code == 204
        assert node.get(f"from/{node.name}") is None
    running.wait_in_step()
    assert leader.get("from/node1") is None


def test_values_are_bytes_and_keys_any_text(running):
    node = running.nodes[0]
    for key in ("a", "a//b", "a b?c#d%", "é/☃", "k" * MAX_KEY_BYTES):
        for value in (b"", bytes(range(256)), b"\r\n"):
            assert node.put(key, value).status_code == 204
            assert node.get(key) == value
    response = node.request("GET", "/kv/a")
    assert response.headers["content-type"] == "application/octet-stream"


def test_what_is_not_there_is_404(running):
    response = running.nodes[0].request("GET", "/kv/nothing")
    assert (response.status_code, response.json()) == (404, {"error": "NO_SUCH_KEY"})
    assert running.nodes[0].request("GET", "/other").status_code == 404
    assert running.nodes[0].request("POST", "/kv/a").status_code == 405


def test_a_key_that_is_too_long_or_not_utf8_is_400(running):
    node = running.nodes[0]
    response = node.put("é" * (MAX_KEY_BYTES // 2) + "e", b"")
    assert (response.status_code, response.json()["error"]) == (400, "KEY_TOO_LONG")
    response = node.request("PUT", "/kv/%ff", b"")
    assert (response.status_code, response.json()["error"]) == (400, "KEY_NOT_UTF8")


def test_a_value_that_is_too_large_is_413(running):
    node = running.nodes[0]
    largest = b"x" * MAX_VALUE_BYTES
    assert node.put("large", largest).status_code == 204
    assert node.get("large") == largest
    assert node.put("large", largest + b"x").status_code == 413
    assert node.get("large") == largest
    running.wait_in_step()
    assert [each.get("large") == largest for each in running.nodes] == [True] * 3


def test_status_says_who_leads_and_how_far_it_is(running):
    running.nodes[0].put("status", b"1")
    running.wait_in_step()
    statuses = [node.status() for node in running.nodes]
    leader = running.wait_for_leader()
    assert {status["leader"] for status in statuses} == {leader.raft_address}
    assert len({status["last_applied"] for status in statuses}) == 1
    assert len({status["keys"] for status in statuses}) == 1
    for node, status in zip(running.nodes, statuses, strict=True):
        assert status["self"] == node.raft_address
        assert status["data_dir"] == str(node.data_dir)
        assert status["storage_failure"] is None
        assert status["partner_nodes_count"] == 2
        recovered = status["recovered"]
        assert (recovered["snapshot_index"], recovered["entries"]) == (0, 0)
        assert (recovered["repaired"], recovered["seconds"] > 0) == (False, True)


def test_metrics_count_the_fsyncs_of_this_node(running):
    node = running.nodes[0]
    before = fsyncs_of(node.metrics())
    node.put("metrics", b"1")
    after = fsyncs_of(node.metrics())
    assert after.total > before.total
    assert 0 < after.p50_seconds <= after.p99_seconds
    assert f'raftwal_last_index{{node="{node.raft_address}"}}' in node.metrics()


def test_healthy_and_ready(running):
    for path in ("/healthz", "/readyz"):
        for node in running.nodes:
            assert node.request("GET", path).status_code == 200


def test_without_a_majority_no_write_succeeds(cluster):
    leader = cluster.wait_for_leader()
    followers = [node for node in cluster.nodes if node is not leader]
    assert leader.put("before", b"1").status_code == 204
    for node in followers:
        node.kill()
    for command in (lambda: leader.put("during", b"2"), lambda: leader.delete("before")):
        response = command()
        assert response.status_code in {503, 504}
        assert response.json()["error"]
    assert leader.get("before") == b"1", "what was committed is still read"
    assert leader.get("during") is None
    leader.wait_until(
        lambda: leader.request("GET", "/readyz").status_code == 503, "not ready alone"
    )
    assert leader.request("GET", "/healthz").status_code == 200, "a restart would not help"
    for node in followers:
        node.start()
    cluster.wait_ready()
    assert leader.put("after", b"3").status_code == 204


def test_a_write_waits_for_an_election(cluster):
    leader = cluster.wait_for_leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    leader.kill()
    # Sent to the dead leader, a write is refused when another is elected; after that
    # the follower knows whom to ask.
    follower.wait_until(lambda: follower.put("key", b"value").status_code == 204, "writable")
    assert follower.get("key") == b"value"


def test_answered_writes_survive_kill_9_of_all(cluster):
    writes = {f"key{number}": str(number).encode() for number in range(50)}
    for number, (key, value) in enumerate(writes.items()):
        assert cluster.nodes[number % 3].put(key, value).status_code == 204
    assert cluster.nodes[1].delete("key7").status_code == 204
    del writes["key7"]
    cluster.kill_all()
    cluster.start()
    cluster.wait_in_step()
    for node in cluster.nodes:
        assert {key: node.get(key) for key in writes} == writes
        assert node.get("key7") is None
        recovered = node.status()["recovered"]
        assert recovered["snapshot_index"] > 0, "the log was longer than --snapshot-entries"
        assert recovered["entries"] > 0


def test_a_node_whose_directory_is_lost_gets_everything_from_its_peers(cluster):
    lost = next(node for node in cluster.nodes if node is not cluster.wait_for_leader())
    for number in range(50):
        assert cluster.nodes[number % 3].put(f"key{number}", b"value").status_code == 204
    lost.kill()
    lost.data_dir.rename(lost.data_dir.with_name("lost"))
    lost.start()
    cluster.wait_ready()
    cluster.wait_in_step()
    assert {lost.get(f"key{number}") for number in range(50)} == {b"value"}


def test_sigterm_ends_it_in_good_order(alone):
    assert alone.put("key", b"value").status_code == 204
    assert alone.terminate() == 0
    assert "event=wal_closed" in alone.log_tail()
    assert "Traceback" not in alone.log.read_text()
    alone.start()
    alone.wait_ready()
    assert alone.get("key") == b"value"


def test_sigint_ends_it_in_good_order(alone):
    alone.send_signal(signal.SIGINT)
    assert alone.wait() == 0
    assert "Traceback" not in alone.log.read_text()


def test_bad_arguments():
    good = ["--listen", "127.0.0.1:1", "--http", "127.0.0.1:2", "--data-dir", "unused"]
    for arguments in (
        [],
        [*good, "--listen", "nowhere"],
        [*good, "--http", "127.0.0.1:0"],
        [*good, "--partner", "host:port"],
        [*good, "--snapshot-entries", "1"],
        [*good, "--write-timeout", "nan"],
        [*good, "--write-timeout", "soon"],
    ):
        outcome = run(*arguments)
        assert outcome.returncode == 2
        assert outcome.stderr.startswith("usage: ")
    assert not (ROOT / "unused").exists()


def test_help_explains_the_api():
    outcome = run("--help")
    assert outcome.returncode == 0
    for word in ("/kv/KEY", "/status", "/metrics", "--partner", "committed"):
        assert word in outcome.stdout


def test_a_second_node_on_the_same_directory_is_refused(alone):
    raft, http = free_addresses(2)
    outcome = run("--listen", raft, "--http", http, "--data-dir", str(alone.data_dir))
    assert outcome.returncode == 1
    assert "kvstore: " in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert alone.put("key", b"value").status_code == 204, "the first is not disturbed"


def test_a_directory_of_another_cluster_is_refused(alone):
    assert alone.terminate() == 0
    outcome = run(*alone.command[3:], "--cluster-name", "other")
    assert outcome.returncode == 1
    assert "'kvstore', not 'other'" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("taken", ["--listen", "--http"])
def test_an_address_that_is_taken_is_refused(tmp_path, taken):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        free = free_addresses(2)
        addresses = {"--listen": free[0], "--http": free[1]}
        addresses[taken] = f"127.0.0.1:{other.getsockname()[1]}"
        arguments = [word for pair in addresses.items() for word in pair]
        outcome = run(*arguments, "--data-dir", str(tmp_path / "data"))
    assert outcome.returncode == 1
    assert f"cannot listen on {addresses[taken]}" in outcome.stderr


def test_a_node_that_is_down_cannot_be_reached(alone):
    alone.kill()
    with pytest.raises(httpx.TransportError):
        alone.put("key", b"value")


def break_storage(node: KVNodeProcess) -> None:
    """Every write to a file fails from now on: the limit on its size is 0."""
    assert node.process is not None
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, 0))


@needs_prlimit
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_node_whose_storage_failed_says_so_and_the_others_go_on(cluster, role):
    cluster.wait_for_leader()
    cluster.wait_in_step()
    broken = next(node for node in cluster.nodes if node.status()["role"] == role)
    other = next(node for node in cluster.nodes if node is not broken)
    break_storage(broken)
    other.wait_until(lambda: other.put("key", b"1").status_code == 204, "writable")
    broken.wait_until(lambda: broken.request("GET", "/healthz").status_code == 503, "unhealthy")
    reason = broken.request("GET", "/healthz").text
    assert reason.startswith("storage failed: ")
    assert str(broken.data_dir) in reason
    assert broken.request("GET", "/readyz").status_code == 503
    response = broken.put("key", b"2")
    assert (response.status_code, response.json()["error"]) == (503, "STORAGE_FAILED")
    assert broken.status()["storage_failure"] in reason
    broken.kill()
    broken.start()
    cluster.wait_ready()
    broken.wait_until(lambda: broken.put("key", b"3").status_code == 204, "writable again")


@needs_prlimit
def test_it_exits_when_its_storage_fails_if_told_to(tmp_path):
    with KVCluster(tmp_path, size=1, options=["--exit-on-storage-failure"]) as cluster:
        cluster.start()
        (node,) = cluster.nodes
        break_storage(node)
        # Its exit and its answer race; the answer, if there is one, is no acknowledgement.
        with contextlib.suppress(httpx.TransportError):
            assert node.put("key", b"value").status_code == 503
        assert node.wait() == 1
