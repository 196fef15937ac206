"""The settings of log compaction and of sending entries, as PySyncObj documents them."""

from __future__ import annotations

import pickle
import threading

import pytest
from documented import DURABLE, Application, each_way
from pysyncobj import SERIALIZER_STATE, replicated
from pysyncobj.monotonic import monotonic


class Words(Application):
    def begin(self):
        self.words = []

    @replicated
    def put(self, word):
        self.words.append(word)
        return len(self.words)


def snapshot_index(node):
    return node._raftwal_node.storage.snapshot_metadata.index


@each_way
def test_a_log_is_compacted_after_so_many_entries(way, tmp_path):
    with way.nodes(tmp_path, Words, logCompactionMinEntries=10) as nodes:
        node = nodes.start(nodes.addresses[0])
        for number in range(8):
            nodes.call(node.put, number)
        # Two of PySyncObj's own are among them.
        assert (snapshot_index(node), node.getStatus()["log_len"]) == (0, 10)
        nodes.call(node.put, 8)
        nodes.call(node.put, 9)
        nodes.tick_until(lambda: node.getStatus()["log_len"] <= 5, "a short log")
        assert snapshot_index(node) >= 10
        node = nodes.ready(nodes.restart(nodes.addresses[0]))
        assert node.words == list(range(10))


def test_a_log_is_compacted_after_so_much_time(tmp_path):
    with DURABLE.nodes(tmp_path, Words, logCompactionMinTime=0.3) as nodes:
        node = nodes.start(nodes.addresses[0])
        began = monotonic()
        nodes.call(node.put, "a")
        nodes.call(node.put, "b")
        nodes.tick_until(lambda: snapshot_index(node) > 0, "a snapshot")
        assert monotonic() - began >= 0.25
        nodes.tick_until(lambda: node.getStatus()["log_len"] <= 2, "a short log")


def test_a_forced_compaction_comes_at_once_and_once(tmp_path):
    with DURABLE.nodes(tmp_path, Words) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.call(node.put, "a")
        nodes.call(node.put, "b")
        node.forceLogCompaction()
        nodes.tick_until(lambda: snapshot_index(node) > 0, "a snapshot")
        index = snapshot_index(node)
        nodes.call(node.put, "c")
        assert snapshot_index(node) == index
        nodes.compact(node)
        assert snapshot_index(node) > index


def test_with_split_each_node_has_a_time_window_of_its_own(tmp_path):
    interval = 0.6
    conf = {"logCompactionSplit": True, "logCompactionMinTime": interval}
    with DURABLE.nodes(tmp_path, Words, size=2, **conf) as nodes:
        begun = {}
        for address in nodes.addresses:
            node = nodes.start(address)
            serializer = node._SyncObj__serializer
            serialize = serializer.serialize

            def noting(data, id, address=address, serialize=serialize):
                begun.setdefault(address, []).append(monotonic() % interval)
                serialize(data, id)

            serializer.serialize = noting
        leader = nodes.wait_for_leader()
        number = 0
        while not all(snapshot_index(node) > 0 for node in nodes.nodes.values()):
            assert number < 10_000
            nodes.call(leader.put, number := number + 1)
        for position, address in enumerate(sorted(nodes.addresses)):
            opens = position * interval / 2
            assert all(opens <= moment < opens + interval / 2 for moment in begun[address]), begun


@pytest.mark.parametrize("batch", [True, False], ids=["batches", "one by one"])
def test_commands_of_any_size_arrive_whole(tmp_path, batch):
    """Those around the size of a message, too, at which PySyncObj cuts them in pieces."""
    most = 2**12
    conf = {"appendEntriesUseBatch": batch, "appendEntriesBatchSizeBytes": most}
    with DURABLE.nodes(tmp_path, Words, size=2, **conf) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        sizes = [0, 1, 20 * most, *range(most - 120, most + 20, 20), 2 * most - 50, 2 * most]
        answers = []
        for caller in (leader, follower):
            for size in sizes:
                caller.put("w" * size, callback=lambda *answer: answers.append(answer))
        nodes.tick_until(lambda: len(answers) == 2 * len(sizes), "the answers")
        assert {reason for _, reason in answers} == {0}
        expected = sorted(sizes * 2)
        for node in (leader, follower):
            nodes.tick_until(lambda n=node: len(n.words) == len(expected), "all of them")
            assert sorted(map(len, node.words)) == expected
        assert leader.words == follower.words


def test_entries_of_one_message_are_no_more_than_its_size(tmp_path):
    sent = []
    conf = {"appendEntriesUseBatch": True, "appendEntriesBatchSizeBytes": 1000}
    with DURABLE.nodes(tmp_path, Words, size=2, **conf) as nodes:
        for address in nodes.addresses:
            nodes.start(address)
        leader = nodes.wait_for_leader()
        transport = leader._SyncObj__transport
        send = transport.send

        def noting(node, message):
            sent.append([len(entry[0]) for entry in message.get("entries", [])])
            return send(node, message)

        transport.send = noting
        for _ in range(40):
            leader.put("w" * 200)
        nodes.tick_until(
            lambda: all(len(node.words) == 40 for node in nodes.nodes.values()), "all of them"
        )
    assert max(map(len, sent)) > 1, "no message with several"
    assert all(sum(sizes[:-1]) < 1000 for sizes in sent)


class Files:
    """Such an application's serializer, deserializer and serializeChecker."""

    def __init__(self):
        self.words = []
        self.threads = []
        self.fails = False
        self.may_finish = threading.Event()
        self.checks = 0

    def serializer(self, file_name, data):
        content = pickle.dumps((list(self.words), data))
        file = open(file_name, "wb")  # noqa: SIM115  # the thread closes it

        def write():
            with file:
                self.may_finish.wait(30)
                file.write(content)

        self.threads.append(threading.Thread(target=write))
        self.threads[-1].start()

    def check(self):
        self.checks += 1
        if not self.threads:
            return SERIALIZER_STATE.NOT_SERIALIZING
        if self.threads[-1].is_alive():
            return SERIALIZER_STATE.SERIALIZING
        self.threads.pop()
        return SERIALIZER_STATE.FAILED if self.fails else SERIALIZER_STATE.SUCCESS

    def deserializer(self, file_name):
        with open(file_name, "rb") as file:
            words, data = pickle.load(file)
        self.words[:] = words
        return data

    @property
    def conf(self):
        return {
            "serializer": self.serializer,
            "serializeChecker": self.check,
            "deserializer": self.deserializer,
            "fullDumpFile": "as PySyncObj asks",
        }


class Keeper(Application):
    """Its words are kept outside of it, so that only its own serializer has them."""

    @replicated
    def put(self, word):
        self.conf.serializer.__self__.words.append(word)


@each_way
def test_an_application_writes_its_snapshot_itself_and_beside_the_ticks(way, tmp_path):
    with way.nodes(tmp_path, Keeper) as nodes:
        (address,) = nodes.addresses
        files = Files()
        nodes.conf.update(files.conf)
        node = nodes.start(address)
        nodes.call(node.put, "a")
        nodes.call(node.put, "b")
        node.forceLogCompaction()
        nodes.tick_until(lambda: bool(files.threads), "the serializer to be called")
        # The node goes on meanwhile.
        nodes.call(node.put, "c")
        assert files.checks > 0
        assert snapshot_index(node) == 0
        files.may_finish.set()
        nodes.tick_until(lambda: snapshot_index(node) > 0, "the snapshot")
        nodes.tick_until(lambda: node.getStatus()["log_len"] <= 4, "a short log")
        nodes.stop(address)

        files = Files()
        nodes.conf.update(files.conf)
        node = nodes.ready(nodes.start(address))
        assert files.words == ["a", "b", "c"]
        nodes.call(node.put, "d")
        assert files.words == ["a", "b", "c", "d"]


def test_a_snapshot_that_the_application_could_not_write_leaves_the_log_as_it_is(tmp_path):
    with DURABLE.nodes(tmp_path, Keeper) as nodes:
        (address,) = nodes.addresses
        files = Files()
        files.fails = True
        files.may_finish.set()
        nodes.conf.update(files.conf)
        node = nodes.start(address)
        nodes.call(node.put, "a")
        node.forceLogCompaction()
        before = files.checks
        nodes.tick_until(
            lambda: files.checks > before and not files.threads, "the failure to be told"
        )
        nodes.call(node.put, "b")
        assert snapshot_index(node) == 0
        assert node.storage_failure is None
        nodes.stop(address)

        files = Files()
        nodes.conf.update(files.conf)
        nodes.ready(nodes.start(address))
        assert files.words == ["a", "b"]
