"""Membership, leadership and read-only nodes, as PySyncObj documents them."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from clusters import free_addresses
from documented import DURABLE, INSTALLED, Application, each_way
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.node import TCPNode

from raftwal.errors import IdentityMismatchError, LockedError


class Words(Application):
    def begin(self):
        self.words = []

    @replicated
    def put(self, word):
        self.words.append(word)


def ids(nodes):
    return {node.id for node in nodes}


def all_have(nodes, words):
    return lambda: all(node.words == words for node in nodes.nodes.values())


@each_way
def test_a_member_is_added_and_removed_and_stays_so_after_a_restart(way, tmp_path):
    with way.nodes(tmp_path, Words, size=2, dynamicMembershipChange=True) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.call(leader.put, "a")
        (new,) = free_addresses(1)
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        nodes.call(follower.addNodeToCluster, new)
        nodes.addresses.append(new)
        nodes.start(new)
        nodes.call(leader.put, "b")
        nodes.tick_until(all_have(nodes, ["a", "b"]), "the new member to have it")
        for node in nodes.nodes.values():
            assert ids(node.otherNodes) == set(nodes.addresses) - {node.selfNode.id}
            assert node.getStatus()["partner_nodes_count"] == 2

        # Who starts anew knows of it from its log, whatever it is told.
        nodes.stop_all()
        old = nodes.addresses[:2]
        for address in nodes.addresses:
            nodes.start_with(address, old)
        leader = nodes.wait_for_leader()
        nodes.tick_until(
            lambda: all(len(node.otherNodes) == 2 for node in nodes.nodes.values()),
            "three members",
        )
        leaving = next(node for node in nodes.nodes.values() if node is not leader)
        # A new leader takes no change before an entry of its own is committed.
        nodes.call(leader.put, "c")
        nodes.call(leader.removeNodeFromCluster, leaving.selfNode)
        nodes.stop(leaving.selfNode.id)
        nodes.call(leader.put, "d")
        nodes.tick_until(all_have(nodes, ["a", "b", "c", "d"]), "the others to go on")
        assert leaving.selfNode.id not in ids(leader.otherNodes)
        assert len(leader.otherNodes) == 1


@each_way
def test_membership_is_fixed_unless_it_is_configured_otherwise(way, tmp_path):
    with way.nodes(tmp_path, Words) as nodes:
        node = nodes.start(nodes.addresses[0])
        for change in (node.addNodeToCluster, node.removeNodeFromCluster):
            with pytest.raises(Exception, match="dynamicMembershipChange is disabled"):
                change("127.0.0.1:1")


def test_leadership_is_transferred(tmp_path):
    """To the node that is named; to the one that is best in step, if none is."""
    # No election of its own accord can be what the test sees.
    with DURABLE.nodes(tmp_path, Words, size=3, raftMinTimeout=0.6, raftMaxTimeout=0.7) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.call(leader.put, "a")
        heir, other = (node for node in nodes.nodes.values() if node is not leader)

        def asked(node, *target):
            answers = []
            node.transferLeadership(*target, callback=lambda *answer: answers.append(answer))
            return answers[0][1]

        assert asked(heir) == FAIL_REASON.NOT_LEADER
        assert asked(leader, "127.0.0.1:1") == FAIL_REASON.REQUEST_DENIED
        assert asked(leader, leader.selfNode) == FAIL_REASON.REQUEST_DENIED
        nodes.tick_until(
            lambda: asked(leader, heir.selfNode.id) == FAIL_REASON.SUCCESS, "the heir in step"
        )
        nodes.tick_until(heir._isLeader, "the heir to lead")
        assert nodes.wait_for_leader() is heir
        nodes.call(leader.put, "b")
        nodes.tick_until(lambda: asked(heir) == FAIL_REASON.SUCCESS, "someone in step")
        nodes.tick_until(lambda: leader._isLeader() or other._isLeader(), "someone to lead")
        nodes.tick_until(all_have(nodes, ["a", "b"]), "nothing to be lost")


@contextmanager
def ticked(nodes, *observers):
    """Observers, ticked with the nodes."""
    names = [f"observer {number}" for number in range(len(observers))]
    nodes.nodes.update(zip(names, observers, strict=True))
    try:
        yield
    finally:
        for name in names:
            nodes.nodes.pop(name).destroy()


@each_way
def test_a_read_only_node_has_everything_and_counts_for_nothing(way, tmp_path):
    with way.nodes(tmp_path, Words, size=2) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        nodes.call(leader.put, "a")
        observer = nodes.node_class(None, nodes.addresses, tmp_path / "observer")
        with ticked(nodes, observer):
            nodes.tick_until(lambda: observer.words == ["a"], "the observer to have it")
            assert observer.selfNode is None
            assert ids(observer.otherNodes) == set(nodes.addresses)
            nodes.tick_until(lambda: observer.hasQuorum, "it to be connected to all")
            # A command that it is given is forwarded.
            nodes.call(observer.put, "b")
            assert observer.words == ["a", "b"]
            nodes.tick_until(
                lambda: observer._getLeader() == nodes.wait_for_leader().selfNode,
                "it to know the leader",
            )
            assert len(leader.readonlyNodes) == 1
            status = leader.getStatus()
            assert status["readonly_nodes_count"] == 1
            assert status["partner_nodes_count"] == 1
            # Alone with the leader, it is no majority.
            follower = next(a for a in nodes.addresses if a != leader.selfNode.id)
            nodes.stop(follower)
            nodes.tick_until(lambda: not leader.hasQuorum, "the leader to be alone")
            answers = []
            leader.put("c", callback=lambda *answer: answers.append(answer))
            index = leader.getStatus()["log_len"]
            nodes.tick_until(
                lambda: observer.getStatus()["log_len"] > index, "the entry at the observer"
            )
            assert answers == []
            nodes.start(follower)
            nodes.tick_until(lambda: observer.words == ["a", "b", "c"], "the majority")
        nodes.tick_until(lambda: not leader.readonlyNodes, "it to be gone")


@each_way
def test_a_read_only_node_comes_back_with_what_it_had(way, tmp_path):
    with way.nodes(tmp_path, Words) as nodes:
        node = nodes.start(nodes.addresses[0])
        observer = nodes.node_class(None, nodes.addresses, tmp_path / "observer")
        with ticked(nodes, observer):
            for word in "abc":
                nodes.call(node.put, word)
            nodes.tick_until(lambda: observer.words == list("abc"), "the observer to have it")
            nodes.compact(observer)
            nodes.call(node.put, "d")
            nodes.tick_until(lambda: observer.words == list("abcd"), "the observer to have it")
        nodes.stop_all()
        observer = nodes.node_class(None, nodes.addresses, tmp_path / "observer")
        for _ in range(3):
            observer.doTick(0.0)
        assert observer.words[:3] == list("abc"), "the snapshot"
        node = nodes.start(nodes.addresses[0])
        with ticked(nodes, observer):
            nodes.call(node.put, "e")
            nodes.tick_until(lambda: observer.words == list("abcde"), "what it missed")


@each_way
def test_each_read_only_node_has_a_directory_of_its_own(way, tmp_path):
    """One that another has open, or that is a member's, is refused; the others go on."""
    with way.nodes(tmp_path, Words) as nodes:
        (address,) = nodes.addresses
        node = nodes.start(address)
        first = nodes.node_class(None, nodes.addresses, tmp_path / "first")
        with pytest.raises(LockedError):
            nodes.node_class(None, nodes.addresses, tmp_path / "first")
        nodes.stop(address)
        with pytest.raises(IdentityMismatchError, match="belongs to node id"):
            nodes.node_class(None, nodes.addresses, nodes.data_dir(address))
        node = nodes.start(address)
        second = nodes.node_class(None, nodes.addresses, tmp_path / "second")
        with ticked(nodes, first, second):
            nodes.call(node.put, "a")
            nodes.tick_until(lambda: first.words == second.words == ["a"], "both to have it")
            assert len(node.readonlyNodes) == 2


def test_a_read_only_node_without_a_journal_stays_pysyncobjs_own(tmp_path):
    class Plain(SyncObj):
        put = Words.put
        put_v0 = Words.put_v0

        def __init__(self, partners):
            super().__init__(None, partners, SyncObjConf(autoTick=False))
            self.words = []

    with INSTALLED.nodes(tmp_path, Words) as nodes:
        node = nodes.start(nodes.addresses[0])
        observer = Plain(nodes.addresses)
        with ticked(nodes, observer):
            nodes.call(node.put, "a")
            nodes.tick_until(lambda: observer.words == ["a"], "the observer to have it")
        assert type(observer._SyncObj__raftLog).__name__ == "MemoryJournal"


class NamedNode(TCPNode):
    """A node class of the application's own: nodes are called by name."""

    addresses: dict[str, str] = {}  # noqa: RUF012  # the test's directory of names

    def __init__(self, name, **arguments):
        super().__init__(self.addresses.get(name, name), **arguments)
        self.name = name


def test_nodes_of_a_class_of_the_applications_own(tmp_path):
    """Its id is the node's identity on disk; what it is made from is not."""
    with DURABLE.nodes(tmp_path, Words, size=3) as nodes:
        names = dict(zip("abc", nodes.addresses, strict=True))
        NamedNode.addresses = names
        for _ in range(2):
            for name, address in names.items():
                others = [other for other in names if other != name]
                nodes.start_with(address, others, self_node=name, nodeClass=NamedNode)
            leader = nodes.wait_for_leader()
            assert leader.selfNode.name in names
            assert {node.name for node in leader.otherNodes} < set(names)
            nodes.call(leader.put, "word")
            nodes.stop_all()
        # The same node, named by its address.
        nodes.start_with(names["a"], [names["b"], names["c"]])


def test_node_objects_in_place_of_addresses(tmp_path):
    with DURABLE.nodes(tmp_path, Words, size=2) as nodes:
        objects = [TCPNode(address) for address in nodes.addresses]
        for node in objects:
            # PySyncObj passes over the node itself among the others.
            nodes.start_with(node.id, iter(objects), self_node=node)
        leader = nodes.wait_for_leader()
        assert leader.selfNode in objects
        assert len(leader.otherNodes) == 1
        nodes.call(leader.put, "a")
