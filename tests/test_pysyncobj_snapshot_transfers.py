"""A snapshot on its way from a leader to a peer: in pieces, in bounded memory, checked."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
import random
import threading

import pytest
import structlog
from clusters import KV, cluster, fast_conf, free_addresses
from pysyncobj import FAIL_REASON, SyncObj, replicated
from pysyncobj.batteries import ReplDict
from pysyncobj.transport import TCPTransport
from watched_disk import WatchedDisk

from raftwal.pysyncobj import DurableSyncObj, snapshot_sending

BATCH_BYTES = 1000


class Watched(TCPTransport):
    """Every append_entries that is sent with a snapshot's piece or with none, of all nodes.

    ``change`` is given each piece and gives what is sent in its place.
    """

    sent: list = []  # noqa: RUF012  # one list for all, emptied by the fixture
    change = staticmethod(lambda piece: piece)

    def send(self, node, message):
        if isinstance(message, dict) and "serialized" in message:
            message = {**message, "serialized": Watched.change(message["serialized"])}
            Watched.sent.append((node.id, message["serialized"]))
        return super().send(node, message)


@pytest.fixture
def sent(monkeypatch):
    monkeypatch.setattr(Watched, "sent", [])
    monkeypatch.setattr(Watched, "change", staticmethod(lambda piece: piece))
    return Watched.sent


def change(monkeypatch, function):
    monkeypatch.setattr(Watched, "change", staticmethod(function))


def pieces_to(sent, address):
    return [piece for node, piece in sent if node == address and piece is not None]


@pytest.fixture
def events():
    with structlog.testing.capture_logs() as captured:
        yield captured


def names_of(events):
    return [event["event"] for event in events]


def large(number, size=20_000):
    """What gzip cannot make smaller."""
    return random.Random(number).randbytes(size)


def snapshot_index(node):
    return node._durable_node.storage.snapshot_metadata.index


def take(nodes, node):
    before = snapshot_index(node)
    node.forceLogCompaction()
    nodes.tick_until(lambda: snapshot_index(node) > before, "a snapshot")
    # Until PySyncObj was told of it, and has let go of the log before it.
    nodes.tick_until(lambda: node._SyncObj__raftLog[0][1] >= before, "a short log")


class Lagging:
    """A cluster whose last node misses what the leader has compacted away since."""

    def __init__(self, nodes, values=10, size=20_000):
        self.nodes = nodes
        nodes.start_all(transport=Watched)
        # Nobody need wait for the timeout.
        nodes.nodes[nodes.addresses[0]]._SyncObj__raftElectionDeadline = 0
        leader = nodes.wait_for_leader()
        self.address = next(one for one in nodes.addresses if one != leader.selfNode.id)
        nodes.stop(self.address)
        self.expected = {}
        for number in range(values):
            self.put(number, large(number, size))
        for node in nodes.nodes.values():
            take(nodes, node)
        self.put("after", "the snapshot")

    @property
    def leader(self):
        return self.nodes.wait_for_leader()

    def put(self, key, value):
        assert self.nodes.put(self.leader, key, value) == 0
        self.expected[key] = value

    def start(self, **settings):
        self.node = self.nodes.start(self.address, transport=Watched, **settings)
        return self.node

    def catch_up(self):
        self.nodes.tick_until(lambda: self.node.values == self.expected, "the node to catch up")


def lagging(directory, **conf):
    # On a busy machine, too, a leader stays one for as long as a transfer takes.
    timeouts = {"raftMinTimeout": 0.4, "raftMaxTimeout": 0.8}
    return cluster(directory, logCompactionBatchSize=BATCH_BYTES, **{**timeouts, **conf})


def test_a_node_that_fell_behind_gets_a_snapshot_in_pieces(tmp_path, sent, events):
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        node = case.start()
        case.catch_up()
        pieces = pieces_to(sent, case.address)
        assert len(pieces) > 200
        assert [is_first for _, is_first, _ in pieces] == [True] + [False] * (len(pieces) - 1)
        assert [is_last for _, _, is_last in pieces] == [False] * (len(pieces) - 1) + [True]
        assert all(len(piece) <= BATCH_BYTES for piece, _, _ in pieces)
        assert names_of(events).count("snapshot_installed") == 1
        assert snapshot_index(node) > 9
        # And it is there for good.
        nodes.stop_all()
        node = nodes.start(case.address)
        nodes.tick_until(lambda: len(node.values) >= 10, "the snapshot's values")
        assert node.values[9] == large(9)


def test_a_node_that_installed_a_snapshot_asks_at_once_for_what_follows_it(tmp_path, monkeypatch):
    """What came meanwhile was not taken, and the leader counts it as sent."""
    answers = []
    send = Watched.send

    def noting(self, node, message):
        if isinstance(message, dict) and message.get("type") == "next_node_idx":
            answers.append((message["success"], message["reset"], message["next_node_idx"]))
        return send(self, node, message)

    monkeypatch.setattr(Watched, "send", noting)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes, values=3)
        node = case.start()
        case.catch_up()
        assert (True, True, snapshot_index(node) + 1) in answers


def test_a_large_snapshot_is_received_into_a_file_and_leaves_none(tmp_path, sent, monkeypatch):
    monkeypatch.setattr("raftwal.snapshots.CHUNK_BYTES", 10_000)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        spools = []

        def note(call, path, _):
            if call == "create" and path.endswith(".spool.tmp"):
                spools.append(path)

        case.start(fs=WatchedDisk(note))
        case.catch_up()
        directory = nodes.data_dir(case.address) / "snap"
        assert [os.path.dirname(path) for path in spools] == [str(directory)]
        nodes.stop_all()
        assert all(path.suffix == ".snap" for path in directory.iterdir())


@pytest.mark.parametrize("place", [0, -2], ids=["first", "last"])
def test_a_piece_that_was_damaged_on_the_way_costs_the_transfer_and_nothing_else(
    tmp_path, sent, events, monkeypatch, place
):
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        count = -(-sum(len(value) for value in case.expected.values()) // BATCH_BYTES)
        wanted = place if place >= 0 else count + place
        seen = [0]

        def damage(piece):
            if piece is not None:
                seen[0] += 1
                if seen[0] == wanted + 1:
                    data = bytearray(piece[0])
                    data[len(data) // 2] ^= 1
                    return bytes(data), *piece[1:]
            return piece

        change(monkeypatch, damage)
        node = case.start()
        nodes.tick_until(
            lambda: "snapshot_received_damaged" in names_of(events), "the damage to be found"
        )
        assert snapshot_index(node) == 0
        assert node.values == {}
        assert node.storage_failure is None
        case.catch_up()
        assert names_of(events).count("snapshot_received_damaged") == 1


def test_a_snapshot_that_is_purged_while_it_is_sent_is_sent_to_its_end(tmp_path, sent, monkeypatch):
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", 10 * BATCH_BYTES)
        case.start()
        nodes.tick_until(lambda: len(pieces_to(sent, case.address)) >= 20, "some pieces")
        directory = nodes.data_dir(case.leader.selfNode.id) / "snap"
        for path in directory.iterdir():
            path.unlink()
        case.catch_up()
        assert [is_first for _, is_first, _ in pieces_to(sent, case.address)].count(True) == 1


def test_no_file_stays_open_behind_a_transfer(tmp_path, sent, monkeypatch):
    def open_snapshots():
        links = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                continue
        return [link for link in links if ".snap" in link]

    monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", 10 * BATCH_BYTES)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        assert open_snapshots() == []
        case.start()
        nodes.tick_until(lambda: len(pieces_to(sent, case.address)) >= 20, "some pieces")
        assert len(open_snapshots()) == 1
        # The peer goes away in the middle of it.
        nodes.stop(case.address)
        nodes.tick_until(lambda: open_snapshots() == [], "the file to be closed")
        case.start()
        case.catch_up()
        nodes.tick_until(lambda: open_snapshots() == [], "the file to be closed")
        nodes.stop(case.address)
        case.start()
        nodes.tick_until(lambda: len(pieces_to(sent, case.address)) >= 20, "some pieces")
    assert open_snapshots() == []


def test_what_waits_for_the_network_stays_bounded(tmp_path, sent, monkeypatch):
    """PySyncObj asks for pieces as long as its period lasts, whatever the network takes."""
    limit = 20 * BATCH_BYTES
    monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", limit)
    with lagging(tmp_path, sendBufferSize=1 << 12, recvBufferSize=1 << 12) as nodes:
        case = Lagging(nodes)
        case.start()
        leader = case.leader
        connections = leader._SyncObj__transport._connections
        most = 0
        nodes.tick_until(lambda: bool(pieces_to(sent, case.address)), "the first piece")
        for _ in range(100):
            # The peer reads nothing.
            leader.doTick(0.002)
            waiting = [one.getSendBufferSize() for one in connections.values()]
            most = max(most, *waiting)
        assert most > 0
        assert most < 2 * limit


def test_a_peer_that_waits_for_a_snapshot_costs_one_message_a_round(tmp_path, sent, monkeypatch):
    """PySyncObj would send that there is none, again and again, for as long as its period."""
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        leader = case.leader
        sending = leader._SyncObj__serializer._sending
        with monkeypatch.context() as patch:
            patch.setattr(sending, "_has_snapshot", lambda: False)
            case.start()
            nodes.tick_until(lambda: len(sent) >= 3, "a round")
            ticks = [0]
            before = len(sent)

            def ticked():
                ticks[0] += 1
                return ticks[0] == 50

            nodes.tick_until(ticked, "50 ticks")
            assert 0 < len(sent) - before <= 50
        case.catch_up()


def test_a_transfer_that_takes_long_ends_neither_the_connection_nor_the_leadership(
    tmp_path, sent, monkeypatch
):
    """PySyncObj answers no piece; its leader hears nothing, and takes the node for gone."""
    monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", 4 * BATCH_BYTES)
    conf = {"raftMaxTimeout": 0.5, "connectionTimeout": 0.6, "leaderFallbackTimeout": 0.5}
    with lagging(tmp_path, size=2, **conf) as nodes:
        nodes.start_all(transport=Watched)
        leader = nodes.wait_for_leader()
        behind = next(node for node in nodes.nodes.values() if node is not leader)
        for number in range(12):
            assert nodes.put(leader, number, large(number)) == 0
        take(nodes, leader)
        term = leader.raftCurrentTerm
        sent.clear()
        # As if it had lost its disk: it asks for everything.
        leader._SyncObj__raftNextIndex[behind.selfNode] = 1
        nodes.tick_until(
            lambda: any(is_last for _, _, is_last in pieces_to(sent, behind.selfNode.id)),
            "the whole snapshot",
        )
        pieces = pieces_to(sent, behind.selfNode.id)
        assert len(pieces) > 200
        assert [is_first for _, is_first, _ in pieces].count(True) == 1
        assert leader._isLeader()
        assert leader.raftCurrentTerm == term


def test_a_leader_takes_its_next_snapshot_when_it_has_sent_this_one(tmp_path, sent, monkeypatch):
    """It would take away the entries that follow on the one that is sent; and so on, for ever."""
    monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", 10 * BATCH_BYTES)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        leader = case.leader
        index = snapshot_index(leader)
        node = case.start()
        nodes.tick_until(lambda: len(pieces_to(sent, case.address)) >= 20, "some pieces")
        case.put("more", "entries")
        leader.forceLogCompaction()
        nodes.tick_until(lambda: snapshot_index(leader) > index, "the leader's next snapshot")
        pieces = pieces_to(sent, case.address)
        assert [is_first for _, is_first, _ in pieces].count(True) == 1
        assert pieces[-1][2]
        case.catch_up()
        assert node.values["more"] == "entries"


def test_a_peer_that_makes_no_progress_does_not_keep_a_leader_from_its_snapshots(
    tmp_path, sent, monkeypatch
):
    monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", 10 * BATCH_BYTES)
    monkeypatch.setattr(snapshot_sending, "PROGRESS_SECONDS", 0.0)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        leader = case.leader
        case.start()
        nodes.tick_until(lambda: len(pieces_to(sent, case.address)) >= 20, "some pieces")
        with monkeypatch.context() as patch:
            sending = leader._SyncObj__serializer._sending
            patch.setattr(sending, "_is_enough_for_now", lambda *_: True)
            case.put("more", "entries")
            take(nodes, leader)
        case.catch_up()


def test_a_peer_that_never_takes_a_snapshot_in_does_not_keep_a_leader_from_the_next(
    tmp_path, sent, events, monkeypatch
):
    """A full disk there, most likely: the leader's log must not grow with it for ever."""
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        leader = case.leader
        node = case.start()
        with monkeypatch.context() as patch:

            def refuse(*_):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(node._durable_node.storage, "save_snapshot_stream", refuse)
            nodes.tick_until(
                lambda: names_of(events).count("snapshot_not_installed") >= 2, "failures"
            )
            index = snapshot_index(leader)
            leader.forceLogCompaction()
            case.put("more", "entries")
            nodes.tick_until(
                lambda: names_of(events).count("snapshot_not_installed") >= 4, "failures"
            )
            assert snapshot_index(leader) == index
            patch.setattr(snapshot_sending, "MOST_SECONDS", 0.0)
            nodes.tick_until(lambda: snapshot_index(leader) > index, "the next snapshot")
        case.catch_up()


def test_a_leader_does_not_begin_anew_while_the_snapshot_is_examined(tmp_path, sent, monkeypatch):
    """What follows on it does not fit yet, and PySyncObj would ask for all of it once more."""
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        node = case.start()
        opener = node._SyncObj__serializer._opener
        prepare, may_go_on = opener.prepare, threading.Event()

        def prepare_slowly(read, size):
            assert may_go_on.wait(60)
            return prepare(read, size)

        monkeypatch.setattr(opener, "prepare", prepare_slowly)
        try:
            nodes.tick_until(
                lambda: any(is_last for *_, is_last in pieces_to(sent, case.address)), "the last"
            )
            case.put("meanwhile", 1)
            leader, term = case.leader, case.leader.raftCurrentTerm
            index = snapshot_index(leader)
            # However long it takes to open it.
            monkeypatch.setattr(snapshot_sending, "PROGRESS_SECONDS", 0.0)
            leader.forceLogCompaction()
            for _ in range(100):
                # As if it had been held up by what it opens.
                node._SyncObj__raftElectionDeadline = 0
                nodes.tick()
            assert node.values == {}
            assert (node.raftCurrentTerm, leader._isLeader()) == (term, True)
            assert snapshot_index(leader) == index
        finally:
            may_go_on.set()
        case.catch_up()
        nodes.tick_until(lambda: snapshot_index(leader) > index, "the leader's next snapshot")
        assert [is_first for _, is_first, _ in pieces_to(sent, case.address)].count(True) == 1
        assert nodes.leader is leader


def test_the_leader_of_another_term_begins_anew(tmp_path, sent, monkeypatch):
    monkeypatch.setattr(snapshot_sending, "ROUND_BYTES", 10 * BATCH_BYTES)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        first = case.leader
        case.start()
        nodes.tick_until(lambda: len(pieces_to(sent, case.address)) >= 20, "some pieces")
        second = next(
            node for node in nodes.nodes.values() if node not in (first, nodes.nodes[case.address])
        )
        first.transferLeadership(second.selfNode.id)
        nodes.tick_until(second._isLeader, "another leader")
        nodes.tick_until(lambda: not first._SyncObj__serializer._sending._transfers, "the end")
        case.catch_up()


def test_a_first_piece_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("raftwal.snapshots.CHUNK_BYTES", 10)
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        serializer = node._SyncObj__serializer
        state = {"values": {"sent": 1}}
        dump = gzip.compress(pickle.dumps((state, (b"\1", 90, 1), (b"\1", 89, 1), [])))
        for piece in (
            (b"the beginning of something else", True, False),
            (dump[:40], True, False),
            (dump[40:], False, False),
            (b"", False, True),
            (b"behind the last", False, False),
        ):
            assert serializer.setTransmissionData(piece) is False
        nodes.tick_until(lambda: node.values == {"sent": 1}, "the snapshot to be loaded")
        assert snapshot_index(node) == 90
        assert node.raftLastApplied == 90
        nodes.stop_all()
        names = os.listdir(nodes.data_dir(nodes.addresses[0]) / "snap")
        assert [name for name in names if name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("place", "error"),
    [(".spool.tmp", errno.ENOSPC), (".snap.tmp", errno.EIO)],
    ids=["spool", "file"],
)
def test_a_disk_that_does_not_take_what_is_received_costs_the_transfer_and_not_the_node(
    tmp_path, events, error, place, monkeypatch, sent
):
    monkeypatch.setattr("raftwal.snapshots.CHUNK_BYTES", 10_000)
    with lagging(tmp_path) as nodes:
        case = Lagging(nodes)
        failed = []

        def fail(call, path, _):
            if call == "write" and path.endswith(place) and len(failed) < 2:
                failed.append(path)
                raise OSError(error, os.strerror(error), path)

        node = case.start(fs=WatchedDisk(fail))
        case.catch_up()
        assert len(failed) == 2
        told = "snapshot_not_received" if place == ".spool.tmp" else "snapshot_not_installed"
        assert names_of(events).count(told) == 2
        assert node.storage_failure is None


class StateInAFile:
    """An application that writes and reads its dump itself."""

    def __init__(self, address, partners, data_dir, **settings):
        self.values = ReplDict()
        conf = fast_conf(
            serializer=self.write, deserializer=self.read, fullDumpFile="x", **settings
        )
        self.node = DurableSyncObj(
            address, partners, conf, consumers=[self.values], data_dir=data_dir
        )

    def write(self, path, data):
        with open(path, "wb") as file:
            pickle.dump((dict(self.values.rawData()), data), file)

    def read(self, path):
        with open(path, "rb") as file:
            state, data = pickle.load(file)
        self.values._ReplDict__data = state
        return data


def test_an_application_with_its_own_serializer_catches_up_by_snapshot(tmp_path, events):
    addresses = free_addresses(3)
    nodes = {}

    def start(address):
        partners = [one for one in addresses if one != address]
        nodes[address] = StateInAFile(
            address, partners, tmp_path / address, logCompactionBatchSize=BATCH_BYTES
        )

    def tick_until(condition, what):
        for _ in range(8000):
            if condition():
                return
            for one in nodes.values():
                one.node.doTick(0.002)
        raise AssertionError(what)

    def leader():
        return next((one for one in nodes.values() if one.node._isLeader()), None)

    def put(key, value):
        answers = []
        while answers[-1:] != [FAIL_REASON.SUCCESS]:
            tick_until(leader, "a leader")
            before = len(answers)
            leader().values.set(key, value, callback=lambda _, reason: answers.append(reason))
            tick_until(lambda before=before: len(answers) > before, "an answer")

    for address in addresses:
        start(address)
    tick_until(leader, "a leader")
    behind = next(address for address in addresses if address != leader().node.selfNode.id)
    nodes.pop(behind).node.destroy()
    tick_until(leader, "a leader")
    for number in range(10):
        put(number, large(number))
    tick_until(lambda: all(len(one.values) == 10 for one in nodes.values()), "the values")
    for one in list(nodes.values()):
        one.node.forceLogCompaction()
        tick_until(lambda one=one: snapshot_index(one.node) > 0, "a snapshot")
    put("after", "the snapshot")
    start(behind)
    tick_until(lambda: len(nodes[behind].values) == 11, "the node to catch up")
    assert nodes[behind].values.rawData() == {
        **{number: large(number) for number in range(10)},
        "after": "the snapshot",
    }
    assert "snapshot_installed" in names_of(events)
    for one in nodes.values():
        one.node.destroy()
    directory = tmp_path / behind / "snap"
    assert not [name for name in os.listdir(directory) if name.endswith(".tmp")]


def test_a_plain_pysyncobj_node_takes_a_snapshot_from_a_durable_one(tmp_path):
    """And the other way round: its dump is in the format that it has always been in."""

    class Plain(SyncObj):
        def __init__(self, address, partners, directory, **conf):
            super().__init__(
                address, partners, fast_conf(fullDumpFile=str(directory / "dump"), **conf)
            )
            self.values = {}

        @replicated
        def put(self, key, value):
            self.values[key] = value
            return len(self.values)

    addresses = free_addresses(2)
    durable = KV(addresses[0], [], tmp_path / "durable", fast_conf(dynamicMembershipChange=True))
    nodes = [durable]

    def tick_until(condition, what):
        for _ in range(8000):
            if condition():
                return
            for one in nodes:
                one.doTick(0.002)
        raise AssertionError(what)

    tick_until(durable._isLeader, "a leader")
    for number in range(10):
        # A node on its own stays the leader.
        durable.put(number, large(number))
    tick_until(lambda: len(durable.values) == 10, "the values")
    durable.forceLogCompaction()
    tick_until(lambda: snapshot_index(durable) > 0, "a snapshot")
    durable.addNodeToCluster(addresses[1])
    tick_until(lambda: len(durable.otherNodes) == 1, "the other as a member")
    plain = Plain(
        addresses[1],
        [addresses[0]],
        tmp_path,
        dynamicMembershipChange=True,
        logCompactionBatchSize=BATCH_BYTES,
    )
    nodes.append(plain)
    tick_until(lambda: plain.values == durable.values, "the plain node to have the state")
    for node in nodes:
        node.destroy()
