"""Code versions, as PySyncObj documents them for updates without downtime."""

from __future__ import annotations

import pytest
from documented import DURABLE, Application, each_way
from pysyncobj import FAIL_REASON, SyncObjConsumer, replicated


class First(Application):
    """The application as it was: a list of words."""

    def begin(self):
        self.words = []
        self.changes = []
        self.conf.onCodeVersionChanged = self.migrate

    def migrate(self, old, new):
        pass

    @replicated
    def put(self, word):
        self.words.append(word)


class Second(First):
    """As it is now: its words are in capitals, in what was there as well."""

    def migrate(self, old, new):
        self.changes.append((old, new))
        self.words = [word.upper() for word in self.words]

    @replicated
    def put(self, word):
        self.words.append(word)

    @replicated(ver=1)
    def put(self, word):  # noqa: F811  # how PySyncObj has a method's next version
        self.words.append(word.upper())

    @replicated(ver=1)
    def clear(self):
        self.words = []


class Counting(SyncObjConsumer):
    """A consumer with a version more than the application."""

    def __init__(self):
        super().__init__()
        self.count = 0

    @replicated
    def add(self, number):
        self.count += number

    @replicated(ver=2)
    def add(self, number):  # noqa: F811  # how PySyncObj has a method's next version
        self.count += 10 * number


@each_way
def test_a_new_version_is_in_force_from_its_command_on(way, tmp_path):
    with way.nodes(tmp_path, Second) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.call(node.put, "a")
        assert node.getCodeVersion() == 0
        answers = []
        node.setCodeVersion(1, callback=lambda *answer: answers.append(answer))
        nodes.tick_until(lambda: bool(answers), "the answer")
        assert answers == [(None, FAIL_REASON.SUCCESS)]
        assert node.getCodeVersion() == 1
        assert node.getStatus()["self_code_version"] == 1
        assert node.getStatus()["enabled_code_version"] == 1
        nodes.call(node.put, "b")
        assert node.words == ["A", "B"]
        assert node.changes == [(0, 1)]


@each_way
def test_a_version_that_this_code_does_not_have_or_that_is_past_is_refused(way, tmp_path):
    with way.nodes(tmp_path, Second) as nodes:
        node = nodes.start(nodes.addresses[0])
        with pytest.raises(Exception, match="wrong version, current version is 1"):
            node.setCodeVersion(2)
        nodes.call(node.setCodeVersion, 1)
        with pytest.raises(Exception, match="wrong version, enabled version is 1"):
            node.setCodeVersion(0)


@each_way
def test_after_a_restart_from_the_log_the_change_is_made_again_where_it_was(way, tmp_path):
    with way.nodes(tmp_path, Second) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.call(node.put, "a")
        nodes.call(node.setCodeVersion, 1)
        nodes.call(node.put, "b")
        node = nodes.ready(nodes.restart(nodes.addresses[0]))
        assert node.words == ["A", "B"]
        assert node.changes == [(0, 1)]
        assert node.getCodeVersion() == 1
        nodes.call(node.put, "c")
        assert node.words == ["A", "B", "C"]


@each_way
def test_after_a_restart_from_a_snapshot_the_version_is_still_in_force(way, tmp_path):
    """PySyncObj alone would know the version, and call the methods of version 0."""
    with way.nodes(tmp_path, Second) as nodes:
        (address,) = nodes.addresses
        counting = Counting()
        node = nodes.start(address, consumers=[counting])
        nodes.call(node.put, "a")
        nodes.call(counting.add, 1)
        nodes.call(node.setCodeVersion, 2)
        nodes.call(counting.add, 1)
        nodes.compact(node)
        counting = Counting()
        node = nodes.ready(nodes.restart(address, consumers=[counting]))
        assert node.getCodeVersion() == 2
        assert counting.count == 11
        nodes.call(node.put, "b")
        nodes.call(counting.add, 1)
        assert node.words == ["A", "B"]
        assert counting.count == 21
        with pytest.raises(Exception, match="enabled version is 2"):
            node.setCodeVersion(1)


def test_a_cluster_is_updated_one_node_at_a_time(tmp_path):
    """Old code, new code on each node in turn, then the new version; on every node alike."""
    with DURABLE.nodes(tmp_path, First, size=3) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.call(leader.put, "a")
        nodes.node_class = DURABLE.node_class(Second)
        for address in nodes.addresses:
            nodes.restart(address)
            nodes.call(nodes.wait_for_leader().put, "b")
        every = list(nodes.nodes.values())
        nodes.tick_until(lambda: all(len(node.words) == 4 for node in every), "all words")
        assert all(node.words == ["a", "b", "b", "b"] for node in every)
        follower = next(node for node in every if not node._isLeader())
        nodes.call(follower.setCodeVersion, 1)
        nodes.call(follower.put, "c")
        nodes.tick_until(lambda: all(len(node.words) == 5 for node in every), "all words")
        assert all(node.words == ["A", "B", "B", "B", "C"] for node in every)
        assert all(node.changes == [(0, 1)] for node in every)


def test_a_node_that_is_sent_a_snapshot_has_its_version_in_force(tmp_path):
    with DURABLE.nodes(tmp_path, Second, size=3) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        behind = next(a for a in nodes.addresses if a != leader.selfNode.id)
        nodes.stop(behind)
        nodes.call(leader.setCodeVersion, 1)
        for word in "abcdef":
            nodes.call(leader.put, word)
        for node in nodes.nodes.values():
            nodes.compact(node)
        node = nodes.start(behind)
        nodes.tick_until(lambda: node.words == list("ABCDEF"), "the snapshot")
        assert node._durable_node.storage.snapshot_metadata.index > 6, "it was sent the entries"
        nodes.call(node.put, "g")
        assert node.words == list("ABCDEFG")


def test_a_node_with_old_code_waits_at_the_new_version_until_it_is_updated(tmp_path, caplog):
    with DURABLE.nodes(tmp_path, Second, size=3) as nodes:
        old = nodes.addresses[2]
        for address in nodes.addresses[:2]:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.node_class = DURABLE.node_class(First)
        late = nodes.start(old)
        nodes.call(leader.put, "a")
        nodes.tick_until(lambda: late.words == ["a"], "the node with old code to follow")
        assert late.ready() is None
        # It is told of the version and of what is behind it at once.
        del nodes.nodes[old]
        nodes.call(leader.setCodeVersion, 1)
        nodes.call(leader.put, "b")
        nodes.nodes[old] = late
        nodes.tick_until(
            lambda: late.raftCommitIndex == leader.raftCommitIndex, "the entries to arrive"
        )
        nodes.tick_until(lambda: "unsupported code version" in caplog.text, "the complaint")
        for _ in range(20):
            nodes.tick()
        assert late.words == ["a"]
        assert caplog.text.count("unsupported code version") <= 3, "once for each entry"
        assert "code version 1" in late.ready()
        nodes.node_class = DURABLE.node_class(Second)
        updated = nodes.restart(old)
        nodes.tick_until(lambda: updated.words == ["A", "B"], "the new code to go on")
        nodes.tick_until(lambda: updated.ready() is None, "it to be ready")
