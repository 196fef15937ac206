"""Which nodes `install()` makes durable, and where: by their configuration, and not otherwise."""

from __future__ import annotations

import os

import pytest
from clusters import fast_conf, free_addresses, tick_until
from documented import installed, settings
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from raftwal.errors import IdentityMismatchError, LockedError
from raftwal.pysyncobj import DurableSyncObj, install


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


def test_without_a_journal_file_a_node_stays_pysyncobjs_own(tmp_path, journal):
    durable_at, plain_at, bare_at = free_addresses(3)
    durable = Counter(durable_at, [], fast_conf(journalFile=journal))
    plain = Counter(plain_at, [], fast_conf(fullDumpFile=str(tmp_path / "dump"), useFork=False))
    bare = SyncObj(bare_at, [], SyncObjConf(autoTick=False))
    for node in (durable, plain):
        assert counted(node) == 1
    assert "storage_failure" in durable.getStatus()
    for node in (plain, bare):
        assert "storage_failure" not in node.getStatus()
        assert type(node._SyncObj__raftLog).__name__ == "MemoryJournal"
    # Its snapshots are its own as well.
    plain.forceLogCompaction()
    tick_until(plain, (tmp_path / "dump").exists)
    for node in (durable, plain, bare):
        node.destroy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump", "journal.raftwal"]


def test_a_node_that_was_made_before_stays_as_it_is(tmp_path, journal):
    first_at, second_at = free_addresses(2)
    originals = {name: vars(SyncObj)[name].__wrapped__ for name in ("__init__", "_onTick")}
    with pytest.MonkeyPatch.context() as patch:
        for name, original in originals.items():
            patch.setattr(SyncObj, name, original)
        first = Counter(first_at, [], fast_conf(journalFile=str(tmp_path / "first")))
    second = Counter(second_at, [], fast_conf(journalFile=journal))
    for expected in (1, 2):
        for node in (first, second):
            assert counted(node) == expected
    assert type(first._SyncObj__raftLog).__name__ == "FileJournal"
    assert is_durable(second)
    first.destroy()
    second.destroy()
    assert (tmp_path / "first").exists()


def test_a_durable_syncobj_is_not_made_durable_twice(tmp_path, address):
    class Mine(DurableSyncObj):
        pass

    conf = fast_conf(journalFile=str(tmp_path / "not used"))
    node = Mine(address, [], conf, data_dir=tmp_path / "mine", settings=settings())
    tick_until(node, node.isReady)
    node.destroy()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_configuration_can_be_used_for_one_node_after_the_other(tmp_path):
    conf = fast_conf()
    nodes = []
    for number, address in enumerate(free_addresses(3)):
        conf.journalFile = str(tmp_path / str(number))
        nodes.append(Counter(address, [], conf))
    for number, node in enumerate(nodes):
        assert counted(node, number) == number
        assert node.conf is conf
        node.destroy()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n}.raftwal" for n in range(3)]


def test_a_configuration_whose_journal_is_in_use_is_refused_and_the_first_goes_on(journal):
    first_at, second_at = free_addresses(2)
    conf = fast_conf(journalFile=journal)
    first = Counter(first_at, [], conf)
    for second in (second_at, first_at):
        with pytest.raises((LockedError, IdentityMismatchError)):
            Counter(second, [], conf)
    with pytest.raises(LockedError):
        Counter(first_at, [], first.conf)
    assert counted(first) == 1
    first.destroy()


@pytest.mark.parametrize(
    ("selfNode", "conf", "error"),
    [("no port", {}, ValueError), (None, {"raftMinTimeout": 0.001}, AssertionError)],
    ids=["address", "configuration"],
)
def test_what_cannot_be_a_node_leaves_no_directory(
    tmp_path, address, journal, selfNode, conf, error
):
    with pytest.raises(error):
        Counter(selfNode or address, [], fast_conf(journalFile=journal, **conf))
    assert list(tmp_path.iterdir()) == []
    node = Counter(address, [], fast_conf(journalFile=journal))
    assert counted(node) == 1
    node.destroy()


def test_an_empty_name_is_pysyncobjs_own_matter(tmp_path, address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        Counter(address, [], fast_conf(journalFile=""))
    assert list(tmp_path.iterdir()) == []


def test_a_program_may_change_its_directory(tmp_path, address, monkeypatch):
    """As a daemon does, once it has begun."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    install(settings()._replace(segment_bytes=4096))
    node = Counter(address, [], fast_conf(journalFile="journal"))
    os.chdir(elsewhere)
    for _ in range(150):
        counted(node)
    node.forceLogCompaction()
    length = node.getStatus()["log_len"]
    tick_until(node, lambda: node.getStatus()["log_len"] < length)
    node.destroy()
    os.chdir(tmp_path)
    node = Counter(address, [], fast_conf(journalFile="journal"))
    tick_until(node, node.isReady)
    assert node.count == 150
    node.destroy()
    assert list(elsewhere.iterdir()) == []


def test_settings_given_again_are_those_of_the_nodes_made_from_then_on(tmp_path):
    addresses = free_addresses(2)
    nodes = []
    for size, address in zip((4096, 8192), addresses, strict=True):
        install(settings()._replace(segment_bytes=size))
        conf = fast_conf(journalFile=str(tmp_path / str(size)))
        nodes.append(Counter(address, [], conf))
    for size, node in zip((4096, 8192), nodes, strict=True):
        node.destroy()
        (segment,) = (tmp_path / f"{size}.raftwal" / "wal").glob("*.wal")
        assert segment.stat().st_size == size
