"""What stands around PySyncObj's handler: each hole in its protocol that raftwal closes.

The cluster simulation (``integration/simulation``) found all but the first of them.
"""

from __future__ import annotations

import types

import pytest
from clusters import KV, cluster, fast_conf, free_addresses
from pysyncobj import FAIL_REASON, pickle
from pysyncobj.node import TCPNode
from pysyncobj.transport import TCPTransport

from raftwal.model import HardState
from raftwal.pysyncobj.journal import DurableJournal
from raftwal.pysyncobj.node_ids import Votes
from raftwal.pysyncobj.reception import Reception


def journal(last=9, term=3, commit=5):
    return DurableJournal(
        Votes([]),
        HardState(term, 0, commit),
        covered=[],
        entries=[(b"\1command", index, 1) for index in range(1, last + 1)],
        on_one_second_timer=lambda: None,
        on_close=lambda: None,
        on_restored=lambda entries: None,
    )


class Peer:
    """A reception, the SyncObj behind it, and what reaches PySyncObj's handler."""

    def __init__(self, handler=lambda peer, message: None, **log):
        self.journal = journal(**log)
        self.sync_obj = types.SimpleNamespace(
            _SyncObj__recvTransmission=b"",
            _SyncObj__raftCommitIndex=5,
            _SyncObj__raftNextIndex={},
        )
        self.reception = Reception(self.journal, lambda: self.sync_obj)
        self.handled = []

        def handle(node, message):
            self.handled.append(message)
            handler(self, message)

        self.receive = self.reception.around(handle)

    def asks_from(self, index):
        """The index that the leader is told when PySyncObj would tell it ``index``."""
        answer = {"type": "next_node_idx", "reset": True, "success": False}
        return self.reception.completed({**answer, "next_node_idx": index})["next_node_idx"]


def test_a_membership_change_counts_after_a_restart_before_it_is_known_to_be_committed(tmp_path):
    """With the old list, a node that was started again would count other majorities."""
    first, second, third = free_addresses(3)
    conf = {"dynamicMembershipChange": True}
    node = KV(first, [second], tmp_path / "n", fast_conf(**conf))
    node.doTick(0.0)
    command = bytes([2]) + pickle.dumps(["add", third, TCPNode(third)])
    node._durable_node.journal.add(command, 2, 1)
    node.doTick(0.0)
    node.destroy()
    node = KV(first, [second], tmp_path / "n", fast_conf(**conf))
    node.doTick(0.0)
    assert {other.id for other in node.otherNodes} == {second, third}
    node.destroy()


def acknowledgement(**fields):
    answer = {"type": "next_node_idx", "next_node_idx": 8, "reset": False, "success": True}
    return {**answer, **fields}


def entries(**fields):
    return {"type": "append_entries", "term": 3, "commit_index": 8, **fields}


def test_an_acknowledgement_says_its_term_and_is_else_as_pysyncobj_made_it():
    sent = Peer(term=3).reception.completed(acknowledgement())
    assert sent == acknowledgement(term=3)


@pytest.mark.parametrize(("term", "counts"), [(2, False), (3, True), (None, True)])
def test_an_acknowledgement_of_an_earlier_term_counts_for_nothing(term, counts):
    """A plain PySyncObj node does not say its term, and is believed as before."""
    peer = Peer(term=3)
    message = acknowledgement() if term is None else acknowledgement(term=term)
    peer.receive("node", message)
    assert bool(peer.handled) == counts


@pytest.fixture
def followed(tmp_path):
    """A leader, one that follows it, and what hands the leader that one's answers."""
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        assert nodes.put(leader, "k", 1) == FAIL_REASON.SUCCESS
        follower = next(node for node in leader.otherNodes)
        nodes.tick_until(lambda: matched(leader, follower) == last(leader), "both to be in step")
        handler = leader._SyncObj__transport._onMessageReceivedCallback

        def answer(**fields):
            handler(follower, acknowledgement(term=leader.raftCurrentTerm, **fields))

        yield leader, follower, answer


def last(node):
    return node._SyncObj__raftLog[-1][1]


def matched(leader, follower):
    return leader._SyncObj__raftMatchIndex[follower]


def test_what_is_on_its_way_to_a_follower_is_not_sent_again_with_each_acknowledgement(followed):
    """PySyncObj sends on from what was acknowledged last: under load, all of it once more."""
    leader, follower, answer = followed
    next_index, end = leader._SyncObj__raftNextIndex, last(leader) + 1
    next_index[follower] = end + 10
    answer(next_node_idx=end + 3)
    assert matched(leader, follower) == end + 2
    assert next_index[follower] == end + 10
    answer(next_node_idx=end + 12)
    assert matched(leader, follower) == end + 11
    assert next_index[follower] == end + 12


@pytest.mark.parametrize("success", [False, True])
def test_a_follower_that_asks_for_entries_again_gets_them(followed, success):
    """Also when it acknowledges some: it has installed a snapshot, and what came meanwhile
    was not taken.
    """
    leader, follower, answer = followed
    leader._SyncObj__raftNextIndex[follower] = 20
    answer(next_node_idx=4, reset=True, success=success)
    assert leader._SyncObj__raftNextIndex[follower] == 4


def test_entries_that_are_lost_on_their_way_are_sent_again(tmp_path):
    """The leader takes them for sent, until a follower answers to what comes after them."""
    asked_from = []

    class Losing(TCPTransport):
        loses = False

        def send(self, node, message):
            if message.get("reset"):
                asked_from.append(message["next_node_idx"])
            if Losing.loses and message.get("entries"):
                return True
            return super().send(node, message)

    with cluster(tmp_path) as nodes:
        nodes.start_all(transport=Losing)
        leader = nodes.wait_for_leader()
        assert nodes.put(leader, "before", 0) == FAIL_REASON.SUCCESS
        nodes.wait_for_values({"before": 0})
        asked_from.clear()
        first = last(leader) + 1
        Losing.loses = True
        answers = []
        for number in range(5):
            leader.put(number, number, callback=lambda _, reason: answers.append(reason))
        nodes.tick_until(lambda: asked_from.count(first) >= 4, "followers to ask for them")
        assert answers == []
        Losing.loses = False
        nodes.wait_for_values({"before": 0, **{number: number for number in range(5)}})
        assert answers == [FAIL_REASON.SUCCESS] * 5


def test_a_piece_of_a_snapshot_commits_nothing_that_the_log_holds():
    """PySyncObj's handler sets the commit index to the leader's after any message."""

    def handler(peer, message):
        peer.sync_obj._SyncObj__raftCommitIndex = 8
        peer.journal.setRaftCommitIndex(8)

    peer = Peer(handler)
    peer.receive("leader", entries(serialized=(b"piece", True, False)))
    assert peer.sync_obj._SyncObj__raftCommitIndex == peer.journal.getRaftCommitIndex() == 5
    peer.receive("leader", entries(serialized=None))
    assert peer.journal.getRaftCommitIndex() == 5
    peer.receive("leader", entries(prevLogIdx=8, entries=[]))
    assert peer.sync_obj._SyncObj__raftCommitIndex == peer.journal.getRaftCommitIndex() == 8


def test_the_commit_index_does_not_go_back_with_entries_that_overlap():
    def handler(peer, message):
        peer.journal.deleteEntriesFrom(3)
        peer.sync_obj._SyncObj__raftCommitIndex = peer.journal[-1][1]
        peer.journal.setRaftCommitIndex(peer.journal[-1][1])

    peer = Peer(handler)
    peer.receive("leader", entries(prevLogIdx=3, entries=[]))
    assert peer.sync_obj._SyncObj__raftCommitIndex == 5
    assert len(peer.journal) == 9


def test_a_handler_that_raises_leaves_the_log_whole():
    def handler(peer, message):
        peer.journal.deleteEntriesFrom(3)
        raise ValueError

    peer = Peer(handler)
    with pytest.raises(ValueError):
        peer.receive("leader", entries(prevLogIdx=3, entries=[]))
    assert len(peer.journal) == 9


def test_a_leader_is_asked_for_all_that_may_have_to_be_replaced_at_once():
    assert Peer(last=9, commit=5).asks_from(9) == 6
    assert Peer(last=9, commit=5).asks_from(10) == 10


def test_the_answers_to_what_a_leader_sent_meanwhile_do_not_take_back_the_first():
    peer = Peer(last=9, commit=5)
    assert [peer.asks_from(index) for index in (9, 10, 10)] == [6, 6, 6]
    peer.receive("leader", entries(prevLogIdx=12, entries=[]))
    assert peer.asks_from(10) == 6
    peer.receive("leader", entries(prevLogIdx=5, entries=[]))
    assert peer.asks_from(10) == 10


def test_what_was_asked_of_one_leader_is_not_asked_of_the_next():
    peer = Peer(last=9, commit=5)
    assert peer.asks_from(9) == 6
    peer.journal.setCurrentTerm(4, None)
    assert peer.asks_from(10) == 10


def test_a_command_in_pieces_is_whole_with_its_last_piece_whichever_says_so():
    """PySyncObj calls several pieces the last, and fails on all but one."""
    whole = pickle.dumps((b"\xc3.\xa9" * 100, 10, 3))
    pieces = [whole[start : start + 80] for start in range(0, len(whole), 80)]

    def handler(peer, message):
        peer.sync_obj._SyncObj__recvTransmission += message["data"]

    peer = Peer(handler)
    for piece in pieces:
        peer.receive("leader", entries(transmission="finish", data=piece, prevLogIdx=9))
    said = [message["transmission"] for message in peer.handled]
    assert said == ["process"] * (len(pieces) - 1) + ["finish"]


def test_while_a_snapshot_is_installed_a_leader_is_heard_and_its_entries_are_not_taken():
    """Taken now, they would be acknowledged, and go when the snapshot replaces the log."""
    peer = Peer()
    answers = []
    peer.sync_obj._SyncObj__raftLeader = "leader"
    peer.sync_obj._SyncObj__sendNextNodeIdx = answers.append
    peer.reception._is_installing = lambda: True
    heartbeat = {"type": "append_entries", "term": 3, "commit_index": 7}
    entries = {**heartbeat, "prevLogIdx": 9, "prevLogTerm": 1, "entries": [(b"x", 10, 3)]}
    for message in (entries, {**heartbeat, "serialized": (b"piece", True, False)}):
        peer.receive("leader", message)
        assert peer.handled.pop() == {**heartbeat, "serialized": None}
    assert answers == ["leader", "leader"]
    peer.receive("another", entries)
    assert answers == ["leader", "leader"], "whoever does not lead is not told that this node lives"
