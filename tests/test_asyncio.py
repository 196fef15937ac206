"""Nodes in asyncio programs: calls that are awaited, and nodes that live as long as a block."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import KV, Cluster, cluster, fast_conf, free_addresses
from prometheus_client import CollectorRegistry
from pysyncobj import FAIL_REASON, SyncObjConsumer, replicated, replicated_sync
from pysyncobj.batteries import ReplDict, ReplLockManager
from starlette.applications import Starlette
from watched_disk import Failing, WatchedDisk

from raftwal import Identity, RaftStorage
from raftwal.errors import (
    CommandError,
    CommandNotAppliedError,
    CommandOutcomeUnknownError,
    CommandTimeoutError,
    InvalidSettingError,
    LockedError,
    NodeNotReadyError,
)
from raftwal.pysyncobj import (
    DurableSyncObj,
    StorageSettings,
    committed,
    lifespan,
    raises_to_caller,
    running,
    until_leader,
    until_ready,
)

SECONDS = 30
LEADER = 2


def on_a_loop(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 2 * SECONDS))

    return run


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {SECONDS} s"
        await asyncio.sleep(0.005)


class Stock(SyncObjConsumer):
    def __init__(self):
        super().__init__()
        self.goods = {}

    @replicated
    def add(self, name, count=1):
        self.goods[name] = self.goods.get(name, 0) + count
        return self.goods[name]

    @replicated
    @raises_to_caller(KeyError, ZeroDivisionError)
    def take(self, name):
        del self.goods[name]

    @replicated
    @raises_to_caller(KeyError)
    def bad(self):
        raise ValueError("not one of those that are named")


class Node(DurableSyncObj):
    """One that has it all: methods of its own, a consumer, a battery."""

    def __init__(self, address, partners, data_dir, conf=None, with_locks=False, **settings):
        self.table = ReplDict()
        self.stock = Stock()
        self.locks = ReplLockManager(60) if with_locks else None
        super().__init__(
            address,
            partners,
            conf or auto(),
            consumers=[self.table, self.stock, *([self.locks] if self.locks else [])],
            data_dir=data_dir,
            settings=StorageSettings(registry=CollectorRegistry(), **settings),
        )

    @replicated
    def twice(self, number, plus=0):
        return 2 * number + plus

    @replicated_sync
    def at_once(self, number):
        return number + 1

    def destroy(self):
        if self.locks is not None:
            self.locks.destroy()
        super().destroy()


def auto(**settings):
    return fast_conf(autoTick=True, autoTickPeriod=0.005, **settings)


def single(tmp_path, **settings) -> Callable[[], Node]:
    (address,) = free_addresses(1)
    conf = auto(raftMinTimeout=0.05, raftMaxTimeout=0.1, appendEntriesPeriod=0.01)
    return lambda: Node(address, [], tmp_path / "node", conf, **settings)


def opens(directory: Path) -> None:
    """Raises `LockedError` while a node has it."""
    RaftStorage.open(directory).close()


def node_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("raftwal")]


class Gate:
    """A disk whose syncs wait while it is shut."""

    def __init__(self):
        self.disk = WatchedDisk(self._wait)
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def _wait(self, call, path, arguments):
        if call == "sync_data" and not self._open.is_set():
            self.reached.set()
            assert self._open.wait(SECONDS)

    def shut(self):
        self.reached.clear()
        self._open.clear()

    def open(self):
        self._open.set()


# Calls.


@on_a_loop
async def test_an_awaited_call_gives_what_the_method_returned(tmp_path):
    async with running(single(tmp_path, with_locks=True)) as node:
        assert await committed(node.twice, 4) == 8
        assert await committed(node.twice, 4, plus=1) == 9
        assert await committed(node.at_once, 4, timeout=SECONDS) == 5
        assert await committed(node.stock.add, "a", count=3) == 3
        assert await committed(node.table.setdefault, "key", "value", timeout=None) == "value"
        assert await committed(node.locks.tryAcquire, "lock") is True
        assert node.table.get("key") == "value"


@on_a_loop
async def test_calls_that_wait_side_by_side_each_get_their_own_answer(tmp_path):
    async with running(single(tmp_path)) as node:
        numbers = range(300)
        answers = await asyncio.gather(*(committed(node.twice, each) for each in numbers))
        assert answers == [2 * each for each in numbers]


@on_a_loop
async def test_on_each_of_three_nodes_a_call_is_answered_once_that_node_has_it(tmp_path):
    addresses = free_addresses(3)

    def make(address):
        partners = [each for each in addresses if each != address]
        return lambda: Node(address, partners, tmp_path / address.replace(":", "-"))

    async with contextlib.AsyncExitStack() as stack:
        nodes = await asyncio.gather(
            *(stack.enter_async_context(running(make(each))) for each in addresses)
        )
        leaders = {await until_leader(node) for node in nodes}
        assert len(leaders) == 1 and leaders <= set(addresses)
        for number, node in enumerate(nodes):
            await committed(node.table.set, number, number)
            assert node.table.get(number) == number
            assert await committed(node.stock.add, "shared") == number + 1


def test_each_failure_reason_is_an_error_that_says_whether_the_call_may_be_applied():
    certain = {"QUEUE_FULL", "MISSING_LEADER", "NOT_LEADER", "DISCARDED", "REQUEST_DENIED"}
    reasons = {name: value for name, value in vars(FAIL_REASON).items() if name.isupper()}
    del reasons["SUCCESS"]
    # A PySyncObj to come may know more: nothing is claimed of those.
    for name, reason in (reasons | {"99": 99}).items():

        async def refused(reason=reason):
            await committed(lambda callback: callback(None, reason))

        with pytest.raises(CommandError) as caught:
            asyncio.run(refused())
        assert caught.value.reason == name
        assert name in str(caught.value)
        kind = CommandNotAppliedError if name in certain else CommandOutcomeUnknownError
        assert type(caught.value) is kind


async def ticked(nodes: Cluster, call: asyncio.Future):
    """Nodes ticked by hand until the call is answered."""
    call = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    while not call.done():
        nodes.tick()
        await asyncio.sleep(0)
    return await call


def drop(monkeypatch, node, kind: str) -> None:
    """Lose every message of one kind that the node sends."""
    transport = node._SyncObj__transport
    send = transport.send
    monkeypatch.setattr(
        transport,
        "send",
        lambda to, message: message["type"] == kind or send(to, message),
    )


@on_a_loop
async def test_a_call_that_was_discarded_is_applied_nowhere(tmp_path, monkeypatch):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        old = nodes.wait_for_leader()
        others = [node for node in nodes.nodes.values() if node is not old]
        with monkeypatch.context() as lossy:
            drop(lossy, old, "append_entries")
            last = old._SyncObj__raftLog[-1][1]
            call = asyncio.ensure_future(committed(old.put, "lost", 1))
            await asyncio.sleep(0)
            while old._SyncObj__raftLog[-1][1] == last:
                old.doTick(0.0)
            while not any(node._isLeader() for node in others):
                for node in others:
                    node.doTick(0.002)
        with pytest.raises(CommandNotAppliedError, match="DISCARDED"):
            await ticked(nodes, call)
        assert await ticked(nodes, committed(others[0].put, "kept", 2)) == 1
        nodes.wait_for_values({"kept": 2})


@on_a_loop
async def test_a_call_whose_leader_changed_may_be_applied_all_the_same(tmp_path, monkeypatch):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        drop(monkeypatch, leader, "apply_command_response")
        call = asyncio.ensure_future(committed(follower.put, "key", 1))
        await asyncio.sleep(0)
        nodes.wait_for_values({"key": 1})
        assert not call.done()
        follower._SyncObj__raftElectionDeadline = 0
        with pytest.raises(CommandOutcomeUnknownError, match="LEADER_CHANGED"):
            await ticked(nodes, call)


@on_a_loop
async def test_a_change_of_membership_can_be_awaited_and_one_that_changes_nothing_is_denied(
    tmp_path,
):
    with cluster(tmp_path, dynamicMembershipChange=True) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        assert await ticked(nodes, committed(leader.put, "in step", 1)) == 1
        other = next(each for each in nodes.addresses if each != leader.selfNode.id)
        assert await ticked(nodes, committed(leader.removeNodeFromCluster, other)) is None
        assert leader.getStatus()["partner_nodes_count"] == 1
        with pytest.raises(CommandNotAppliedError, match="REQUEST_DENIED"):
            await ticked(nodes, committed(leader.removeNodeFromCluster, other))


@on_a_loop
async def test_a_call_that_is_not_answered_in_time_may_be_applied_later(tmp_path):
    first, second = free_addresses(2)
    make = functools.partial(Node, first, [second], tmp_path / "first")
    async with running(make, ready_within=None) as node:
        with pytest.raises(CommandTimeoutError, match=r"Stock\.add: no answer within 0\.05 s") as e:
            await committed(node.stock.add, "a", timeout=0.05)
        assert isinstance(e.value, TimeoutError) and e.value.reason == "TIMEOUT"
        async with running(lambda: Node(second, [first], tmp_path / "second")) as other:
            await until(lambda: node.stock.goods == other.stock.goods == {"a": 1})


@on_a_loop
async def test_a_call_that_the_queue_has_no_place_for_is_not_applied(tmp_path):
    address, absent = free_addresses(2)
    conf = auto(commandsQueueSize=1)
    make = functools.partial(Node, address, [absent], tmp_path / "node", conf)
    async with running(make, ready_within=None) as node:
        waiting = asyncio.ensure_future(committed(node.twice, 1))
        await asyncio.sleep(0)
        with pytest.raises(CommandNotAppliedError, match="QUEUE_FULL"):
            await committed(node.twice, 2)
        waiting.cancel()


@on_a_loop
async def test_a_call_that_is_not_to_wait_for_a_leader_is_refused_without_one(tmp_path):
    address, absent = free_addresses(2)
    conf = auto(commandsWaitLeader=False)
    make = functools.partial(Node, address, [absent], tmp_path / "node", conf)
    async with running(make, ready_within=None) as node:
        with pytest.raises(CommandNotAppliedError, match="MISSING_LEADER"):
            await committed(node.twice, 2)


@on_a_loop
async def test_a_cancelled_call_stops_waiting_and_may_be_applied_all_the_same(tmp_path):
    gate = Gate()
    async with running(single(tmp_path, fs=gate.disk)) as node:
        gate.shut()
        call = asyncio.ensure_future(committed(node.stock.add, "a"))
        await until(gate.reached.is_set)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        gate.open()
        assert await committed(node.stock.add, "a") == 2


def test_an_answer_that_comes_after_the_loop_was_closed_disturbs_nobody(tmp_path, caplog):
    gate = Gate()
    (address,) = free_addresses(1)
    node = Node(address, [], tmp_path / "node", fs=gate.disk)

    async def leave_a_call_behind():
        await until_ready(node)
        gate.shut()
        with pytest.raises(CommandTimeoutError):
            await committed(node.stock.add, "a", timeout=0.01)

    async def call():
        return await committed(node.stock.add, "a")

    asyncio.run(leave_a_call_behind())
    gate.open()
    assert asyncio.run(call()) == 2
    node.destroy_synchronous()
    assert "_onTick" not in caplog.text


@on_a_loop
async def test_a_full_pipe_to_the_thread_that_ticks_is_no_failure_of_the_call(tmp_path):
    """PySyncObj has queued the command by then."""
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        pipe = node._SyncObj__pipeNotifier._PipeNotifier__pipeW
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, bytes(4096))
        with pytest.raises(BlockingIOError):
            node.put("directly", 1)
        assert await ticked(nodes, committed(node.put, "key", 1)) == 2


@on_a_loop
async def test_arguments_that_cannot_be_sent_are_refused_at_once(tmp_path):
    async with running(single(tmp_path)) as node:
        with pytest.raises((AttributeError, pickle.PicklingError)):
            await committed(node.table.set, "key", lambda: None)
        assert await committed(node.table.pop, "key", "none") == "none"


@on_a_loop
async def test_what_a_method_raises_to_its_caller_is_raised_where_it_is_awaited(tmp_path):
    async with running(single(tmp_path)) as node:
        await committed(node.stock.add, "a")
        assert await committed(node.stock.take, "a") is None
        with pytest.raises(KeyError, match="a"):
            await committed(node.stock.take, "a")
        assert node.stock.take("a", sync=True, timeout=SECONDS).error.args == ("a",)
        assert await committed(node.stock.add, "a") == 1, "the node goes on"


@on_a_loop
async def test_a_method_that_raises_anything_else_is_never_answered(tmp_path, caplog):
    """PySyncObj applies it again and again.  What comes after it waits."""
    async with running(single(tmp_path)) as node:
        with pytest.raises(CommandTimeoutError):
            await committed(node.stock.bad, timeout=0.1)
        with pytest.raises(CommandTimeoutError):
            await committed(node.stock.add, "a", timeout=0.1)
        await until(lambda: caplog.text.count("ValueError: not one of those") > 1)


# Nodes.


@on_a_loop
async def test_a_node_is_made_beside_the_loop_and_all_is_saved_when_the_block_ends(tmp_path):
    started, may_go_on = threading.Event(), threading.Event()
    make = single(tmp_path)

    def make_slowly():
        started.set()
        assert may_go_on.wait(SECONDS)
        return make()

    async def go_on():
        await until(started.is_set)
        may_go_on.set()

    going_on = asyncio.ensure_future(go_on())
    async with running(make_slowly) as node:
        assert going_on.done()
        assert node.ready() is None
        await committed(node.table.set, "key", "value")
        address = node.selfNode.id
    assert not node.tick_thread_alive()
    assert not node_threads()
    with RaftStorage.open(tmp_path / "node", identity=Identity(address)) as storage:
        assert b"value" in storage.recovered.entries[-1].data
    async with running(lambda: Node(address, [], tmp_path / "node")) as node:
        assert node.table.get("key") == "value"


@on_a_loop
async def test_what_making_the_node_raises_is_raised(tmp_path):
    async with running(single(tmp_path)):
        with pytest.raises(LockedError):
            async with running(single(tmp_path)):
                pass
    assert not node_threads()


@on_a_loop
async def test_a_node_that_is_not_ready_in_time_is_destroyed(tmp_path):
    address, absent = free_addresses(2)
    make = functools.partial(Node, address, [absent], tmp_path / "node")
    with pytest.raises(NodeNotReadyError, match=r"not in step with the cluster yet, after 0\.1 s"):
        async with running(make, ready_within=0.1):
            pass
    opens(tmp_path / "node")
    async with running(make, ready_within=None) as node:
        with pytest.raises(NodeNotReadyError, match="no leader"):
            await until_leader(node, timeout=0.1)


# PySyncObj drops a socket that it could not bind without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("ready_within", "retries"), [(None, 2), (SECONDS, 1)])
@on_a_loop
async def test_a_node_that_cannot_listen_is_refused(tmp_path, ready_within, retries):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        conf = auto(maxBindRetries=retries, bindRetryTime=0.01)
        make = functools.partial(Node, address, [], tmp_path / "node", conf)
        with pytest.raises(NodeNotReadyError, match=f"cannot listen on {address}"):
            async with running(make, ready_within=ready_within):
                pass
    opens(tmp_path / "node")
    gc.collect()  # here, and not in another test


@on_a_loop
async def test_a_cancellation_while_the_node_is_made_is_raised_when_it_is_gone_again(tmp_path):
    started, may_go_on = threading.Event(), threading.Event()
    make = single(tmp_path)

    def make_slowly():
        started.set()
        assert may_go_on.wait(SECONDS)
        return make()

    async def program():
        async with running(make_slowly):
            pytest.fail("it was cancelled")

    task = asyncio.ensure_future(program())
    await until(started.is_set)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    opens(tmp_path / "node")
    assert not node_threads()


@on_a_loop
async def test_a_cancelled_block_ends_with_everything_saved(tmp_path):
    async def program():
        async with running(single(tmp_path)) as node:
            await committed(node.table.set, "key", "value")
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    task = asyncio.ensure_future(program())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with RaftStorage.open(tmp_path / "node") as storage:
        assert b"value" in storage.recovered.entries[-1].data


@on_a_loop
async def test_a_second_cancellation_does_not_cut_the_end_short(tmp_path):
    gate = Gate()

    async def program():
        async with running(single(tmp_path, fs=gate.disk)) as node:
            gate.shut()
            await committed(node.table.set, "key", "value")

    task = asyncio.ensure_future(program())
    await until(gate.reached.is_set)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    with RaftStorage.open(tmp_path / "node") as storage:
        assert b"value" in storage.recovered.entries[-1].data


@on_a_loop
async def test_calls_that_still_wait_when_the_block_ends_are_failed_and_later_ones_refused(
    tmp_path,
):
    address, absent = free_addresses(2)
    make = functools.partial(Node, address, [absent], tmp_path / "node", with_locks=True)
    async with running(make, ready_within=None) as node:
        waiting = asyncio.ensure_future(committed(node.twice, 1, timeout=None))
        await asyncio.sleep(0)
    with pytest.raises(CommandNotAppliedError, match="REQUEST_DENIED"):
        await waiting
    for command in (node.twice, node.stock.add, node.locks.tryAcquire):
        with pytest.raises(CommandNotAppliedError, match="does not run") as caught:
            await committed(command, "x")
        assert caught.value.reason == "NOT_RUNNING"
    with pytest.raises(NodeNotReadyError, match="the thread that ticks has ended"):
        await until_ready(node)


@on_a_loop
async def test_a_node_that_its_own_program_ticks_is_refused(tmp_path):
    (address,) = free_addresses(1)
    with pytest.raises(InvalidSettingError, match="autoTick"):
        async with running(lambda: KV(address, [], tmp_path / "node")):
            pass
    opens(tmp_path / "node")


@on_a_loop
async def test_when_the_storage_fails_calls_fail_and_the_loop_hears_of_it_once(tmp_path):
    disk, own, heard = WatchedDisk(), [], []

    def on_failure(error):
        assert asyncio.get_running_loop() is loop
        heard.append(error)

    def hook(error):
        own.append(error)
        raise RuntimeError("the application's own")

    loop = asyncio.get_running_loop()
    make = single(tmp_path, fs=disk, on_storage_failure=hook)
    async with running(make, on_storage_failure=on_failure) as node:
        await committed(node.table.set, "key", "before")
        disk.before = Failing(errno.EIO, calls=("sync_data",))
        with pytest.raises(CommandOutcomeUnknownError, match="storage failed: ") as e:
            await committed(node.table.set, "key", "value")
        assert e.value.__cause__ is node.storage_failure
        await until(lambda: bool(own and heard))
        assert heard == own == [node.storage_failure]
        with pytest.raises(CommandNotAppliedError, match="storage failed"):
            await committed(node.table.set, "key", "value")
        with pytest.raises(NodeNotReadyError, match="storage failed") as e:
            await until_ready(node)
        assert e.value.__cause__ is node.storage_failure
    assert len(heard) == len(own) == 1
    opens(tmp_path / "node")


@pytest.mark.parametrize("listens", ["while the node is stopping", "when it has stopped"])
@on_a_loop
async def test_the_loop_hears_once_of_a_failure_that_came_before_it_listened(tmp_path, listens):
    disk, leads, stopping, hooked = WatchedDisk(), *(threading.Event() for _ in range(3))
    may_stop = threading.Event()

    def on_state_changed(_, new):
        if new == LEADER:
            leads.set()
        elif leads.is_set():
            stopping.set()
            assert may_stop.wait(SECONDS)

    def make_and_fail():
        (address,) = free_addresses(1)
        node = Node(
            address,
            [],
            tmp_path / "node",
            auto(onStateChanged=on_state_changed),
            fs=disk,
            on_storage_failure=lambda _: hooked.set(),
        )
        assert leads.wait(SECONDS)
        disk.before = Failing(errno.EIO, calls=("sync_data",))
        node.table.set("key", "value")
        if listens == "when it has stopped":
            may_stop.set()
            assert hooked.wait(SECONDS)
        assert stopping.wait(SECONDS)
        return node

    heard: list[BaseException] = []
    async with running(make_and_fail, ready_within=None, on_storage_failure=heard.append) as node:
        await until(lambda: bool(heard))
        may_stop.set()
        await until(hooked.is_set)
    assert heard == [node.storage_failure]


@on_a_loop
async def test_when_the_leaders_storage_fails_the_others_go_on(tmp_path):
    addresses = free_addresses(3)
    disks = {address: WatchedDisk() for address in addresses}

    def make(address):
        partners = [each for each in addresses if each != address]
        directory = tmp_path / address.replace(":", "-")
        return lambda: Node(address, partners, directory, fs=disks[address])

    async with contextlib.AsyncExitStack() as stack:
        nodes = await asyncio.gather(
            *(stack.enter_async_context(running(make(each))) for each in addresses)
        )
        leader = await until_leader(nodes[0])
        broken = nodes[addresses.index(leader)]
        others = [node for node in nodes if node is not broken]
        disks[leader].before = Failing(errno.EIO, calls=("sync_data",))
        # The two others are a majority: they may commit it, and it may be answered in time.
        with contextlib.suppress(CommandError):
            await committed(broken.table.set, "key", 1)
        await until(lambda: broken.storage_failure is not None)
        await until(lambda: others[0]._getLeader() in [each.selfNode for each in others])
        while True:
            try:
                await committed(others[0].table.set, "key", 2)
                break
            except CommandError as error:  # an election under way
                assert error.reason in {"LEADER_CHANGED", "NOT_LEADER", "DISCARDED"}
        assert others[0].table.get("key") == 2


def test_a_program_that_ends_without_leaving_the_block_ends(tmp_path):
    """Nothing of the node keeps the process."""
    (address,) = free_addresses(1)
    program = """if True:
        import asyncio, sys
        from raftwal.pysyncobj import DurableSyncObj, running

        def make():
            return DurableSyncObj(sys.argv[1], [], data_dir=sys.argv[2])

        loop = asyncio.new_event_loop()
        block = running(make)
        node = loop.run_until_complete(block.__aenter__())
        assert node.ready() is None
        print("ready", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, address, str(tmp_path / "node")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


@on_a_loop
async def test_an_applications_lifespan_has_the_node_in_its_state(tmp_path):
    heard = []
    app = Starlette(
        lifespan=lifespan(single(tmp_path), ready_within=SECONDS, on_storage_failure=heard.append)
    )
    async with app.router.lifespan_context(app) as state:
        node = state["node"]
        assert await committed(node.twice, 2) == 4
    assert not node.tick_thread_alive()
    assert heard == []
