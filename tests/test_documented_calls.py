"""Replicated calls and their failure reasons, as PySyncObj documents them."""

from __future__ import annotations

import threading

import pytest
from clusters import free_addresses
from documented import ALONE, DURABLE, WAYS, Application, each_way
from pysyncobj import FAIL_REASON, SyncObjException, replicated, replicated_sync
from switchboard import Switchboard


class Sums(Application):
    def begin(self):
        self.total = 0
        self.seen = []

    @replicated
    def add(self, number, times=1):
        self.total += number * times
        self.seen.append(number)
        return self.total

    @replicated_sync
    def add_and_wait(self, number):
        self.total += number
        return self.total

    @replicated_sync(ver=0)
    def subtract_and_wait(self, number):
        self.total -= number
        return self.total


@each_way
def test_a_replicated_call_returns_nothing_and_its_callback_gets_the_result(way, tmp_path):
    with way.nodes(tmp_path, Sums) as nodes:
        node = nodes.start(nodes.addresses[0])
        answers = []
        assert node.add(2, callback=lambda *answer: answers.append(answer)) is None
        assert node.add(3, times=2, callback=lambda *answer: answers.append(answer)) is None
        assert node.add(1) is None
        # "If callback is passed, 'sync' option is ignored": it would block for ever here.
        node.add(4, sync=True, callback=lambda *answer: answers.append(answer))
        nodes.tick_until(lambda: len(answers) == 3, "the answers")
        assert answers == [(2, 0), (8, 0), (13, 0)]
        assert node.seen == [2, 3, 1, 4]


@each_way
def test_sync_calls_block_and_return_the_result(way, tmp_path):
    with way.nodes(tmp_path, Sums, autoTick=True, autoTickPeriod=0.005) as nodes:
        node = nodes.start(nodes.addresses[0])
        assert node.add(2, sync=True) == 2
        assert node.add(3, sync=True, timeout=30) == 5
        assert node.add_and_wait(4) == 9
        assert node.add_and_wait(1, timeout=30) == 10
        assert node.subtract_and_wait(3) == 7
        assert node.add_and_wait(1, sync=False) is None
        assert node.add(0, sync=True) == 8


def test_a_sync_call_without_a_majority_times_out(tmp_path):
    with DURABLE.nodes(tmp_path, Sums, size=2, autoTick=True, autoTickPeriod=0.005) as nodes:
        node = nodes.start(nodes.addresses[0])
        for call in (node.add_and_wait, lambda *a, **k: node.add(*a, sync=True, **k)):
            with pytest.raises(SyncObjException) as caught:
                call(1, timeout=0.02)
            assert caught.value.errorCode == "Timeout"
        assert node.total == 0


def test_a_sync_call_that_fails_raises_its_reason(tmp_path):
    conf = {"autoTick": True, "autoTickPeriod": 0.005, "commandsWaitLeader": False}
    with DURABLE.nodes(tmp_path, Sums, size=2, **conf) as nodes:
        node = nodes.start(nodes.addresses[0])
        with pytest.raises(SyncObjException) as caught:
            node.add_and_wait(1)
        assert caught.value.errorCode == FAIL_REASON.MISSING_LEADER


@each_way
def test_a_call_may_be_made_from_any_thread(way, tmp_path):
    with way.nodes(tmp_path, Sums, autoTick=True, autoTickPeriod=0.002) as nodes:
        node = nodes.start(nodes.addresses[0])

        def call():
            for _ in range(5):
                node.add_and_wait(1)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert node.total == 20


class Careless(Sums):
    @replicated
    def add(self, number, times=1):
        self.total += 100 // number
        return self.total


class Careful(Sums):
    @replicated
    def add(self, number, times=1):
        self.total += 100 // number if number else 0
        return self.total


@each_way
def test_a_method_that_raises_is_tried_again_until_it_does_not(way, tmp_path):
    """As with PySyncObj: nothing is passed over.  A node that remembers is helped by new code."""
    with way.nodes(tmp_path, Careless) as nodes:
        (address,) = nodes.addresses
        node = nodes.start(address)
        nodes.call(node.add, 50)
        node.add(0)
        node.add(20)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                nodes.tick_until(lambda: False, "the exception")
        assert node.total == 2
        assert node.storage_failure is None
        nodes.stop(address)
        nodes.node_class = way.node_class(Careful)
        node = nodes.start(address)
        nodes.tick_until(lambda: node.total == 7, "what followed")


@each_way
def test_queue_full(way, tmp_path):
    size = 3
    with way.nodes(tmp_path, Sums, commandsQueueSize=size) as nodes:
        node = nodes.start(nodes.addresses[0])
        answers = []
        for number in range(size + 2):
            node.add(number, callback=lambda *answer: answers.append(answer))
        assert answers == [(None, FAIL_REASON.QUEUE_FULL)] * 2
        nodes.tick_until(lambda: len(answers) == size + 2, "the answers")
        assert {reason for _, reason in answers[2:]} == {FAIL_REASON.SUCCESS}
        assert node.seen == list(range(size))


@each_way
def test_missing_leader(way, tmp_path):
    with way.nodes(tmp_path, Sums, size=2, commandsWaitLeader=False) as nodes:
        node = nodes.start(nodes.addresses[0])
        assert nodes.answer(node.add, 1) == (None, FAIL_REASON.MISSING_LEADER)


def test_a_command_waits_for_a_leader_where_it_is_told_to(tmp_path):
    with DURABLE.nodes(tmp_path, Sums, size=2, commandsWaitLeader=True) as nodes:
        first, second = nodes.addresses
        node = nodes.start(first)
        answers = []
        node.add(1, callback=lambda *answer: answers.append(answer))
        for _ in range(20):
            node.doTick(0.0)
        assert answers == []
        nodes.start(second)
        nodes.tick_until(lambda: bool(answers), "the answer")
        assert answers == [(1, FAIL_REASON.SUCCESS)]


@pytest.fixture
def three(request, tmp_path):
    """Three nodes on a switchboard: the leader, two followers, and the switchboard."""
    way = request.param
    board = Switchboard()
    # A follower that hears nothing for a while waits; who leads is decided by `transfer`.
    patient = {"raftMinTimeout": 29.0, "raftMaxTimeout": 30.0, "connectionTimeout": 31.0}
    with way.nodes(tmp_path, Sums, size=3, leaderFallbackTimeout=60.0) as nodes:
        for address, conf in zip(nodes.addresses, (ALONE, patient, patient), strict=True):
            nodes.conf.update(conf)
            nodes.start(address, transportClass=board.transport)
        leader = nodes.wait_for_leader()
        assert leader is nodes.nodes[nodes.addresses[0]]
        assert nodes.call(leader.add, 1) == 1
        followers = [node for node in nodes.nodes.values() if node is not leader]
        # It must not try again when it has lost its place.
        leader.conf.raftMinTimeout, leader.conf.raftMaxTimeout = 29.0, 30.0
        yield nodes, leader, followers, board


three_each_way = pytest.mark.parametrize("three", WAYS, ids=lambda way: way.name, indirect=True)


def become_leader(nodes, node):
    """What a node does whose election timeout is over."""
    node._SyncObj__raftElectionDeadline = 0
    nodes.tick_until(node._isLeader, "the election")


@three_each_way
def test_a_followers_command_is_forwarded_and_answered_there(three):
    nodes, leader, (follower, _), _ = three
    assert nodes.call(follower.add, 5) == 6
    nodes.tick_until(lambda: leader.total == 6, "the leader to apply it")


@three_each_way
def test_discarded(three):
    """The old leader's entry never reached anyone, and another took its place."""
    nodes, leader, (heir, _), board = three
    board.isolate(leader.selfNode.id)
    answers = []
    leader.add(100, callback=lambda *answer: answers.append(answer))
    nodes.tick_until(lambda: leader.getStatus()["log_len"] > heir.getStatus()["log_len"], "it")
    become_leader(nodes, heir)
    assert nodes.call(heir.add, 5) == 6
    assert answers == []
    board.connect_all()
    nodes.tick_until(lambda: bool(answers), "the answer")
    assert answers == [(None, FAIL_REASON.DISCARDED)]
    nodes.tick_until(lambda: leader.total == 6, "the heir's entries")
    assert 100 not in leader.seen


@three_each_way
def test_not_leader(three):
    """The follower has not heard yet that the node that it asks leads no longer."""
    nodes, leader, (heir, asking), board = three
    board.passes = lambda sender, receiver, _: (
        {sender, receiver}
        != {
            heir.selfNode.id,
            asking.selfNode.id,
        }
    )
    become_leader(nodes, heir)
    nodes.tick_until(lambda: leader._getLeader() == heir.selfNode, "the old leader to know")
    assert asking._getLeader() == leader.selfNode
    assert nodes.answer(asking.add, 5) == (None, FAIL_REASON.NOT_LEADER)


@three_each_way
def test_leader_changed(three):
    """The leader that was asked is gone before it has answered."""
    nodes, leader, (heir, asking), board = three
    board.passes = lambda sender, receiver, message: message["type"] != "apply_command"
    answers = []
    asking.add(5, callback=lambda *answer: answers.append(answer))
    nodes.tick_until(lambda: bool(asking._SyncObj__commandsWaitingReply), "it to be sent")
    become_leader(nodes, heir)
    nodes.tick_until(lambda: bool(answers), "the answer")
    assert answers == [(None, FAIL_REASON.LEADER_CHANGED)]
    assert asking._getLeader() == heir.selfNode
    assert not leader._isLeader()


@three_each_way
def test_request_denied(three):
    """A change of membership that changes nothing."""
    nodes, leader, (follower, _), _ = three
    for node in (leader, follower):
        node.conf.dynamicMembershipChange = True
    known, unknown = follower.selfNode.id, free_addresses(1)[0]
    denied = (None, FAIL_REASON.REQUEST_DENIED)
    for node in (leader, follower):
        assert nodes.answer(node.addNodeToCluster, known) == denied
        assert nodes.answer(node.removeNodeFromCluster, unknown) == denied


@three_each_way
def test_unknown_outcome(three):
    """The leader's answer comes when the follower has applied the entry, and others, already."""
    nodes, leader, (follower, _), board = three
    board.holds = lambda sender, receiver, message: message["type"] == "apply_command_response"
    answers = []
    follower.add(5, callback=lambda *answer: answers.append(answer))
    nodes.tick_until(lambda: follower.total == 6, "the follower to apply it")
    assert answers == []
    assert board.held == 1
    board.let_go()
    nodes.tick_until(lambda: bool(answers), "the answer")
    assert answers == [(None, FAIL_REASON.UNKNOWN_OUTCOME)]
    assert leader.total == 6
