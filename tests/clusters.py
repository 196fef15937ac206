"""PySyncObj nodes on raftwal in this process, for tests that look inside them."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from pysyncobj import SyncObjConf, replicated
from pysyncobj.batteries import ReplDict
from pysyncobj.transport import TCPTransport

from raftwal.pysyncobj import DurableSyncObj, StorageSettings


def free_addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def fast_conf(**settings) -> SyncObjConf:
    return SyncObjConf(
        **{
            "autoTick": False,
            "appendEntriesUseBatch": False,
            "appendEntriesPeriod": 0.02,
            "raftMinTimeout": 0.15,
            "raftMaxTimeout": 0.4,
            "connectionRetryTime": 0.05,
            "connectionTimeout": 1.5,
            "leaderFallbackTimeout": 1.0,
            **settings,
        }
    )


def tick_until(node, condition: Callable[[], bool], seconds: float = 30) -> None:
    """Tick one node by hand until something has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        node.doTick(0.002)


class KV(DurableSyncObj):
    """A replicated dictionary that counts what it applied."""

    def __init__(self, address, partners, data_dir, conf=None, transport=TCPTransport, **settings):
        super().__init__(
            address,
            partners,
            conf or fast_conf(),
            transportClass=transport,
            data_dir=data_dir,
            settings=StorageSettings(
                **{"segment_bytes": 1 << 16, "registry": CollectorRegistry(), **settings}
            ),
        )
        self.values = {}

    @replicated
    def put(self, key, value):
        self.values[key] = value
        return len(self.values)


def offer_snapshot(node, dump: bytes, seconds: float = 30) -> None:
    """Have a node receive a dump as from its leader, and wait until it has looked at it."""
    serializer = node._SyncObj__serializer
    assert serializer.setTransmissionData((dump, True, False)) is False
    assert serializer.setTransmissionData((b"", False, True)) is False
    deadline = time.monotonic() + seconds
    while node._durable_node.is_examining_snapshot:
        assert time.monotonic() < deadline, f"not within {seconds} s"
        serializer.checkSerializing()
        time.sleep(0.002)


def node_with_own_serializer(address: str, data_dir: Path):
    """A node on its own whose application writes and reads its dump itself.

    Returns the node, the dictionary that it replicates, and the names of the files that
    it was asked to write.
    """
    values = ReplDict()
    written: list[str] = []

    def serializer(file_name, data):
        written.append(file_name)
        with open(file_name, "wb") as file:
            pickle.dump((dict(values.rawData()), data), file)

    def deserializer(file_name):
        with open(file_name, "rb") as file:
            state, data = pickle.load(file)
        values._ReplDict__data = state
        return data

    conf = fast_conf(serializer=serializer, deserializer=deserializer, fullDumpFile="not used")
    node = DurableSyncObj(address, [], conf, consumers=[values], data_dir=data_dir)
    return node, values, written


class Cluster:
    """Nodes ticked by hand, in turn, in one thread."""

    def __init__(self, directory: Path, size: int = 3, node_class=KV, **conf) -> None:
        self.directory = directory
        self.addresses = free_addresses(size)
        self.node_class = node_class
        self.conf = conf
        self.nodes: dict[str, KV] = {}

    def start(self, address: str, **settings) -> KV:
        partners = [each for each in self.addresses if each != address]
        node = self.node_class(
            address, partners, self.data_dir(address), fast_conf(**self.conf), **settings
        )
        self.nodes[address] = node
        return node

    def start_all(self, **settings) -> None:
        for address in self.addresses:
            self.start(address, **settings)

    def data_dir(self, address: str) -> Path:
        return self.directory / address.replace(":", "-")

    def stop(self, address: str) -> None:
        self.nodes.pop(address).destroy()

    def stop_all(self) -> None:
        for address in list(self.nodes):
            self.stop(address)

    def tick(self) -> None:
        for node in list(self.nodes.values()):
            node.doTick(0.002)

    def tick_until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            self.tick()

    @property
    def leader(self) -> KV | None:
        leaders = [
            node
            for node in self.nodes.values()
            if node._isLeader() and node.storage_failure is None
        ]
        return leaders[0] if len(leaders) == 1 else None

    def wait_for_leader(self) -> KV:
        def all_follow_one() -> bool:
            leader = self.leader
            return leader is not None and all(
                node._getLeader() == leader.selfNode
                for node in self.nodes.values()
                if node.storage_failure is None
            )

        self.tick_until(all_follow_one, "a leader that all follow")
        leader = self.leader
        assert leader is not None
        return leader

    def put(self, node: KV, key, value) -> int:
        """Put, and tick until it is answered; the failure reason."""
        answers: list[int] = []
        node.put(key, value, callback=lambda _, reason: answers.append(reason))
        self.tick_until(lambda: bool(answers), f"an answer to put {key}")
        return answers[0]

    def wait_for_values(self, expected: dict) -> None:
        self.tick_until(
            lambda: all(node.values == expected for node in self.nodes.values()),
            f"every node to hold {len(expected)} values",
        )


@contextmanager
def cluster(directory: Path, size: int = 3, **conf) -> Iterator[Cluster]:
    made = Cluster(directory, size, **conf)
    try:
        yield made
    finally:
        made.stop_all()
