"""A node's life and what it says of itself, as PySyncObj documents it."""

from __future__ import annotations

import gzip
import logging
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading

import pytest
from clusters import fast_conf, free_addresses
from documented import DURABLE, Application, each_way
from pysyncobj import _RAFT_STATE, replicated

from raftwal.pysyncobj import DurableSyncObj

PER_NODE = ("partner_node_status_server_", "next_node_idx_server_", "match_idx_server_")
STATUS = {
    "version",
    "revision",
    "self",
    "state",
    "leader",
    "has_quorum",
    "partner_nodes_count",
    "readonly_nodes_count",
    "log_len",
    "last_applied",
    "commit_idx",
    "raft_term",
    "next_node_idx_count",
    "match_idx_count",
    "leader_commit_idx",
    "uptime",
    "self_code_version",
    "enabled_code_version",
}


class Words(Application):
    def begin(self):
        self.words = []

    @replicated
    def put(self, word):
        self.words.append(word)


@each_way
def test_the_status_has_all_that_pysyncobjs_has_and_the_storages_besides(way, tmp_path, caplog):
    with way.nodes(tmp_path, Words, size=3) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.call(leader.put, "a")
        others = [each for each in nodes.addresses if each != leader.selfNode.id]
        status = leader.getStatus()
        per_node = {f"{name}{other}" for name in PER_NODE for other in others}
        assert set(status) - {"storage_failure"} >= STATUS | per_node
        assert status["storage_failure"] is None
        assert status["self"] == status["leader"] == leader.selfNode
        assert status["state"] == _RAFT_STATE.LEADER
        assert status["has_quorum"] is True
        assert status["partner_nodes_count"] == 2
        assert status["raft_term"] == leader.raftCurrentTerm >= 1
        assert status["last_applied"] == leader.raftLastApplied == 3
        assert status["commit_idx"] == leader.raftCommitIndex == 3
        assert status["log_len"] == 3
        assert {status[f"match_idx_server_{other}"] for other in others} <= {2, 3}

        with caplog.at_level(logging.INFO, "pysyncobj.syncobj"):
            leader.printStatus()
        for key in STATUS | per_node | {"storage_failure"}:
            assert f"{key}: " in caplog.text


def test_ready_is_told_once_and_state_changes_as_they_come(tmp_path):
    told = []
    with DURABLE.nodes(tmp_path, Words, size=3, onReady=lambda: told.append("ready")) as nodes:
        for address in nodes.addresses:
            node = nodes.start(address)
            node.conf.onStateChanged = lambda old, new, a=address: told.append((a, old, new))
            assert not node.isReady()
        leader = nodes.wait_for_leader()
        nodes.tick_until(lambda: told.count("ready") == 3, "all to be in step")
        assert all(node.isReady() for node in nodes.nodes.values())
        nodes.call(leader.put, "a")
        assert told.count("ready") == 3
        its = [change[1:] for change in told if change[0] == leader.selfNode.id]
        assert its[-2:] == [
            (_RAFT_STATE.FOLLOWER, _RAFT_STATE.CANDIDATE),
            (_RAFT_STATE.CANDIDATE, _RAFT_STATE.LEADER),
        ]


def test_a_leader_without_its_majority_falls_back(tmp_path):
    with DURABLE.nodes(tmp_path, Words, size=2, leaderFallbackTimeout=0.1) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        nodes.tick_until(lambda: leader.isNodeConnected(follower.selfNode), "the connection")
        nodes.stop(follower.selfNode.id)
        nodes.tick_until(lambda: not leader._isLeader(), "the leader to fall back")
        nodes.tick_until(lambda: not leader.hasQuorum, "it to see that it is alone")
        assert not leader.isNodeConnected(follower.selfNode)


@each_way
def test_a_node_with_a_thread_of_its_own_binds_ticks_and_ends(way, tmp_path):
    with way.nodes(tmp_path, Words, autoTick=True, autoTickPeriod=0.005) as nodes:
        (address,) = nodes.addresses
        node = nodes.start(address)
        node.waitBinded()
        node.waitReady()
        assert node.tick_thread_alive()
        with pytest.raises(AssertionError):
            node.doTick()
        node.put("a", sync=True, timeout=30)
        nodes.nodes.clear()
        node.destroy_synchronous()
        assert not node.tick_thread_alive()
        # Its port and its directory are free.
        node = nodes.start(address)
        node.waitBinded()
        node.put("b", sync=True, timeout=30)
        assert node.words == ["a", "b"]


@pytest.fixture
def taken():
    """An address that another program listens on."""
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


TAKEN = """
    import sys
    from pathlib import Path
    from clusters import fast_conf, free_addresses
    from documented import WAYS
    from pysyncobj import SyncObjException
    from pysyncobj.transport import TransportNotReadyError

    def raised(call, *arguments):
        try:
            call(*arguments)
        except (SyncObjException, TransportNotReadyError) as error:
            return str(error) or type(error).__name__

    taken = sys.argv[1]
    for way in WAYS:
        with way.nodes(Path(way.name)) as nodes:
            def start(**conf):
                conf = fast_conf(bindRetryTime=0.01, **conf)
                return nodes.node_class(taken, [], nodes.data_dir(taken), conf)

            print(raised(lambda: start(maxBindRetries=2)))
            node = start(autoTick=True, maxBindRetries=1)
            print(raised(node.waitBinded), raised(node.waitReady))
            node.destroy_synchronous()
            # Nothing holds the directory.
            nodes.nodes[taken] = start(bindAddress=free_addresses(1)[0])
"""


def test_a_port_that_is_taken(tmp_path, taken):
    """It is tried for so often; then `waitBinded` says so, and the directory can be freed."""
    # In a process of its own: PySyncObj leaves each socket that it could not bind open.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TAKEN), taken],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "BindError\nBindError TransportNotReadyError\n" * 2
    assert "failed to perform initialization" in done.stderr


def test_a_bind_address_of_its_own(tmp_path):
    """The address that others know need not be the one that is listened on."""
    with DURABLE.nodes(tmp_path, Words) as nodes:
        (known,) = nodes.addresses
        (bound,) = free_addresses(1)
        nodes.start_with(known, [], bind=bound)
        host, port = bound.split(":")
        with socket.create_connection((host, int(port)), timeout=10):
            pass
        host, port = known.split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=10)
        assert nodes.nodes[known].selfNode.id == known


@pytest.mark.parametrize("poller", ["select", "poll"])
def test_either_poller(tmp_path, poller):
    with DURABLE.nodes(tmp_path, Words, size=2, pollerType=poller) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        nodes.call(nodes.wait_for_leader().put, "a")


def test_callbacks_of_each_tick_come_and_go(tmp_path):
    with DURABLE.nodes(tmp_path, Words) as nodes:
        node = nodes.start(nodes.addresses[0])
        ticks = []
        node.addOnTickCallback(tick := lambda: ticks.append(1))
        for expected in (1, 2, 3):
            node.doTick(0.0)
            assert len(ticks) == expected
        node.removeOnTickCallback(tick)
        node.removeOnTickCallback(tick)
        node.doTick(0.0)
        assert len(ticks) == 3


def test_a_tick_waits_for_what_happens_and_no_longer(tmp_path):
    """`doTick(seconds)` returns when something arrives."""
    with DURABLE.nodes(tmp_path, Words) as nodes:
        (address,) = nodes.addresses
        node = nodes.start(address)
        nodes.call(node.put, "a")
        host, port = address.split(":")
        arrives = threading.Timer(
            0.05, lambda: socket.create_connection((host, int(port)), timeout=10).close()
        )
        arrives.start()
        node.doTick(60.0)
        arrives.join()


def test_a_configuration_stays_the_applications_own(tmp_path, caplog):
    """What is set later counts; what is read is what was set; no dump of that name is loaded."""
    journal, dump = str(tmp_path / "journal"), tmp_path / "dump"
    with DURABLE.nodes(tmp_path, Words) as nodes:
        (address,) = nodes.addresses
        for word in ("a", "b"):
            conf = fast_conf(journalFile=journal, fullDumpFile=str(dump))
            node = nodes.nodes[address] = nodes.node_class(address, [], tmp_path / "node", conf)
            assert node.conf is conf
            assert (conf.journalFile, conf.fullDumpFile) == (journal, str(dump))
            ready = []
            conf.onReady = lambda told=ready: told.append(1)
            nodes.tick_until(lambda told=ready: bool(told), "the callback that was set later")
            nodes.call(node.put, word)
            nodes.stop(address)
            # PySyncObj's own, of another state, before the second start.
            state = {"words": ["wrong"], "_SyncObj__enabledCodeVersion": 0}
            content = (state, (b"\1", 90, 1), (b"\1", 89, 1), set())
            dump.write_bytes(gzip.compress(pickle.dumps(content)))
        assert node.words == ["a", "b"]
        assert not (tmp_path / "journal").exists()
    assert "failed to load full dump" not in caplog.text


def test_the_documented_example(tmp_path):
    """PySyncObj's first one, with a directory."""

    class MyCounter(DurableSyncObj):
        def __init__(self, address):
            super().__init__(address, [], fast_conf(autoTick=True), data_dir=tmp_path / "node")
            self.__counter = 0

        @replicated
        def incCounter(self):
            self.__counter += 1

        def getCounter(self):
            return self.__counter

    (address,) = free_addresses(1)
    for expected in (1, 2):
        counter = MyCounter(address)
        counter.incCounter(sync=True, timeout=30)
        assert counter.getCounter() == expected
        counter.destroy_synchronous()
