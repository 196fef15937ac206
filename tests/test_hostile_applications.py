"""What an application, or a peer, can do to a node without breaking its promises."""

from __future__ import annotations

import errno
import gzip
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from clusters import (
    KV,
    cluster,
    fast_conf,
    free_addresses,
    node_with_own_serializer,
    offer_snapshot,
    tick_until,
)
from pysyncobj import FAIL_REASON
from pysyncobj.transport import TCPTransport
from watched_disk import Failing, WatchedDisk

from raftwal import WAL, RaftStorage


def entries_on_disk(node):
    log = WAL.open_for_read(f"{node.data_dir}/wal").read_all()
    return [entry.index for entry in log.entries]


def test_a_snapshot_whose_last_entry_the_log_holds_never_drops_what_follows_it(tmp_path):
    """The entries behind it may have been acknowledged, in the same poll even."""
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        for number in range(20):
            nodes.put(leader, number, number)
        nodes.wait_for_values({number: number for number in range(20)})
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        journal = follower._durable_node.journal
        held = journal[:]
        previous, last = held[-6], held[-5]
        dump = gzip.compress(pickle.dumps(({"values": {}}, last, previous, set())))
        # As if nothing were applied yet: only the log can tell that it is not needed.
        follower._SyncObj__raftLastApplied = 2
        offer_snapshot(follower, dump)
        assert journal[:] == held
        follower._SyncObj__raftLastApplied = last[1] + 4


def test_an_old_snapshot_does_not_roll_back_an_application_with_its_own_deserializer(tmp_path):
    (address,) = free_addresses(1)
    node, values, _ = node_with_own_serializer(address, tmp_path / "n")
    tick_until(node, node._isLeader)
    for number in range(10):
        values.set(number, number)
    tick_until(node, lambda: len(values) == 10)
    journal = node._durable_node.journal
    # The leader's no-op and three values.
    assert journal[4][1] == 5
    old = pickle.dumps(({0: 0, 1: 1, 2: 2}, (journal[4], journal[3], set())))
    applied = node.raftLastApplied
    offer_snapshot(node, old)
    assert len(values) == 3
    tick_until(node, lambda: node.raftLastApplied == applied)
    assert dict(values.rawData()) == {number: number for number in range(10)}
    node.destroy()


def test_a_tick_callback_that_raises_does_not_put_success_before_the_disk(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])

        def raises():
            raise RuntimeError("the application's own")

        node.addOnTickCallback(raises)
        answers = []
        node.put("a", 1, callback=lambda _, reason: answers.append(reason))
        on_disk = []
        deadline = time.monotonic() + 30
        while not answers and time.monotonic() < deadline:
            with pytest.raises(RuntimeError, match="the application's own"):
                node.doTick(0.001)
            if answers:
                on_disk = entries_on_disk(node)
        assert answers == [0]
        assert on_disk[-1] >= node.raftLastApplied


def test_an_interrupt_during_a_save_lets_nothing_leave(tmp_path):
    with cluster(tmp_path) as nodes:
        disks = {}
        for address in nodes.addresses:
            disks[address] = WatchedDisk()
            nodes.start(address, fs=disks[address])
        leader = nodes.wait_for_leader()
        nodes.put(leader, "first", 1)

        def interrupt(call, path, arguments):
            if call == "sync_data":
                raise KeyboardInterrupt

        disks[leader.selfNode.id].before = interrupt
        answers = []
        leader.put("second", 2, callback=lambda _, reason: answers.append(reason))
        with pytest.raises(KeyboardInterrupt):
            while True:
                leader.doTick(0.002)
        leader.doTick(0.002)
        assert answers and answers[0] != FAIL_REASON.SUCCESS
        assert leader.storage_failure is not None


def test_a_callback_that_tries_again_at_once_does_not_keep_a_failed_node_busy(tmp_path):
    hooked = []
    with cluster(tmp_path, size=1) as nodes:
        disk = WatchedDisk()
        node = nodes.start(nodes.addresses[0], fs=disk, on_storage_failure=hooked.append)
        nodes.wait_for_leader()
        answers = []

        def again(_, reason):
            answers.append(reason)
            node.put("again", 1, callback=again)

        disk.before = Failing(errno.EIO, calls=("sync_data",))
        node.put("first", 1, callback=again)
        nodes.tick_until(lambda: bool(hooked), "the hook")
        for _ in range(5):
            node.doTick(0.0)
        assert 2 <= len(answers) < 20
        assert all(answers)


def test_after_destroy_nothing_is_answered_with_success(tmp_path):
    (address,) = free_addresses(1)
    node = KV(address, [], tmp_path / "n")
    while not node._isLeader():
        node.doTick(0.002)
    node.destroy()
    answers = []
    node.put("late", 1, callback=lambda _, reason: answers.append(reason))
    for _ in range(20):
        node.doTick(0.0)
    assert answers == [FAIL_REASON.REQUEST_DENIED]


def test_a_deserializer_that_gives_lists_loses_no_entries(tmp_path):
    (address,) = free_addresses(1)
    state = {}

    def serializer(file_name, data):
        last, previous, nodes = data[:3]
        with open(file_name, "w") as file:
            entries = [[entry[0].hex(), *entry[1:]] for entry in (last, previous)]
            json.dump([state, entries, [node.id for node in nodes]], file)

    def deserializer(file_name):
        with open(file_name) as file:
            loaded, entries, nodes = json.load(file)
        state.clear()
        state.update(loaded)
        return (*([bytes.fromhex(entry[0]), *entry[1:]] for entry in entries), nodes)

    class Keeper(KV):
        def __init__(self):
            conf = fast_conf(serializer=serializer, deserializer=deserializer, fullDumpFile="no")
            super().__init__(address, [], tmp_path / "n", conf)

    node = Keeper()

    answers = []
    tick_until(node, node._isLeader)
    node.put("before", 1, callback=lambda _, reason: answers.append(reason))
    tick_until(node, lambda: len(answers) == 1)
    node.forceLogCompaction()
    tick_until(node, lambda: node._durable_node.storage.snapshot_metadata.index > 0)
    node.put("after", 2, callback=lambda _, reason: answers.append(reason))
    tick_until(node, lambda: len(answers) == 2)
    last = node._durable_node.journal[-1]
    node.destroy()
    node = Keeper()
    node.doTick(0.0)
    assert last in node._durable_node.journal[:]
    node.destroy()


def test_a_flipped_bit_in_a_received_snapshot_is_found_by_its_checksum(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        state = {"values": {"key": "v" * 200}}
        dump = gzip.compress(pickle.dumps((state, (b"\1", 90, 1), (b"\1", 89, 1), set())), 0)
        position = dump.index(b"vvvv") + 50
        damaged = dump[:position] + bytes((dump[position] ^ 1,)) + dump[position + 1 :]
        offer_snapshot(node, damaged)
        assert node._durable_node.storage.snapshot_metadata.index == 0


def test_a_snapshot_executor_that_was_shut_down_is_no_failure_of_the_node(tmp_path):
    executor = ThreadPoolExecutor(1)
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0], executor=executor)
        nodes.wait_for_leader()
        assert nodes.put(node, "a", 1) == 0
        executor.shutdown()
        node.forceLogCompaction()
        assert nodes.put(node, "b", 2) == 0
        assert node.storage_failure is None


def test_a_state_callback_that_raises_does_not_keep_the_hook_from_being_called(tmp_path):
    hooked = []

    def raises(old, new):
        raise RuntimeError("the application's own")

    with cluster(tmp_path, size=1) as nodes:
        disk = WatchedDisk()
        node = nodes.start(nodes.addresses[0], fs=disk, on_storage_failure=hooked.append)
        nodes.wait_for_leader()
        node.conf.onStateChanged = raises
        disk.before = Failing(errno.EIO, calls=("sync_data",))
        node.put("a", 1)
        nodes.tick_until(lambda: bool(hooked), "the hook")
        node.conf.onStateChanged = None


def test_destroy_of_a_node_whose_last_sync_fails_returns(tmp_path):
    (address,) = free_addresses(1)
    disk = WatchedDisk()
    node = KV(address, [], tmp_path / "n", fs=disk)
    disk.before = Failing(errno.EIO, calls=("sync_data",))
    node.destroy()
    RaftStorage.open(tmp_path / "n").close()


def test_a_leader_that_contradicts_what_is_committed_stops_the_node(tmp_path):
    """A peer that lost its log would otherwise take this node's state with it."""
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        for number in range(5):
            nodes.put(node, number, number)
        journal = node._durable_node.journal
        index = journal[-2][1]
        journal.deleteEntriesFrom(len(journal) - 2)
        journal.add(b"\0other", index, 99)
        nodes.tick_until(lambda: node.storage_failure is not None, "the node to stop")
        assert "is committed here" in node.healthy()


def test_a_transport_factory_is_guarded_like_a_class(tmp_path):
    (address,) = free_addresses(1)
    made = []

    def factory(*arguments):
        made.append(TCPTransport(*arguments))
        return made[0]

    node = KV(address, [], tmp_path / "n", transport=factory)
    assert made[0].send.__qualname__.startswith("SendBarrier.")
    node.destroy()
