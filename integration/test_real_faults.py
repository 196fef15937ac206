"""Real faults in real nodes' system calls: the node stops or dies, the other two go on.

Most tests share one cluster, each with a fault of its own: what was acknowledged before the
first must still be there behind the last.
"""

from __future__ import annotations

import os
import re
import signal
from errno import EIO, ENOSPC, errorcode

import pytest
from faulty_nodes import (
    FaultyCluster,
    hook_calls,
    is_healthy,
    is_serving,
    last_words,
    promises_of,
)
from injected_faults import but_zeros_ahead, require_ptrace, sent_to, written_or_synced

from raftwal import WAL, Snapshotter

# A call that fails takes this long, in microseconds: time for much to come up meanwhile.
BEFORE_IT_FAILS = 500_000
SEGMENT_BYTES = str(1 << 15)


@pytest.fixture(scope="module")
def kept():
    """The cluster that the tests hand on, unless one leaves it broken."""
    require_ptrace()
    clusters: list[FaultyCluster] = []
    yield clusters
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def nodes(kept, tmp_path_factory):
    if kept and not kept[0].is_sound:
        kept.pop().close()
    if not kept:
        options = ["--segment-bytes", SEGMENT_BYTES, "--snapshot-entries", "1000000"]
        kept.append(FaultyCluster(tmp_path_factory.mktemp("nodes"), options))
        kept[0].start()
    return kept[0]


def fault(call: str, code: int, when: str) -> str:
    return f"{call}:error={errorcode[code]}:delay_enter={BEFORE_IT_FAILS}:when={when}"


@pytest.mark.parametrize(
    ("role", "call", "code", "when"),
    [
        pytest.param("leader", "fdatasync", EIO, "1", id="leader's next data sync"),
        pytest.param("follower", "fdatasync", EIO, "7", id="follower's seventh data sync"),
        pytest.param("leader", "fdatasync", ENOSPC, "7", id="leader's seventh data sync, no space"),
        pytest.param("follower", "fdatasync", ENOSPC, "1", id="follower's, no space"),
        # The three syncs of the thread that saves, each time that a segment is full: room for
        # the save that goes beyond it, the full segment, the directory with the new one.
        pytest.param("leader", "fsync", EIO, "1", id="leader's room beyond a segment"),
        pytest.param("follower", "fsync", EIO, "2", id="follower's cut of a segment"),
        pytest.param("leader", "fsync", EIO, "3", id="leader's directory at a cut"),
        pytest.param("leader", "pwrite64", ENOSPC, "3", id="leader's write, no space"),
        pytest.param("follower", "pwrite64", EIO, "3", id="follower's write"),
        pytest.param("leader", "fallocate", ENOSPC, "1+", id="leader's next segment, no space"),
    ],
)
def test_a_call_that_fails_is_final_and_the_others_go_on(nodes, role, call, code, when):
    with nodes.clients() as clients:
        node = nodes.of_role(role)
        others = nodes.others(node)
        clients.wait_for_acknowledged(3, nodes.nodes)
        hooks = len(hook_calls(node))
        with nodes.faults_in(node, fault(call, code, when)) as faults:
            reason = nodes.wait_until_failed(node)
            noticed = faults.position()
            assert os.strerror(code) in reason
            node.wait_until(lambda: node.status()["role"] == "follower", "no leader")
            nodes.wait_for_leader_besides(node)
            clients.wait_for_acknowledged(10, others)
            assert node.request("GET", "/healthz").text == reason, "the first reason stays"
            assert node.terminate() == 0
        assert os.strerror(code) in faults.injected()[-1]
        behind = faults.after_the_last()
        # Between the call and that, what promises nothing may have left: heartbeats.
        addresses = [each.raft_address for each in nodes.nodes]
        assert sent_to(faults.since(noticed), addresses) == []
        assert written_or_synced(faults.since(noticed), node.data_dir) == []
        # Before that, zeros may have been on their way, in a thread that had not learned of it.
        again = but_zeros_ahead(written_or_synced(behind, node.data_dir))
        assert again == [], "nothing is tried again"
        assert len(hook_calls(node)) == hooks + 1
        refused = clients.refused_by(node)
    # What was under way when the call failed, if anything was: the cluster does not wait for one
    # disk.  And what came later.
    assert {each.status for each in refused} == {503}, refused
    reasons = {each.reason for each in refused}
    assert reasons <= {"UNKNOWN_OUTCOME", "REQUEST_DENIED", "STORAGE_FAILED"}
    assert "STORAGE_FAILED" in reasons
    nodes.check_disk(node)
    node.start()
    nodes.check()


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_disk_that_syncs_for_two_seconds_changes_no_leader_and_loses_nothing(nodes, role):
    with nodes.clients() as clients:
        node = nodes.of_role(role)
        leader = nodes.wait_for_leader()
        term = leader.status()["raft_term"]
        since = node.log.stat().st_size
        clients.wait_for_acknowledged(3, nodes.nodes)
        with nodes.faults_in(node, "fdatasync:delay_enter=2000000"):
            node.wait_until(lambda: last_words(node, since).count("wal_slow_sync") >= 2, "slow", 60)
            clients.wait_for_acknowledged(5, nodes.others(node))
            assert nodes.wait_for_leader() is leader
            assert leader.status()["raft_term"] == term
            assert is_healthy(node)
        clients.wait_for_acknowledged(3, nodes.nodes)
    slow = re.search(r"fsync_duration_seconds_sum\{.*\} (\S+)", node.metrics())
    assert float(slow[1]) >= 2
    nodes.check()


@pytest.mark.parametrize(
    ("role", "call", "when"),
    [
        pytest.param("leader", "fdatasync", "1", id="leader's next data sync"),
        pytest.param("follower", "fdatasync", "2", id="follower's second data sync"),
        pytest.param("leader", "fdatasync", "20", id="leader's twentieth data sync"),
        pytest.param("follower", "pwrite64", "5", id="follower's fifth write"),
        pytest.param("leader", "fsync", "1", id="leader's room beyond a segment"),
        pytest.param("follower", "fsync", "2", id="follower's cut of a segment"),
        pytest.param("leader", "fsync", "3", id="leader's directory at a cut"),
    ],
)
def test_killed_at_a_call_it_comes_back_with_everything(nodes, role, call, when):
    with nodes.clients() as clients:
        node = nodes.of_role(role)
        clients.wait_for_acknowledged(3, nodes.nodes)
        with nodes.faults_in(node, f"{call}:signal=KILL:when={when}"):
            assert node.wait(60) == -signal.SIGKILL
        clients.wait_for_acknowledged(5, nodes.others(node))
        nodes.check_disk(node)
        node.start()
        node.wait_ready()
        clients.wait_for_acknowledged(3, nodes.nodes)
    nodes.check()


def test_a_start_that_fails_or_is_killed_at_any_sync_spoils_nothing(nodes):
    """The syncs of recovery: the last segment, the log's directory, the one above it."""
    with nodes.clients() as clients:
        node = nodes.of_role("follower")
        clients.wait_for_acknowledged(3, nodes.nodes)
        assert node.terminate() == 0
        for number in range(1, 4):
            since = node.log.stat().st_size
            nodes.start_with_faults_in(node, f"fsync:error=EIO:when={number}")
            assert node.wait() == 1
            said = last_words(node, since)
            assert "Traceback" not in said
            assert re.fullmatch(rf"kvstore: .*{os.strerror(EIO)}.*", said.splitlines()[-1])
            nodes.start_with_faults_in(node, f"fsync:signal=KILL:when={number}")
            assert node.wait() == -signal.SIGKILL
            nodes.check_disk(node)
        node.start()
    nodes.check()


def test_a_leader_that_was_stopped_and_goes_on_leads_no_more(nodes):
    """SIGSTOP until another leads and is written to, then SIGCONT."""
    with nodes.clients() as clients:
        node = nodes.of_role("leader")
        others = nodes.others(node)
        clients.wait_for_acknowledged(3, nodes.nodes)
        node.send_signal(signal.SIGSTOP)
        try:
            successor = nodes.wait_for_leader_besides(node)
            clients.wait_for_acknowledged(20, others)
            term = successor.status()["raft_term"]
        finally:
            node.send_signal(signal.SIGCONT)
        node.wait_until(lambda: node.status()["raft_term"] >= term, "in the new term")
        sent = [p["leads_in"] for p in promises_of(node) if "leads_in" in p]
        assert term not in sent
        # Those that it left waiting are answered too: theirs is the next answer.
        clients.wait_for_acknowledged(3, nodes.nodes)
    assert {each.status for each in clients.refused_by(node)} <= {503}
    assert is_healthy(node)
    nodes.check()


@pytest.fixture
def snapshotting(tmp_path):
    """Nodes that take a snapshot every 150 entries, and never cut a segment."""
    require_ptrace()
    options = ["--segment-bytes", str(8 << 20), "--snapshot-entries", "150"]
    with FaultyCluster(tmp_path, options) as cluster:
        cluster.start()
        yield cluster


@pytest.mark.parametrize("when", ["1", "2"], ids=["its file", "its directory"])
def test_a_snapshot_whose_sync_fails_counts_for_nothing_and_the_node_goes_on(snapshotting, when):
    """Nothing depends on it: the log has everything that the snapshot would have replaced."""
    nodes = snapshotting
    with nodes.clients() as clients:
        node = nodes.of_role("leader")
        with nodes.faults_in(node, f"fsync:error=EIO:when={when}"):
            node.wait_until(lambda: "event=snapshot_failed" in last_words(node, 0), "without one")
            clients.wait_for_acknowledged(5, nodes.nodes)
            assert is_healthy(node)
            assert snapshots_of(node) == []
        node.kill()
        clients.wait_for_acknowledged(5, nodes.others(node))
        nodes.check_disk(node)
        node.start()
        node.wait_ready()
        assert node.status()["recovered"]["snapshot_index"] == 0
        node.wait_until(lambda: snapshots_of(node) != [], "with a snapshot")
    nodes.check()


def test_a_follower_that_cannot_sync_the_snapshot_it_is_sent_is_sent_it_again(snapshotting):
    """Nothing was promised on it yet: the transfer is lost, not the node."""
    nodes = snapshotting
    with nodes.clients() as clients:
        node = nodes.of_role("follower")
        others = nodes.others(node)
        clients.wait_for_acknowledged(3, nodes.nodes)
        assert node.terminate() == 0
        last = node_last_index(node)
        for each in others:
            each.wait_until(lambda each=each: newest_snapshot_of(each) > last, "far ahead", 60)
    since = node.log.stat().st_size
    try:
        for each in others:
            each.send_signal(signal.SIGSTOP)
        node.start()
        node.wait_until(lambda: is_serving(node), "serving")
        # Of each thread that began by now: the one that writes it has none behind it.
        with nodes.faults_in(node, "fsync:error=EIO:when=1") as faults:
            for each in others:
                each.send_signal(signal.SIGCONT)
            node.wait_until(
                lambda: "event=snapshot_not_installed" in last_words(node, since), "refused", 60
            )
        assert faults.injected()
        assert is_healthy(node)
    finally:
        for each in others:
            each.send_signal(signal.SIGCONT)
    node.wait_until(lambda: "event=snapshot_installed" in last_words(node, since), "sent again", 60)
    nodes.check()


def node_last_index(node) -> int:
    with WAL.open_for_read(node.data_dir / "wal") as wal:
        return wal.read_all().entries[-1].index


def snapshots_of(node) -> list[str]:
    return [path.name for path in (node.data_dir / "snap").iterdir()]


def newest_snapshot_of(node) -> int:
    """Its index; 0 without one."""
    names = Snapshotter(node.data_dir / "snap").names()
    return max((name.index for name in names), default=0)
