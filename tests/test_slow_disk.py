"""A disk that does not answer holds up what depends on it, and nothing else."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from clusters import KV, cluster
from pysyncobj import FAIL_REASON
from watched_disk import WatchedDisk

from raftwal import RaftStorage


class SlowDisk(WatchedDisk):
    """The real disk; while it is ``stuck``, no sync of the given kinds returns."""

    def __init__(self, calls=("sync_data", "sync")) -> None:
        self._answers = threading.Event()
        self._answers.set()
        self.waiting = threading.Event()
        self._kinds = calls
        super().__init__(self._wait)

    def stick(self) -> None:
        self.waiting.clear()
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    def _wait(self, call, path, arguments) -> None:
        if call in self._kinds and not self._answers.is_set():
            self.waiting.set()
            assert self._answers.wait(60), "nobody had the disk answer"


@contextmanager
def slow_cluster(directory, size=3, **conf):
    """Nodes, and a list for their disks: all of them answer before the nodes are stopped."""
    disks: list[SlowDisk] = []
    with cluster(directory, size, **conf) as nodes:
        try:
            yield nodes, disks
        finally:
            for disk in disks:
                disk.answer()


def start_all(nodes, disks):
    """A leader and its disk, followers and theirs."""
    by_address = {}
    for address in nodes.addresses:
        by_address[address] = SlowDisk()
        disks.append(by_address[address])
        nodes.start(address, fs=by_address[address])
    leader = nodes.wait_for_leader()
    assert nodes.put(leader, "first", 0) == FAIL_REASON.SUCCESS
    nodes.wait_for_values({"first": 0})
    others = [node for node in nodes.nodes.values() if node is not leader]
    return leader, others, {node: by_address[node.selfNode.id] for node in nodes.nodes.values()}


def ask(node, key):
    answers = []
    node.put(key, key, callback=lambda _, reason: answers.append(reason))
    return answers


def tick_through_elections(nodes, leader):
    """As many heartbeats as would fit into several election timeouts (0.4 s at most)."""
    received = []
    for node in nodes.nodes.values():
        if node is not leader:
            handler = node._SyncObj__raftLog.begin_handler

            def counting(*, commits, handler=handler):
                received.append(commits)
                handler(commits=commits)

            node._SyncObj__raftLog.begin_handler = counting
    wanted = 100 * (len(nodes.nodes) - 1)  # one every 0.02 s
    nodes.tick_until(lambda: len(received) >= wanted, "heartbeats")


def test_a_leader_whose_disk_is_stuck_goes_on_leading_and_commits_with_the_others(tmp_path):
    with slow_cluster(tmp_path) as (nodes, disks):
        leader, _, disk_of = start_all(nodes, disks)
        term = leader.raftCurrentTerm
        disk_of[leader].stick()
        for number in range(20):
            assert nodes.put(leader, number, number) == FAIL_REASON.SUCCESS
        assert disk_of[leader].waiting.is_set()
        tick_through_elections(nodes, leader)
        assert leader._isLeader()
        assert {node.raftCurrentTerm for node in nodes.nodes.values()} == {term}
        journal = leader._SyncObj__raftLog
        assert journal.durable_index < leader.raftCommitIndex
        disk_of[leader].answer()
        nodes.tick_until(lambda: journal.durable_index == journal[-1][1], "the leader's disk")
        nodes.wait_for_values({"first": 0, **{number: number for number in range(20)}})


def test_a_leader_does_not_count_its_own_copy_before_it_is_durable(tmp_path):
    """With one follower's, its copy would be a majority of three."""
    with slow_cluster(tmp_path) as (nodes, disks):
        leader, (quick, stuck), disk_of = start_all(nodes, disks)
        disk_of[leader].stick()
        disk_of[stuck].stick()
        answers = ask(leader, "x")
        last = leader._SyncObj__raftLog[-1][1] + 1
        nodes.tick_until(
            lambda: leader._SyncObj__raftMatchIndex[quick.selfNode] >= last, "one follower's copy"
        )
        tick_through_elections(nodes, leader)
        assert answers == []
        assert leader.raftCommitIndex < last
        disk_of[leader].answer()
        nodes.tick_until(lambda: bool(answers), "the answer")
        assert answers == [FAIL_REASON.SUCCESS]
        assert stuck._SyncObj__raftLog.durable_index < last


def test_a_node_alone_answers_when_its_copy_is_durable(tmp_path):
    with slow_cluster(tmp_path, size=1) as (nodes, disks):
        leader, _, disk_of = start_all(nodes, disks)
        disk_of[leader].stick()
        answers = ask(leader, "x")
        nodes.tick_until(disk_of[leader].waiting.is_set, "the save to begin")
        for _ in range(50):
            nodes.tick()
        assert answers == []
        assert "x" not in leader.values
        disk_of[leader].answer()
        nodes.tick_until(lambda: bool(answers), "the answer")
        assert answers == [FAIL_REASON.SUCCESS]


def test_a_follower_whose_disk_is_stuck_follows_on_and_acknowledges_nothing(tmp_path):
    with slow_cluster(tmp_path) as (nodes, disks):
        leader, (stuck, _), disk_of = start_all(nodes, disks)
        term = leader.raftCurrentTerm
        before = leader._SyncObj__raftMatchIndex[stuck.selfNode]
        disk_of[stuck].stick()
        for number in range(20):
            assert nodes.put(leader, number, number) == FAIL_REASON.SUCCESS
        tick_through_elections(nodes, leader)
        assert leader._isLeader()
        assert stuck._getLeader() == leader.selfNode
        assert {node.raftCurrentTerm for node in nodes.nodes.values()} == {term}
        assert leader._SyncObj__raftMatchIndex[stuck.selfNode] == before
        disk_of[stuck].answer()
        last = leader._SyncObj__raftLog[-1][1]
        nodes.tick_until(
            lambda: leader._SyncObj__raftMatchIndex[stuck.selfNode] == last, "it to acknowledge"
        )


def test_a_vote_does_not_leave_before_the_disk_answers_and_is_given_then(tmp_path):
    with slow_cluster(tmp_path) as (nodes, disks):
        leader, followers, disk_of = start_all(nodes, disks)
        for node in followers:
            disk_of[node].stick()
        nodes.stop(leader.selfNode.id)
        # Each wants to lead, in one term after another; neither gets the other's vote.
        first = max(node.raftCurrentTerm for node in followers)
        nodes.tick_until(
            lambda: min(node.raftCurrentTerm for node in followers) > first + 3, "elections"
        )
        assert not any(node._isLeader() for node in followers)
        for node in followers:
            disk_of[node].answer()
        nodes.wait_for_leader()


def test_what_comes_up_during_a_sync_is_covered_by_the_next_one(tmp_path):
    with slow_cluster(tmp_path, size=1) as (nodes, disks):
        leader, _, disk_of = start_all(nodes, disks)
        disk = disk_of[leader]
        disk.stick()
        answers = [ask(leader, "first")]
        nodes.tick_until(disk.waiting.is_set, "the first sync")
        before = disk.count("sync_data")
        journal = leader._SyncObj__raftLog
        last = journal[-1][1]
        for number in range(200):
            answers.append(ask(leader, number))
        nodes.tick_until(lambda: journal[-1][1] == last + 200, "all commands in the log")
        disk.answer()
        nodes.tick_until(lambda: all(answers), "all answers")
        # The one that was stuck, one for all the commands, one for a commit index at most.
        assert disk.count("sync_data") - before <= 3


def test_destroy_waits_for_what_is_on_its_way_and_saves_the_rest(tmp_path):
    with slow_cluster(tmp_path, size=1) as (nodes, disks):
        leader, _, disk_of = start_all(nodes, disks)
        disk = disk_of[leader]
        disk.stick()
        ask(leader, "on its way")
        nodes.tick_until(disk.waiting.is_set, "the save to begin")
        ask(leader, "waiting")
        leader.doTick(0.0)
        threading.Timer(0.05, disk.answer).start()
        data_dir, last = leader.data_dir, leader._SyncObj__raftLog[-1][1]
        nodes.stop(leader.selfNode.id)
        with RaftStorage.open(data_dir) as storage:
            assert storage.last_index == last


def test_a_follower_that_installs_a_snapshot_on_a_stuck_disk_follows_on(tmp_path):
    with slow_cluster(tmp_path, logCompactionMinEntries=10) as (nodes, disks):
        leader, (late, _), _ = start_all(nodes, disks)
        address = late.selfNode.id
        nodes.stop(address)
        for number in range(100):
            assert nodes.put(leader, number, number) == FAIL_REASON.SUCCESS
        nodes.tick_until(lambda: leader._SyncObj__raftLog[0][1] > 50, "a snapshot")
        disk = SlowDisk(calls=("rename",))
        disks.append(disk)
        late = nodes.start(address, fs=disk)
        disk.stick()
        nodes.tick_until(disk.waiting.is_set, "the snapshot to be received")
        assert late._durable_node.is_installing
        term = leader.raftCurrentTerm
        tick_through_elections(nodes, leader)
        assert leader._isLeader()
        assert leader.raftCurrentTerm == term
        assert late.raftLastApplied < 50
        disk.answer()
        nodes.wait_for_values({"first": 0, **{number: number for number in range(100)}})
        assert not late._durable_node.is_installing


def test_the_end_of_a_save_ends_the_poll_of_the_thread_that_ticks(tmp_path):
    """Otherwise each answer would wait for the end of a tick's whole time."""
    with slow_cluster(tmp_path, size=1) as (nodes, disks):
        leader, _, disk_of = start_all(nodes, disks)
        disk_of[leader].stick()
        answers = ask(leader, "x")
        nodes.tick_until(disk_of[leader].waiting.is_set, "the save to begin")
        polled = threading.Event()
        poll = leader._poller.poll

        def polling(timeout):
            polled.set()
            poll(timeout)

        leader._poller.poll = polling
        ticker = threading.Thread(target=lambda: leader.doTick(60.0))
        ticker.start()
        assert polled.wait(30)
        disk_of[leader].answer()
        ticker.join(30)
        assert not ticker.is_alive()
        leader._poller.poll = poll
        nodes.tick_until(lambda: bool(answers), "the answer")


def test_a_storage_that_failed_stops_the_node_although_nothing_else_happens(tmp_path):
    failures = []
    with slow_cluster(tmp_path, size=1) as (nodes, disks):

        class Broken(SlowDisk):
            def _wait(self, call, path, arguments) -> None:
                was_stuck = not self._answers.is_set()
                super()._wait(call, path, arguments)
                if was_stuck and call in self._kinds:
                    raise OSError(5, "broken")

        disk = Broken()
        disks.append(disk)
        node: KV = nodes.start(nodes.addresses[0], fs=disk, on_storage_failure=failures.append)
        nodes.wait_for_leader()
        disk.stick()
        answers = ask(node, "x")
        nodes.tick_until(disk.waiting.is_set, "the save to begin")
        ticker = threading.Thread(target=lambda: node.doTick(60.0))
        ticker.start()
        disk.answer()
        ticker.join(30)
        assert not ticker.is_alive()
        assert answers == [FAIL_REASON.UNKNOWN_OUTCOME]
        assert len(failures) == 1
        # Kept for who asks; its frames would keep the node and all of its state.
        assert node.storage_failure.__traceback__ is None
        assert node.storage_failure.__cause__.__traceback__ is None
