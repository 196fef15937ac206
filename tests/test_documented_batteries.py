"""PySyncObj's batteries and consumers, in a node's life and after its restarts."""

from __future__ import annotations

import time

import pytest
from documented import DURABLE, Application, each_way
from pysyncobj import SyncObjConsumer, SyncObjException, replicated
from pysyncobj.batteries import (
    ReplCounter,
    ReplDict,
    ReplList,
    ReplLockManager,
    ReplPriorityQueue,
    ReplQueue,
    ReplSet,
)


class Batteries:
    """One of each, with calls that use every method, and what must come of them."""

    def __init__(self):
        self.counter = ReplCounter()
        self.list = ReplList()
        self.dict = ReplDict()
        self.set = ReplSet()
        self.queue = ReplQueue(maxsize=2)
        self.heap = ReplPriorityQueue(maxsize=3)

    @property
    def consumers(self):
        return [self.counter, self.list, self.dict, self.set, self.queue, self.heap]

    def use(self, nodes):
        def gives(expected, method, *arguments, **keywords):
            assert nodes.call(method, *arguments, **keywords) == expected, method

        gives(42, self.counter.set, 42)
        gives(52, self.counter.add, 10)
        gives(50, self.counter.sub, 2)
        gives(51, self.counter.inc)

        gives(None, self.list.reset, [5, 3])
        gives(None, self.list.append, 4)
        gives(None, self.list.extend, [1, 2, 3])
        gives(None, self.list.insert, 0, 9)
        gives(None, self.list.remove, 3)
        gives(2, self.list.pop, 4)
        gives(None, self.list.set, 0, 8)
        gives(None, self.list.sort, reverse=True)

        gives(None, self.dict.reset, {"a": 1})
        gives(None, self.dict.__setitem__, "b", 2)
        gives(None, self.dict.set, "c", 3)
        gives(3, self.dict.setdefault, "c", 4)
        gives(5, self.dict.setdefault, "d", 5)
        gives(None, self.dict.update, {"e": 6, "f": 7})
        gives(7, self.dict.pop, "f")
        gives("none", self.dict.pop, "missing", default="none")

        gives(None, self.set.reset, {1, 2})
        gives(None, self.set.add, 3)
        gives(None, self.set.remove, 1)
        gives(None, self.set.discard, 9)
        gives(None, self.set.update, {4})

        gives("empty", self.queue.get, "empty")
        gives(True, self.queue.put, "first")
        gives(True, self.queue.put, "second")
        gives(False, self.queue.put, "one too many")
        gives("first", self.queue.get)
        gives(True, self.queue.put, "third")

        gives(None, self.heap.get)
        for number in (3, 1, 2):
            gives(True, self.heap.put, number)
        gives(False, self.heap.put, 0)
        gives(1, self.heap.get)

    def assert_used(self):
        assert self.counter.get() == 51
        assert self.list.rawData() == [8, 5, 4, 3, 1]
        assert (self.list[1], self.list.get(2), len(self.list)) == (5, 4, 5)
        assert (self.list.index(4), self.list.count(8)) == (2, 1)
        assert self.dict.rawData() == {"a": 1, "b": 2, "c": 3, "d": 5, "e": 6}
        assert (self.dict["a"], self.dict.get("x", 0), len(self.dict)) == (1, 0, 5)
        assert "a" in self.dict and "x" not in self.dict
        assert set(self.dict.keys()) == set("abcde")
        assert sorted(self.dict.values()) == [1, 2, 3, 5, 6]
        assert sorted(self.dict.items())[0] == ("a", 1)
        assert self.set.rawData() == {2, 3, 4}
        assert 2 in self.set and 1 not in self.set and len(self.set) == 3
        assert (self.queue.qsize(), len(self.queue), self.queue.full()) == (2, 2, True)
        assert (self.heap.qsize(), self.heap.empty(), self.heap.full()) == (2, False, False)


@each_way
def test_batteries_give_and_keep_what_they_are_given(way, tmp_path):
    """First in their life, then out of the log, then out of a snapshot."""
    with way.nodes(tmp_path) as nodes:
        (address,) = nodes.addresses
        batteries = Batteries()
        node = nodes.start(address, consumers=batteries.consumers)
        batteries.use(nodes)
        batteries.assert_used()

        batteries = Batteries()
        node = nodes.restart(address, consumers=batteries.consumers)
        nodes.ready(node)
        batteries.assert_used()
        nodes.compact(node)

        batteries = Batteries()
        node = nodes.restart(address, consumers=batteries.consumers)
        node.doTick(0.0)
        batteries.assert_used()
        assert nodes.call(batteries.queue.get) == "second"
        assert nodes.call(batteries.heap.get) == 2
        for emptied in (batteries.dict, batteries.set):
            nodes.call(emptied.clear)
            assert len(emptied) == 0


def test_batteries_are_the_same_on_every_node(tmp_path):
    with DURABLE.nodes(tmp_path, size=3) as nodes:
        each = {address: Batteries() for address in nodes.addresses}
        for address in nodes.addresses:
            nodes.start(address, consumers=each[address].consumers)
        follower = next(
            node for node in nodes.nodes.values() if node is not nodes.wait_for_leader()
        )
        each[follower.selfNode.id].use(nodes)
        for batteries in each.values():
            nodes.tick_until(lambda b=batteries: b.heap.qsize() == 2, "the last of the calls")
            batteries.assert_used()


class Names(SyncObjConsumer):
    """A consumer of the application's own."""

    def __init__(self, first):
        super().__init__()
        self.names = [first]

    @replicated
    def add(self, name):
        self.names.append(name)
        return list(self.names)


class Both(Application):
    """An object with a state of its own beside its consumers'."""

    def begin(self):
        self.count = 0

    @replicated
    def inc(self):
        self.count += 1


@each_way
def test_two_consumers_of_a_class_and_the_object_itself_have_each_their_state(way, tmp_path):
    with way.nodes(tmp_path, Both) as nodes:
        (address,) = nodes.addresses
        for restart in range(3):
            one, other = Names("one"), Names("other")
            node = nodes.start(address, consumers=[one, other])
            nodes.ready(node)
            added = [str(number) for number in range(restart)]
            assert nodes.call(one.add, str(restart)) == ["one", *added, str(restart)]
            nodes.call(node.inc)
            assert other.names == ["other"]
            assert node.count == restart + 1
            if restart == 1:
                nodes.compact(node)
            nodes.stop(address)


def test_a_consumer_must_be_one(tmp_path):
    with DURABLE.nodes(tmp_path) as nodes:
        (address,) = nodes.addresses
        with pytest.raises(SyncObjException, match="Consumers must be inherited"):
            nodes.start(address, consumers=[object()])
        # Nothing is left open.
        nodes.start(address, consumers=[Names("a")])


@pytest.fixture
def locks():
    """Lock managers, destroyed at the end."""
    made = []

    def make(seconds, name):
        made.append(ReplLockManager(seconds, selfID=name))
        return made[-1]

    yield make
    for manager in made:
        manager.destroy()


def test_a_lock_is_held_by_one_through_restarts_of_all_nodes(tmp_path, locks):
    with DURABLE.nodes(tmp_path, size=2) as nodes:

        def start():
            managers = [locks(60.0, name) for name in ("first", "second")]
            for address, manager in zip(nodes.addresses, managers, strict=True):
                nodes.start(address, consumers=[manager])
            nodes.wait_for_leader()
            return managers

        first, second = start()
        assert nodes.call(first.tryAcquire, "lock") is True
        assert first.isAcquired("lock")
        assert nodes.call(second.tryAcquire, "lock") is False
        assert nodes.call(second.tryAcquire, "another") is True
        for source in ("log", "snapshot"):
            if source == "snapshot":
                for node in nodes.nodes.values():
                    nodes.compact(node)
            nodes.stop_all()
            first, second = start()
            assert nodes.call(second.tryAcquire, "lock") is False, source
            nodes.tick_until(lambda held=first: held.isAcquired("lock"), "what was acquired")
        nodes.call(first.release, "lock")
        assert nodes.call(second.tryAcquire, "lock") is True
        assert not first.isAcquired("lock")


def test_a_lock_whose_holder_is_gone_opens_after_its_time(tmp_path, locks):
    with DURABLE.nodes(tmp_path, size=3) as nodes:
        managers = {address: locks(0.8, address) for address in nodes.addresses}
        for address, manager in managers.items():
            nodes.start(address, consumers=[manager])
        nodes.wait_for_leader()
        holder, other = nodes.addresses[:2]
        assert nodes.call(managers[holder].tryAcquire, "lock") is True
        began = time.monotonic()
        managers[holder].destroy()
        nodes.stop(holder)
        answers = []
        while not answers or not answers[-1][0]:
            answers.append(nodes.answer(managers[other].tryAcquire, "lock"))
            assert time.monotonic() < began + 30
        assert (False, 0) in answers
        assert managers[other].isAcquired("lock")


def test_a_lock_is_kept_for_as_long_as_its_holder_lives(tmp_path, locks):
    with DURABLE.nodes(tmp_path) as nodes:
        manager = locks(0.8, "holder")
        nodes.start(nodes.addresses[0], consumers=[manager])
        assert nodes.call(manager.tryAcquire, "lock") is True
        held = manager._consumer()._ReplLockManagerImpl__locks

        def since():
            return held["lock"][1]

        acquired = since()
        # Its thread prolongs it four times in its time.
        nodes.tick_until(lambda: since() > acquired + 0.4, "the lock to be prolonged")
        assert manager.isAcquired("lock")
        nodes.call(manager.release, "lock")
        assert not manager.isAcquired("lock")


def test_a_lock_can_be_acquired_and_released_synchronously(tmp_path, locks):
    with DURABLE.nodes(tmp_path, autoTick=True, autoTickPeriod=0.005) as nodes:
        manager = locks(60.0, "holder")
        nodes.start(nodes.addresses[0], consumers=[manager])
        assert manager.tryAcquire("lock", sync=True, timeout=30) is True
        assert manager.isAcquired("lock")
        manager.release("lock", sync=True, timeout=30)
        assert not manager.isAcquired("lock")
