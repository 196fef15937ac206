"""A snapshot of a PySyncObj node is taken in a forked child, and nothing waits for that."""

from __future__ import annotations

import errno
import gzip
import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pysyncobj.serializer
import pytest
import structlog
from clusters import KV, cluster, fast_conf, free_addresses, tick_until
from pysyncobj.batteries import (
    ReplCounter,
    ReplDict,
    ReplList,
    ReplPriorityQueue,
    ReplQueue,
    ReplSet,
)
from watched_disk import WatchedDisk

import raftwal
from raftwal import RaftStorage
from raftwal.errors import InvalidSettingError, RaftwalError
from raftwal.pysyncobj import DurableSyncObj, forked_pickle, serializer
from raftwal.pysyncobj.dump import open_dump
from raftwal.pysyncobj.forked_pickle import ForkedPickle

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="the system does not tell a process's state"
)


class Stops:
    """Stops the process that pickles it, until it is told to go on."""

    def __reduce__(self):
        if os.getpid() != PARENT:
            os.kill(os.getpid(), signal.SIGSTOP)
        return str, ("went on",)


class Kills:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(60)


class Leaves:
    def __reduce__(self):
        os._exit(3)


class Sleeps:
    def __reduce__(self):
        while True:
            time.sleep(60)


PARENT = os.getpid()


def state_of(pid):
    """The letter that the kernel has for it; ``None`` when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def wait_until(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.002)


def child_of(node) -> int:
    return node._SyncObj__serializer._child._pid


def snapshot_index(node) -> int:
    return node._durable_node.storage.snapshot_metadata.index


def dumped(node):
    """The state in the node's newest snapshot."""
    with open_dump(node._durable_node.storage) as dump:
        return pickle.loads(gzip.decompress(dump.read(0, dump.size)))[0]


def fill(nodes, node, count):
    for number in range(count):
        assert nodes.put(node, number, number) == 0


def take(nodes, node):
    before = snapshot_index(node)
    node.forceLogCompaction()
    nodes.tick_until(lambda: snapshot_index(node) > before, "a snapshot")
    nodes.tick()


@pytest.fixture
def single(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        yield nodes, node


@pytest.fixture
def events():
    with structlog.testing.capture_logs() as captured:
        yield captured


def begin_and_stop(nodes, node):
    """Begin a snapshot whose child stops half-way; its pid."""
    node.values["stops"] = Stops()
    node.forceLogCompaction()
    nodes.tick_until(lambda: node._SyncObj__serializer._child is not None, "a child")
    pid = child_of(node)
    wait_until(lambda: state_of(pid) == "T", "the child to stop")
    node.values["stops"] = None
    return pid


def told_of_failure(events, what):
    """Whether a snapshot failed for a reason that says so."""
    return any(
        event["event"] == "snapshot_not_saved" and what in event["error"] for event in events
    )


def test_commands_go_on_while_a_snapshot_is_taken_and_are_not_in_it(single):
    nodes, node = single
    fill(nodes, node, 10)
    pid = begin_and_stop(nodes, node)
    for number in range(10, 20):
        assert nodes.put(node, number, number) == 0
    assert snapshot_index(node) == 0
    os.kill(pid, signal.SIGCONT)
    nodes.tick_until(lambda: snapshot_index(node) > 0, "the snapshot")
    state = dumped(node)["values"]
    assert state.pop("stops") == "went on"
    assert state == {number: number for number in range(10)}
    nodes.stop(node.selfNode.id)
    again = nodes.start(nodes.addresses[0])
    nodes.tick_until(lambda: 19 in again.values, "what followed on the snapshot")


def test_no_child_is_left_whatever_becomes_of_it(single, events, monkeypatch):
    monkeypatch.setattr(serializer, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(forked_pickle, "SILENT_SECONDS", 1)
    nodes, node = single
    fill(nodes, node, 3)
    for value, reason in (
        (Kills(signal.SIGKILL), "was killed by SIGKILL: as the kernel does when memory runs out"),
        (Kills(signal.SIGSEGV), "was killed by SIGSEGV"),
        (Leaves(), "left early, with exit status 3"),
        (Sleeps(), "made no progress for 1 seconds"),
        (lambda: None, "the state cannot be pickled: "),
        (threading.Lock(), "the state cannot be pickled: TypeError: cannot pickle"),
    ):
        node.values["bad"] = value
        node.forceLogCompaction()
        nodes.tick_until(lambda: node._SyncObj__serializer._child is not None, "a child")
        pid = child_of(node)
        nodes.tick_until(lambda r=reason: told_of_failure(events, r), f"to be told: {reason}")
        assert state_of(pid) is None, reason
    assert snapshot_index(node) == 0
    assert node.storage_failure is None
    del node.values["bad"]
    take(nodes, node)
    assert set(dumped(node)["values"]) == {0, 1, 2}
    assert os.listdir(nodes.data_dir(node.selfNode.id) / "snap") == [
        f"{node.raftCurrentTerm:016x}-{snapshot_index(node):016x}.snap"
    ]


def test_a_snapshot_that_failed_is_tried_again_after_some_time_only(single, events, monkeypatch):
    nodes, node = single
    fill(nodes, node, 3)
    node.values["bad"] = Leaves()
    node.forceLogCompaction()
    nodes.tick_until(lambda: told_of_failure(events, "status 3"), "the failure")
    del node.values["bad"]
    node.forceLogCompaction()
    for _ in range(20):
        nodes.tick()
    assert node._SyncObj__serializer._child is None
    now = time.monotonic() + serializer.RETRY_SECONDS
    monkeypatch.setattr(serializer.time, "monotonic", lambda: now)
    take(nodes, node)


def test_closing_the_node_ends_the_child(single):
    nodes, node = single
    fill(nodes, node, 3)
    pid = begin_and_stop(nodes, node)
    nodes.stop(node.selfNode.id)
    assert state_of(pid) is None
    node = nodes.start(nodes.addresses[0])
    assert node.recovered.snapshot is None
    nodes.tick_until(lambda: set(node.values) == {0, 1, 2}, "the values")


def test_snapshots_follow_on_each_other(single):
    nodes, node = single
    for number in range(4):
        assert nodes.put(node, number, number) == 0
        take(nodes, node)
        assert dumped(node)["values"] == {key: key for key in range(number + 1)}
    assert node.getStatus()["log_len"] < 5


def test_an_applications_own_children_are_left_to_it(single):
    nodes, node = single
    fill(nodes, node, 3)
    own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    wait_until(lambda: state_of(own.pid) == "Z", "the application's child to end")
    take(nodes, node)
    assert own.wait() == 7


def test_an_application_that_waits_for_every_child_gets_its_snapshots(single):
    """It takes the exit status, and what the child sent is whole all the same."""
    nodes, node = single
    fill(nodes, node, 3)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        take(nodes, node)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert set(dumped(node)["values"]) == {0, 1, 2}


def test_a_stream_that_is_cut_is_no_snapshot_whatever_the_exit_status(monkeypatch):
    """A child whose status another part of the application took, and that did not end well."""
    child = ForkedPickle.begin({"state": [os.urandom(1000) for _ in range(5000)]}, 1)
    chunks = child.chunks()
    next(chunks)
    os.kill(child._pid, signal.SIGKILL)
    os.waitpid(child._pid, 0)
    with pytest.raises(RaftwalError, match="the application took its exit status"):
        list(chunks)


@pytest.mark.parametrize("uses_fork", [True, False])
def test_the_batteries_and_consumers_come_back_from_a_snapshot(tmp_path, uses_fork):
    (address,) = free_addresses(1)

    def start():
        consumers = [
            ReplCounter(),
            ReplDict(),
            ReplList(),
            ReplSet(),
            ReplQueue(),
            ReplPriorityQueue(),
        ]
        node = DurableSyncObj(
            address,
            [],
            fast_conf(useFork=uses_fork),
            consumers=consumers,
            data_dir=tmp_path / "node",
        )
        node.own = "the node's own state"
        tick_until(node, node._isLeader)
        return node, consumers

    node, (counter, mapping, sequence, collection, queue, priorities) = start()
    counter.set(41)
    counter.inc()
    mapping.set("key", "value")
    sequence.append("item")
    collection.add("member")
    queue.put("first")
    priorities.put(3)
    priorities.put(1)
    tick_until(node, lambda: priorities.qsize() == 2)
    node.own = "changed"
    node.forceLogCompaction()
    tick_until(node, lambda: snapshot_index(node) > 0)
    node.destroy()

    node, (counter, mapping, sequence, collection, queue, priorities) = start()
    tick_until(node, lambda: priorities.qsize() == 2)
    assert node.recovered.snapshot is not None
    assert not node.recovered.entries
    assert (counter.get(), mapping["key"], sequence.rawData()) == (42, "value", ["item"])
    assert collection.rawData() == {"member"}
    assert (queue.qsize(), node.own) == (1, "changed")
    got = []
    priorities.get(callback=lambda item, _: got.append(item))
    tick_until(node, lambda: bool(got))
    assert got == [1]
    node.destroy()


def test_without_a_fork_the_dump_holds_the_same(tmp_path):
    states = []
    for uses_fork in (True, False):
        with cluster(tmp_path / str(uses_fork), size=1, useFork=uses_fork) as nodes:
            node = nodes.start(nodes.addresses[0])
            nodes.wait_for_leader()
            fill(nodes, node, 20)
            take(nodes, node)
            assert node._SyncObj__serializer._child is None
            states.append(dumped(node))
    assert states[0] == states[1]
    assert states[0]["values"] == {number: number for number in range(20)}


@pytest.mark.parametrize("uses_fork", [True, False])
def test_every_level_of_compression_is_loaded_by_pysyncobj_itself(tmp_path, uses_fork):
    sizes = {}
    for level in (0, 9):
        with cluster(tmp_path / str(level), size=1, useFork=uses_fork) as nodes:
            node = nodes.start(nodes.addresses[0], snapshot_compression=level)
            nodes.wait_for_leader()
            assert nodes.put(node, "text", "twice, twice " * 1000) == 0
            take(nodes, node)
            with open_dump(node._durable_node.storage) as dump:
                sizes[level] = dump.size
                (tmp_path / "dump").write_bytes(dump.read(0, dump.size))
            plain = pysyncobj.serializer.Serializer(
                str(tmp_path / "dump"), 1 << 16, True, None, None, None
            )
            state, last, before, members = plain.deserialize()
            assert state["values"] == {"text": "twice, twice " * 1000}
            assert last[1] == before[1] + 1 == snapshot_index(node)
            assert [member.id for member in members] == nodes.addresses
    assert sizes[0] > 13000
    assert sizes[9] < 1000


@pytest.mark.parametrize("level", [-1, 10, "fast"])
def test_a_level_of_compression_that_is_none_is_refused_and_leaves_nothing_open(tmp_path, level):
    (address,) = free_addresses(1)
    with pytest.raises(InvalidSettingError, match="snapshot_compression is 0 to 9"):
        KV(address, [], tmp_path / "node", snapshot_compression=level)
    RaftStorage.open(tmp_path / "node", identity=raftwal.Identity(address)).close()


def test_a_fork_that_the_system_refuses_costs_the_snapshot_and_no_more(single, events, monkeypatch):
    nodes, node = single
    fill(nodes, node, 3)

    def refuse():
        raise BlockingIOError("no process to be had")

    open_files = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        node.forceLogCompaction()
        nodes.tick()
    assert any(event["event"] == "snapshot_not_taken" for event in events)
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert nodes.put(node, "goes on", 1) == 0


@pytest.mark.parametrize("place", [".spool.tmp", ".snap.tmp"], ids=["spool", "file"])
def test_a_full_disk_costs_the_snapshot_and_no_more(tmp_path, events, monkeypatch, place):
    monkeypatch.setattr(serializer, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr("raftwal.snapshots.CHUNK_BYTES", 1000)

    def fail(call, path, _):
        if call == "write" and path.endswith(place):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    disk = WatchedDisk(fail)
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0], fs=disk)
        nodes.wait_for_leader()
        # More than its pipe takes.
        assert nodes.put(node, "large", os.urandom(300_000)) == 0
        node.forceLogCompaction()
        nodes.tick_until(lambda: node._SyncObj__serializer._child is not None, "a child")
        pid = child_of(node)
        nodes.tick_until(lambda: told_of_failure(events, "No space left"), "to be told")
        assert state_of(pid) is None
        assert os.listdir(nodes.data_dir(node.selfNode.id) / "snap") == []
        assert node.storage_failure is None
        disk.before = None
        take(nodes, node)


def test_the_child_holds_nothing_open_of_its_parents_but_the_pipe(tmp_path):
    """Not the port, not the log's lock, no connection: what the parent closes is closed."""
    with open(tmp_path / "file", "wb"):
        child = ForkedPickle.begin(Stops(), 1)
        wait_until(lambda: state_of(child._pid) == "T", "the child to stop")
        left = {
            os.readlink(f"/proc/{child._pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{child._pid}/fd")
            if int(fd) > 2
        }
        pipe = os.readlink(f"/proc/self/fd/{child._pipe}")
        # When memory runs out, the kernel takes the child before the node.
        score = Path(f"/proc/{child._pid}/oom_score_adj").read_text()
        child.close()
    assert left == {pipe}
    assert score == "1000\n"


def test_memory_of_the_reading_side_does_not_grow_with_the_state():
    """Pieces come as they are made; and one value may be larger than all buffers."""
    state = [os.urandom(3 << 20), *(os.urandom(50) for _ in range(60000))]
    largest = total = 0
    whole = io.BytesIO()
    for chunk in ForkedPickle.begin(state, 1).chunks():
        largest = max(largest, len(chunk))
        total += len(chunk)
        whole.write(chunk)
    assert pickle.loads(gzip.decompress(whole.getvalue())) == state
    assert total > 5 << 20
    assert largest < 1.1 * (1 << 20)


APPLICATION = """
    import atexit, os, select, signal, sys
    from pysyncobj import SyncObjConf, replicated
    from raftwal.pysyncobj import DurableSyncObj

    address, directory, told = sys.argv[1:]

    def tell(what):
        with open(told, "a") as file:
            file.write(f"{what} {os.getpid() == own}\\n")

    own = os.getpid()
    atexit.register(tell, "atexit")
    signal.signal(signal.SIGTERM, lambda *_: tell("SIGTERM"))

    class Stops:
        def __reduce__(self):
            os.kill(os.getpid(), signal.SIGSTOP)
            return str, ("went on",)

    class Node(DurableSyncObj):
        def __init__(self):
            super().__init__(address, [], SyncObjConf(autoTick=False), data_dir=directory)
            self.values = {}

        @replicated
        def put(self, key, value):
            self.values[key] = value

    # In the main thread, whose end is the end of a process.
    node = Node()
    while not node._isLeader():
        node.doTick(0.005)
    node.put(1, 1)
    while not node.values:
        node.doTick(0.005)
    node.values["stops"] = Stops()
    node.forceLogCompaction()
    serializer = node._SyncObj__serializer
    while serializer._child is None:
        node.doTick(0.005)
    print(serializer._child._pid, flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        node.doTick(0.005)
    if sys.stdin.readline() == "destroy\\n":
        node.destroy()
"""


@pytest.fixture
def application(tmp_path):
    """A process that runs a node whose child has stopped in the middle of a snapshot."""
    (address,) = free_addresses(1)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", textwrap.dedent(APPLICATION)),
            *(address, str(tmp_path / "node"), str(tmp_path / "told")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(raftwal.__file__))},
    )
    child = 0
    try:
        child = int(process.stdout.readline())
        wait_until(lambda: state_of(child) == "T", "the child to stop")
        process.child = child
        process.address = address
        yield process
    finally:
        if child and state_of(child) is not None:
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, None], ids=["ended by a signal", "done"])
def test_no_handler_of_the_application_runs_in_the_child(application, tmp_path, number):
    """Neither those of a signal nor those of the end."""
    if number is not None:
        os.kill(application.child, number)
    os.kill(application.child, signal.SIGCONT)
    wait_until(lambda: state_of(application.child) is None, "the child to end")
    assert not (tmp_path / "told").exists()
    application.stdin.write("destroy\n")
    application.stdin.flush()
    assert application.wait(30) == 0
    assert (tmp_path / "told").read_text() == "atexit True\n"


def test_a_program_that_ends_without_a_word_does_not_wait_for_its_child(application, tmp_path):
    application.stdin.write("leave\n")
    application.stdin.flush()
    assert application.wait(30) == 0
    assert state_of(application.child) is None


def test_a_node_that_is_killed_starts_again_although_its_child_is_still_there(
    application, tmp_path
):
    application.kill()
    application.wait()
    assert state_of(application.child) == "T"
    node = KV(application.address, [], tmp_path / "node")
    tick_until(node, lambda: node.values == {1: 1})
    node.destroy()
    # It goes away by itself: nobody reads what it writes.
    os.kill(application.child, signal.SIGCONT)
    wait_until(lambda: state_of(application.child) in (None, "Z"), "the child to end")
