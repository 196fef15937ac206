"""Nothing that makes a promise leaves the node before what it promises is on disk."""

from __future__ import annotations

import errno
import os
from collections import Counter
from typing import ClassVar

import pytest
from clusters import cluster
from pysyncobj.transport import TCPTransport
from watched_disk import Failing, WatchedDisk

from raftwal.pysyncobj.barrier import SendBarrier


class Saves:
    """What is pending is in save 1, and so is the term if ``term`` says so."""

    def __init__(self, *, term=False):
        self.durable = 0
        self.of_promises = 1
        self.of_term = 1 if term else 0


@pytest.fixture
def sent():
    return []


def transport(sent):
    def send(node, message):
        sent.append((node, message["type"]))
        return True

    return send


@pytest.mark.parametrize(
    "kind", ["request_vote", "response_vote", "next_node_idx", "something_of_a_later_version"]
)
def test_a_promise_waits_until_what_it_promises_is_durable(sent, kind):
    saves = Saves()
    barrier = SendBarrier(saves)
    assert barrier.send(transport(sent), "b", {"type": kind})
    barrier.release()
    assert sent == []
    saves.durable = 1
    barrier.release()
    assert sent == [("b", kind)]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "append_entries"},
        {"type": "apply_command"},
        {"type": "apply_command_response"},
        {"type": "timeout_now"},
        {"type": "next_node_idx", "success": False, "reset": False},
    ],
)
def test_what_promises_nothing_flows_past_what_waits(sent, message):
    barrier = SendBarrier(Saves())
    barrier.send(transport(sent), "b", {"type": "response_vote"})
    barrier.send(transport(sent), "b", message)
    assert sent == [("b", message["type"])]


@pytest.mark.parametrize(("success", "reset"), [(True, False), (False, True), (True, True)])
def test_an_answer_that_says_something_about_the_log_waits(sent, success, reset):
    barrier = SendBarrier(Saves())
    barrier.send(
        transport(sent), "b", {"type": "next_node_idx", "success": success, "reset": reset}
    )
    assert sent == []


def test_entries_of_a_term_that_is_not_durable_wait_for_it_in_their_order(sent):
    saves = Saves(term=True)
    barrier = SendBarrier(saves)
    barrier.send(transport(sent), "b", {"type": "append_entries"})
    barrier.send(transport(sent), "c", {"type": "append_entries"})
    saves.of_term = 0
    barrier.send(transport(sent), "d", {"type": "append_entries"})
    assert sent == []
    saves.durable = 1
    barrier.release()
    assert [node for node, _ in sent] == ["b", "c", "d"]


def test_entries_of_a_durable_term_do_not_wait_behind_promises(sent):
    saves = Saves(term=True)
    barrier = SendBarrier(saves)
    barrier.send(transport(sent), "b", {"type": "append_entries"})
    saves.of_promises = 2
    barrier.send(transport(sent), "b", {"type": "next_node_idx"})
    saves.durable = 1
    barrier.release()
    assert sent == [("b", "append_entries")]


def test_a_promise_leaves_at_once_when_all_is_durable(sent):
    saves = Saves()
    saves.durable = 1
    barrier = SendBarrier(saves)
    barrier.send(transport(sent), "b", {"type": "next_node_idx"})
    assert sent == [("b", "next_node_idx")]


def test_a_promise_on_a_state_that_is_not_loaded_waits(sent):
    saves = Saves()
    saves.durable = 1
    barrier = SendBarrier(saves, may_promise=lambda: False)
    barrier.send(transport(sent), "b", {"type": "next_node_idx"})
    barrier.send(transport(sent), "b", {"type": "append_entries"})
    assert sent == [("b", "append_entries")]


def test_held_messages_keep_their_order_even_when_all_is_durable_meanwhile(sent):
    saves = Saves()
    barrier = SendBarrier(saves)
    barrier.send(transport(sent), "b", {"type": "response_vote"})
    saves.durable = 1
    barrier.send(transport(sent), "b", {"type": "next_node_idx"})
    assert sent == []
    barrier.release()
    assert [kind for _, kind in sent] == ["response_vote", "next_node_idx"]


def test_what_waits_for_a_later_save_stays(sent):
    saves = Saves()
    barrier = SendBarrier(saves)
    barrier.send(transport(sent), "b", {"type": "response_vote"})
    saves.of_promises = 2
    barrier.send(transport(sent), "b", {"type": "next_node_idx"})
    saves.durable = 1
    barrier.release()
    assert sent == [("b", "response_vote")]
    saves.durable = 2
    barrier.release()
    assert [kind for _, kind in sent] == ["response_vote", "next_node_idx"]


def test_after_close_nothing_leaves(sent):
    saves = Saves()
    barrier = SendBarrier(saves)
    barrier.send(transport(sent), "b", {"type": "response_vote"})
    barrier.close()
    saves.durable = 1
    barrier.release()
    assert not barrier.send(transport(sent), "b", {"type": "append_entries"})
    assert sent == []


class WatchingTransport(TCPTransport):
    """Compares each promise that leaves with what the storage has made durable by then."""

    checked: ClassVar[Counter[str]] = Counter()
    broken: ClassVar[list[tuple]] = []

    def send(self, node, message):
        storage = self._syncObj._durable_node.storage
        state = storage.hard_state
        kind = message["type"]
        self.checked[kind] += 1
        if kind in ("request_vote", "response_vote"):
            kept = state.term > message["term"] or (state.term == message["term"] and state.vote)
        elif kind == "next_node_idx" and message["success"]:
            kept = storage.last_index >= message["next_node_idx"] - 1
        else:
            kept = True
        if not kept:
            self.broken.append((message, state, storage.last_index))
        return super().send(node, message)


def test_every_promise_on_the_wire_is_on_disk_before_it(tmp_path):
    WatchingTransport.checked.clear()
    WatchingTransport.broken.clear()
    with cluster(tmp_path) as nodes:
        nodes.start_all(transport=WatchingTransport)
        leader = nodes.wait_for_leader()
        for number in range(50):
            nodes.put(leader, number, number)
        nodes.stop(leader.selfNode.id)
        leader = nodes.wait_for_leader()
        nodes.put(leader, "after", 1)
    assert WatchingTransport.broken == []
    for kind in ("request_vote", "response_vote", "next_node_idx"):
        assert WatchingTransport.checked[kind] > 0


def test_one_sync_covers_all_that_is_pending_in_a_tick(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        disk = WatchedDisk()
        node = nodes.start(nodes.addresses[0], fs=disk)
        nodes.wait_for_leader()
        answers = []
        for number in range(200):
            node.put(number, number, callback=lambda _, reason: answers.append(reason))
        before = disk.count("sync_data")
        nodes.tick_until(lambda: len(answers) == 200, "all answers")
        assert answers == [0] * 200
        assert disk.count("sync_data") - before <= 2


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_leader_whose_disk_fails_steps_aside_and_the_others_go_on(tmp_path, code):
    failures = []
    with cluster(tmp_path) as nodes:
        disks = {}
        for address in nodes.addresses:
            disks[address] = WatchedDisk()
            nodes.start(address, fs=disks[address], on_storage_failure=failures.append)
        leader = nodes.wait_for_leader()
        expected = {}
        for number in range(10):
            assert nodes.put(leader, number, number) == 0
            expected[number] = number

        address = leader.selfNode.id
        disks[address].before = Failing(code, calls=("sync_data",))
        assert nodes.put(leader, "lost", 1) != 0
        assert leader.storage_failure is not None
        assert len(failures) == 1
        assert os.strerror(code) in leader.healthy()
        assert os.strerror(code) in leader.ready()
        assert os.strerror(code) in leader.getStatus()["storage_failure"]
        assert not leader._isLeader()
        # Nothing is retried, although the disk works again: the next call fails at once.
        assert nodes.put(leader, "refused", 1) != 0

        new_leader = nodes.wait_for_leader()
        assert new_leader is not leader
        for number in range(10, 20):
            assert nodes.put(new_leader, number, number) == 0
            expected[number] = number
        # Restarted once the cause is gone, it has everything it promised, and catches up.
        nodes.stop(address)
        nodes.start(address)

        def caught_up():
            return all(expected.items() <= node.values.items() for node in nodes.nodes.values())

        nodes.tick_until(caught_up, "all nodes to hold all values")
        assert len(failures) == 1


def test_a_follower_whose_disk_fails_acknowledges_nothing_more(tmp_path):
    with cluster(tmp_path) as nodes:
        disks = {}
        for address in nodes.addresses:
            disks[address] = WatchedDisk()
            nodes.start(address, fs=disks[address])
        leader = nodes.wait_for_leader()
        nodes.put(leader, "first", 1)
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        disks[follower.selfNode.id].before = Failing(errno.ENOSPC, calls=("write",))
        assert nodes.put(leader, "second", 2) == 0
        nodes.tick_until(lambda: follower.storage_failure is not None, "the follower to fail")
        assert leader._SyncObj__raftMatchIndex[follower.selfNode] < leader.raftCommitIndex
        assert follower.values.get("second") is None
        assert nodes.put(leader, "third", 3) == 0


def test_a_node_whose_disk_fails_answers_every_pending_command_with_a_failure(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        disk = WatchedDisk()
        node = nodes.start(nodes.addresses[0], fs=disk)
        nodes.wait_for_leader()
        disk.before = Failing(errno.EIO, calls=("sync_data",))
        answers = []
        for number in range(20):
            node.put(number, number, callback=lambda _, reason: answers.append(reason))
        nodes.tick_until(lambda: len(answers) == 20, "all answers")
        assert all(answers), answers
