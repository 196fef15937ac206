"""``syncobj_admin``, as a process of its own, against running nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time

from clusters import free_addresses
from documented import DURABLE, Application
from pysyncobj import replicated

# Beside the interpreter that has PySyncObj.
ADMIN = os.path.join(sysconfig.get_path("scripts"), "syncobj_admin")

# Nodes with threads of their own: an election that nobody asked for would disturb.
CONF = {
    "autoTick": True,
    "autoTickPeriod": 0.005,
    "raftMinTimeout": 1.0,
    "raftMaxTimeout": 1.4,
    "dynamicMembershipChange": True,
}


class Words(Application):
    def begin(self):
        self.words = []

    @replicated
    def put(self, word):
        self.words.append(word)

    @replicated(ver=1)
    def put(self, word):  # noqa: F811  # how PySyncObj has a method's next version
        self.words.append(word.upper())


def admin(address, *arguments):
    done = subprocess.run(
        [sys.executable, ADMIN, "-conn", address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline


def test_the_administrators_tool(tmp_path):
    """Each of its commands; `integration/test_pysyncobj_admin.py` has what refuses them."""
    with DURABLE.nodes(tmp_path, Words, size=2, **CONF) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        nodes.nodes[nodes.addresses[0]].put("a", sync=True, timeout=30)
        leader = nodes.leader
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        leads, follows = leader.selfNode.id, follower.selfNode.id

        status = dict(line.split(": ", 1) for line in admin(follows, "-status").splitlines())
        assert status["self"] == follows
        assert status["leader"] == leads
        assert status["partner_node_status_server_" + leads] == "2"
        assert status["storage_failure"] == "None"

        (new,) = free_addresses(1)
        assert admin(leads, "-add", new) == f"SUCCESS ADD {new}"
        assert len(leader.otherNodes) == 2
        assert admin(follows, "-remove", new) == f"SUCCESS REMOVE {new}"
        assert len(leader.otherNodes) == 1

        assert admin(leads, "-set_version", "1") == "SUCCESS SET_VERSION 1"
        follower.put("b", sync=True, timeout=30)
        assert follower.words == ["a", "B"]

        # It has to be in step: it is, once its last acknowledgement is in.
        wait_until(lambda: admin(leads, "-transfer", follows) == f"SUCCESS TRANSFER {follows}")
        wait_until(follower._isLeader)
