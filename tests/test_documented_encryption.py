"""Sessions encrypted with a password, as PySyncObj documents them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pysyncobj.syncobj
import pytest
from documented import DURABLE, INSTALLED, Application, each_way
from pysyncobj import TcpUtility, replicated

has_cryptography = importlib.util.find_spec("cryptography") is not None
# The test extra has it: only a user's own environment may be without.
needs_cryptography = pytest.mark.skipif(
    not has_cryptography and not os.environ.get("CI"), reason="cryptography is not installed"
)


class Words(Application):
    def begin(self):
        self.words = []

    @replicated
    def put(self, word):
        self.words.append(word)


@needs_cryptography
def test_nodes_with_one_password_talk_and_come_back(tmp_path):
    with INSTALLED.nodes(tmp_path, Words, size=2, password="secret") as nodes:
        for expected in (["a"], ["a", "b"]):
            for address in nodes.addresses:
                nodes.start(address)
            leader = nodes.wait_for_leader()
            nodes.call(leader.put, expected[-1])
            nodes.tick_until(
                lambda words=expected: all(n.words == words for n in nodes.nodes.values()),
                "both to have it",
            )
            nodes.stop_all()


@needs_cryptography
@pytest.mark.parametrize("password", ["wrong", None])
def test_a_node_with_another_password_or_none_does_not_join(tmp_path, password):
    with DURABLE.nodes(tmp_path, Words, size=3, password="secret") as nodes:
        # The highest address connects to the others: it can be counted how often it tries.
        nodes.addresses.sort()
        *members, stranger_address = nodes.addresses
        for address in members:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.conf["password"] = password
        stranger = nodes.start(stranger_address)
        transport = stranger._SyncObj__transport
        tried = {}

        def has_tried_often():
            for node, at in transport._lastConnectAttempt.items():
                tried.setdefault(node.id, set()).add(at)
            return all(len(tried.get(member, ())) > 3 for member in members)

        nodes.tick_until(has_tried_often, "the stranger to try again and again")
        nodes.call(leader.put, "a")
        assert stranger.words == []
        assert stranger._getLeader() is None
        assert not stranger.isReady()
        assert stranger.raftCommitIndex == 1
        for member in members:
            assert not nodes.nodes[member].isNodeConnected(stranger.selfNode)


@needs_cryptography
def test_the_administrators_tool_needs_the_password(tmp_path):
    conf = {"password": "secret", "autoTick": True, "autoTickPeriod": 0.005}
    with DURABLE.nodes(tmp_path, Words, **conf) as nodes:
        (address,) = nodes.addresses
        nodes.start(address).put("a", sync=True, timeout=30)

        def admin(*arguments):
            return subprocess.run(
                [sys.executable, "-m", "pysyncobj.syncobj_admin", "-conn", address, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout

        assert "last_applied: 3\n" in admin("-status", "-pass", "secret")
        assert admin("-status", "-pass", "wrong") == "connection lost\n"
        assert admin("-status") == "connection lost\n"
        assert TcpUtility("secret", timeout=30).executeCommand(address, ["status"])["state"] == 2


@each_way
def test_without_the_cryptography_package_a_password_is_refused(way, tmp_path, monkeypatch):
    monkeypatch.setattr(pysyncobj.syncobj, "HAS_CRYPTO", False)
    with way.nodes(tmp_path, Words) as nodes:
        nodes.conf["password"] = "secret"
        with pytest.raises(ImportError, match="cryptography"):
            nodes.start(nodes.addresses[0])
        # Nothing is left open.
        nodes.conf["password"] = None
        nodes.start(nodes.addresses[0])
