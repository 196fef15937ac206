"""`install()` under applications of every kind, none of which knows of it."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from clusters import fast_conf, free_addresses, tick_until
from documented import installed, settings
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.batteries import ReplCounter
from pysyncobj.node import TCPNode
from pysyncobj.transport import TCPTransport
from switchboard import Switchboard, SwitchedTransport
from watched_disk import Failing, WatchedDisk

import raftwal
from raftwal import WAL
from raftwal.pysyncobj import install
from raftwal.pysyncobj.installation import DIRECTORY_SUFFIX


@pytest.fixture(autouse=True)
def _installed():
    with installed():
        yield


class Counter(SyncObj):
    """The least that an application is."""

    def __init__(self, address, others, conf, **arguments):
        super().__init__(address, others, conf, **arguments)
        self.count = 0

    @replicated
    def add(self, number=1):
        self.count += number
        return self.count


def counted(node, *arguments):
    answers = []
    node.add(*arguments, callback=lambda *answer: answers.append(answer))
    tick_until(node, lambda: bool(answers))
    assert answers[0][1] == FAIL_REASON.SUCCESS
    return answers[0][0]


@pytest.fixture
def address():
    return free_addresses(1)[0]


@pytest.fixture
def journal(tmp_path):
    return str(tmp_path / "journal")


def is_durable(node):
    return type(node._SyncObj__raftLog).__name__ == "DurableJournal"


class AsksTheDisk(TCPTransport):
    """An application's transport: it has a message of its own, and looks at what leaves.

    With each acknowledgement it notes whether the disk has what is acknowledged.
    """

    def __init__(self, sync_obj, self_node, others):
        super().__init__(sync_obj, self_node, others)
        self.setOnUtilityMessageCallback("names", sync_obj.names)

    def send(self, node, message):
        if message["type"] == "next_node_idx" and message["success"]:
            log = WAL.open_for_read(f"{self._syncObj.journal}{DIRECTORY_SUFFIX}/wal").read_all()
            last = log.entries[-1].index if log.entries else 0
            self._syncObj.acknowledged.append(last >= message["next_node_idx"] - 1)
        return super().send(node, message)


class Base(SyncObj):
    """The lower half of an application: who its members are."""

    def __init__(self, address, others, journal):
        self.journal = journal
        self.acknowledged = []
        self.seen_applied = 0
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=False,
            appendEntriesPeriod=0.02,
            raftMinTimeout=0.3,
            raftMaxTimeout=0.6,
            connectionRetryTime=0.05,
            commandsWaitLeader=False,
            dynamicMembershipChange=True,
            fullDumpFile=f"{journal}.dump",
            journalFile=journal,
        )
        super().__init__(address, others, conf=conf, transportClass=AsksTheDisk)

    def names(self, arguments, callback):
        callback(sorted(node.id for node in self.otherNodes), None)

    def _onTick(self, timeToWait=0.0):
        super()._onTick(timeToWait)
        self.seen_applied = max(self.seen_applied, self.raftLastApplied)

    def getStatus(self):
        return {**super().getStatus(), "seen_applied": self.seen_applied}


class Ticking(Base):
    """The upper half: its state, its thread, and what it does when it leads."""

    def __init__(self, address, others, journal):
        self.thread = None
        self.stopping = False
        super().__init__(address, others, journal)
        self.values = {}
        self.swept = 0

    @replicated
    def put(self, key, value):
        self.values[key] = value
        return value

    @replicated
    def sweep(self):
        self.swept += 1

    def _onTick(self, timeToWait=0.0):
        super()._onTick(timeToWait)
        if self._isLeader() and self.swept == 0:
            self.sweep()

    def _autoTickThread(self):
        while not self.stopping:
            self.doTick(0.005)

    def start(self):
        self.thread = threading.Thread(target=self._autoTickThread)
        self.thread.start()

    def destroy(self):
        self.stopping = True
        if self.thread is not None:
            self.thread.join()
        super().destroy()

    def retried(self, method, *arguments):
        """As applications do: again, until it is told that it has been done."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            done = threading.Event()
            answers = []
            method(*arguments, callback=lambda *a, e=done, w=answers: (w.append(a), e.set()))
            assert done.wait(30)
            if answers[0][1] == FAIL_REASON.SUCCESS:
                return answers[0][0]
            done.clear()
            done.wait(0.02)
        raise AssertionError("no success within 30 s")


def test_an_application_with_its_own_transport_ticks_threads_and_layers(tmp_path):
    addresses = free_addresses(3)

    def start():
        nodes = [
            Ticking(address, [a for a in addresses if a != address], str(tmp_path / f"{number}"))
            for number, address in enumerate(addresses)
        ]
        for node in nodes:
            node.start()
        return nodes

    expected = {}
    for turn in range(2):
        nodes = start()
        try:
            for number, node in enumerate(nodes):
                key = f"{turn} {number}"
                expected[key] = key
                assert node.retried(node.put, key, key) == key
            deadline = time.monotonic() + 30
            while not all(node.values == expected and node.swept for node in nodes):
                assert time.monotonic() < deadline
                threading.Event().wait(0.01)
            for node in nodes:
                assert is_durable(node)
                assert all(node.acknowledged)
                status = node.getStatus()
                assert status["storage_failure"] is None
                assert status["seen_applied"] > 1
            assert any(node.acknowledged for node in nodes)
        finally:
            for node in nodes:
                node.destroy()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.raftwal",
        "1.raftwal",
        "2.raftwal",
    ]


def test_arguments_by_name(address, journal):
    class ByName(SyncObj):
        def __init__(self):
            SyncObj.__init__(
                self,
                otherNodes=iter(()),
                selfNode=address,
                conf=fast_conf(journalFile=journal),
                consumers=None,
            )

    node = ByName()
    assert is_durable(node)
    node.destroy()


def test_a_transport_object_that_gives_out_what_arrives_between_the_ticks(tmp_path):
    """One that the application has made before, and works itself."""
    board = Switchboard()
    addresses = free_addresses(2)
    lines, nodes = [], []

    class NotYet:
        """Where there is no SyncObj yet, nothing can be registered with it."""

        def addOnTickCallback(self, callback):
            self.callback = callback

    for number, address in enumerate(addresses):
        (other,) = (each for each in addresses if each != address)
        own, others = TCPNode(address), [TCPNode(other)]
        lines.append(SwitchedTransport(board, NotYet(), own, others))
        conf = fast_conf(journalFile=str(tmp_path / str(number)))
        nodes.append(Counter(own, others, conf, transport=lines[-1]))

    def tick():
        for node, line in zip(nodes, lines, strict=True):
            node.doTick(0.0)
            line._on_tick()

    answers = []
    deadline = time.monotonic() + 30
    while not any(node._isLeader() for node in nodes):
        tick()
        assert time.monotonic() < deadline
    leader = next(node for node in nodes if node._isLeader())
    leader.add(5, callback=lambda *answer: answers.append(answer))
    while not answers or not all(node.count == 5 for node in nodes):
        tick()
        assert time.monotonic() < deadline
    assert answers == [(5, FAIL_REASON.SUCCESS)]
    for node in nodes:
        node.destroy()
    for number in range(2):
        assert raftwal.wal_exists(str(tmp_path / f"{number}.raftwal" / "wal"))


def test_a_storage_failure_is_in_the_status_and_the_application_can_end(tmp_path, address, journal):
    disk, told, ticks = WatchedDisk(), [], []

    class Mine(Counter):
        def _onTick(self, timeToWait=0.0):
            super()._onTick(timeToWait)
            ticks.append(1)

        def getStatus(self):
            return {**super().getStatus(), "mine": True}

    install(settings()._replace(fs=disk, on_storage_failure=told.append))
    node = Mine(address, [], fast_conf(journalFile=journal))
    assert counted(node) == 1
    disk.before = Failing(errno.EIO, calls=("sync_data",))
    answers = []
    node.add(callback=lambda *answer: answers.append(answer))
    tick_until(node, lambda: bool(answers))
    assert answers[0][1] in (FAIL_REASON.UNKNOWN_OUTCOME, FAIL_REASON.REQUEST_DENIED)
    assert len(told) == 1
    status = node.getStatus()
    assert "Input/output error" in status["storage_failure"]
    assert status["mine"] is True
    before = len(ticks)
    node.doTick(0.0)
    assert len(ticks) == before + 1, "the application's own tick goes on"
    disk.before = None
    node.destroy()


def test_a_transport_is_destroyed_once(address, journal):
    """It is the application's: nothing says that it could take that twice."""
    destroyed = []

    class Mine(TCPTransport):
        def destroy(self):
            destroyed.append(1)
            super().destroy()

    conf = fast_conf(journalFile=journal, autoTick=True, autoTickPeriod=0.005)
    node = Counter(address, [], conf, transportClass=Mine)
    assert node.add(sync=True, timeout=30) == 1
    node.destroy_synchronous()
    node.destroy()
    assert destroyed == [1]


def test_a_node_that_is_destroyed_in_a_callback_is_gone_when_the_tick_is_over(address, journal):
    node = Counter(address, [], fast_conf(journalFile=journal))
    answers = []

    def end(*answer):
        answers.append(answer)
        node.destroy()

    node.add(callback=end)
    tick_until(node, lambda: bool(answers))
    assert answers == [(1, FAIL_REASON.SUCCESS)]
    node.doTick(0.0)
    node = Counter(address, [], fast_conf(journalFile=journal))
    assert counted(node) == 2
    node.destroy()


def test_a_program_that_ends_without_a_word_leaves_all_that_was_answered(tmp_path, address):
    """Its last thread gone, a node's thread ends by itself, and so does the process."""
    program = """
        import sys
        from pysyncobj import SyncObj, SyncObjConf
        from pysyncobj.batteries import ReplCounter
        import raftwal.pysyncobj
        raftwal.pysyncobj.install()
        counter = ReplCounter()
        conf = SyncObjConf(
            journalFile="journal", autoTickPeriod=0.005, raftMinTimeout=0.31, raftMaxTimeout=0.4
        )
        node = SyncObj(sys.argv[1], [], conf, consumers=[counter])
        print(counter.inc(sync=True, timeout=30))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), address],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    counter = ReplCounter()
    conf = fast_conf(journalFile=str(tmp_path / "journal"))
    node = SyncObj(address, [], conf, consumers=[counter])
    tick_until(node, lambda: counter.get() == 1)
    node.destroy()
