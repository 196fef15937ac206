"""From PySyncObj's FileJournal to a data directory, and back: all that a node has promised."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import pytest
from clusters import fast_conf, free_addresses, tick_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from migrations import (
    BACK,
    BACK_DUMP,
    DATA,
    DUMP,
    HERE,
    JOURNAL,
    ME,
    META,
    Mute,
    files_on,
    go,
    go_back,
    migrated,
    new_disk,
    on_disk,
    refused,
)
from old_nodes import (
    NO_OP,
    NODES,
    OldNode,
    command,
    dump_of,
    entries,
    old_node,
    put,
    read_with_pysyncobj,
    write_to,
    write_with_pysyncobj,
)
from operated_directories import contents, tear
from prometheus_client import CollectorRegistry
from pysyncobj import SyncObj, replicated
from pysyncobj.node import TCPNode

from raftwal import RaftStorage, RaftwalError
from raftwal.errors import (
    InvalidSettingError,
    LostEntriesError,
    MigrationRefusedError,
)
from raftwal.identity import Identity
from raftwal.model import Entry, HardState
from raftwal.pysyncobj import DurableSyncObj, StorageSettings
from raftwal.pysyncobj.file_journal import Meta, encode_meta
from raftwal.pysyncobj.migration import from_file_journal, to_file_journal
from raftwal.pysyncobj.node_files import LOST_VOTE
from raftwal.pysyncobj.node_ids import member_id
from raftwal.pysyncobj.node_state import NodeState
from raftwal.testing import InlineExecutor, SimulatedDisk

# PySyncObj leaves closing its .meta to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def disk():
    return new_disk()


# What comes over.


@pytest.mark.parametrize(
    "node",
    [
        old_node(),
        old_node(9, 20, dump=10),
        old_node(9, 20, dump=10, commit=20),
        old_node(9, 10, dump=10, commit=10, vote=None),
        old_node(term=7),
    ],
)
def test_entries_term_vote_commit_and_snapshot_come_over_and_go_back(node, tmp_path):
    """PySyncObj's own code writes the files, and reads those that come back."""
    journal, dump = tmp_path / "journal", tmp_path / "dump"
    write_with_pysyncobj(node, journal, dump)
    before = contents(tmp_path)
    done = on_disk(journal, dump, tmp_path / "data", cluster_name="blue")
    assert {name: contents(tmp_path)[name] for name in before} == before
    assert done.vote == node.meta.vote
    settings = {"identity": Identity(ME, "blue"), "registry": CollectorRegistry()}
    with RaftStorage.open(tmp_path / "data", **settings) as storage:
        recovered = storage.recovered
    covered = 0 if node.dump is None else 10
    assert recovered.hard_state == HardState(
        node.meta.term, member_id(node.meta.vote) if node.meta.vote else 0, node.meta.commit
    )
    assert (recovered.snapshot.metadata.index if recovered.snapshot else 0) == covered
    follow = [entry for entry in node.entries if entry[1] > covered]
    assert [(e.data, e.index, e.term) for e in recovered.entries] == follow

    (tmp_path / "back").mkdir()
    before = contents(tmp_path / "data")
    to_file_journal(
        tmp_path / "data", tmp_path / "back" / "journal", tmp_path / "back" / "dump", partners=NODES
    )
    assert contents(tmp_path / "data") == before
    assert read_back(tmp_path / "back") == (list(node.entries), node.meta, node.dump)


def read_back(directory: Path) -> tuple[object, Meta, bytes | None]:
    dump = directory / "dump"
    found, meta = read_with_pysyncobj(directory / "journal")
    return found, meta, dump.read_bytes() if dump.exists() else None


def test_an_application_finds_everything_on_raftwal_and_back_on_pysyncobj(tmp_path):
    (address,) = free_addresses(1)

    def node(base, journal, **arguments):
        class KV(base):
            def __init__(self):
                conf = fast_conf(
                    journalFile=str(tmp_path / journal),
                    fullDumpFile=str(tmp_path / f"{journal}.dump"),
                    logCompactionMinEntries=30,
                    useFork=False,
                )
                super().__init__(address, [], conf, **arguments)
                self.values = {}

            @replicated
            def put(self, key, value):
                self.values[key] = value

        return KV()

    def fill(node, keys):
        acknowledged = []
        for key in keys:
            node.put(key, key * 2, callback=lambda _, reason: acknowledged.append(reason))
        tick_until(node, lambda: acknowledged == [0] * len(keys))
        # PySyncObj compacts between two ticks.
        for _ in range(20):
            node.doTick(0.001)

    plain = node(SyncObj, "journal")
    fill(plain, range(40))
    fill(plain, range(40, 50))
    plain.destroy()
    assert (tmp_path / "journal.dump").exists()

    settings = StorageSettings(segment_bytes=1 << 16, registry=CollectorRegistry())
    durable = node(
        DurableSyncObj, "journal", data_dir=tmp_path / "data", settings=settings, migrate="auto"
    )
    assert durable.recovered.snapshot is not None
    tick_until(durable, lambda: durable.values == {key: key * 2 for key in range(50)})
    fill(durable, range(50, 60))
    durable.destroy()

    to_file_journal(tmp_path / "data", tmp_path / "again", tmp_path / "again.dump")
    plain = node(SyncObj, "again")
    term = plain.raftCurrentTerm
    assert term == durable.raftCurrentTerm
    tick_until(plain, lambda: plain.values == {key: key * 2 for key in range(60)})
    plain.destroy()


LOGS = st.lists(
    st.tuples(st.binary(min_size=0, max_size=40), st.integers(0, 3), st.sampled_from(range(4))),
    min_size=2,
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    log=LOGS,
    covered=st.integers(0, 30),
    kept=st.integers(0, 3),
    known=st.integers(0, 40),
    later=st.integers(0, 5),
    vote=st.sampled_from([None, *NODES, "a node that left", "member 00000000000000ff"]),
)
def test_any_log_comes_over_and_goes_back(log, covered, kept, known, later, vote, tmp_path_factory):
    terms = 0
    commands = []
    for index, (data, rise, kind) in enumerate(log, 1):
        terms += rise
        commands.append((bytes([kind]) + data, index, terms))
    covered = covered if 2 <= covered <= len(commands) else 0
    first = max(1, covered - 1 - kept)
    dump = None
    if covered:
        parts = (commands[covered - 1], commands[covered - 2], {TCPNode(ME)})
        dump = gzip.compress(pickle.dumps(({}, *parts), 2))
    commit = max(1, covered, min(known, len(commands)))
    node = OldNode(commands[first - 1 :], Meta(terms + later, vote, commit), dump)

    disk = new_disk()
    state = migrated(disk, node)
    assert state.entries == commands[covered:]
    go_back(disk)
    directory = tmp_path_factory.mktemp("back")
    for path in (BACK, f"{BACK}.meta", BACK_DUMP):
        if disk.exists(path):
            (directory / os.path.basename(path)).write_bytes(disk.content(path))
    # A vote for one who is not among the dump's nodes keeps its number, not its name.
    is_known = vote in (None, ME) or str(vote).startswith("member")
    name = vote if is_known else f"member {member_id(vote):016x}"
    behind = commands[max(0, covered - 2) :]
    assert read_back(directory) == (behind, Meta(terms + later, name, commit), dump)
    # And once more: nothing is lost by it.
    again = from_file_journal(
        BACK,
        BACK_DUMP,
        f"{HERE}/again",
        node_id=ME,
        segment_bytes=4096,
        fs=disk,
        executor=InlineExecutor(),
    )
    assert again.state == state


def test_a_node_that_has_just_begun_comes_over_without_a_meta(disk):
    state = migrated(disk, OldNode([(NO_OP, 1, 0)], None))
    assert state == NodeState(HardState(0, 0, 1), None, [(NO_OP, 1, 0)])


def test_a_journal_with_nothing_in_it_comes_over(disk):
    assert migrated(disk, OldNode([], None)) == NodeState(HardState(), None, [])


def test_an_empty_directory_may_be_the_target(disk):
    disk.make_directory(DATA)
    assert migrated(disk, old_node()).last_index == 20


def test_entries_beyond_the_end_are_not_there(tmp_path):
    """PySyncObj cuts its journal by moving the end; the bytes stay."""
    journal, dump = tmp_path / "journal", tmp_path / "dump"
    write_with_pysyncobj(old_node(), journal, dump)
    content = journal.read_bytes()
    write_with_pysyncobj(old_node(1, 5), tmp_path / "short", dump)
    short = (tmp_path / "short").read_bytes()
    end = int.from_bytes(short[36:40], "little")
    (tmp_path / "cut").write_bytes(content[:36] + short[36:40] + content[40:])
    (tmp_path / "cut.meta").write_bytes((tmp_path / "short.meta").read_bytes())
    assert len(content) > end
    done = on_disk(tmp_path / "cut", None, tmp_path / "data")
    assert done.state.last_index == 5


# Journal and dump of different times.


def test_a_dump_newer_than_the_journals_beginning_costs_nothing(disk):
    """PySyncObj throws such a journal away, and with it what it has acknowledged."""
    state = migrated(disk, old_node(dump=10, commit=20))
    assert state.entries == entries(11, 20)
    assert state.hard_state.commit == 20


def test_a_journal_that_follows_on_the_dump_without_overlap_is_kept(disk):
    assert migrated(disk, old_node(11, 20, dump=10)).entries == entries(11, 20)


@pytest.mark.parametrize("last", [5, 9, 10])
def test_a_journal_that_the_dump_covers_leaves_the_dump(last, disk):
    state = migrated(disk, old_node(1, last, dump=10))
    assert (state.entries, state.last_index, state.hard_state.commit) == ([], 10, 10)


def test_entries_that_a_received_dump_contradicts_go_as_raft_has_it(disk):
    """The node died between the leader's dump and the clearing of its journal."""
    node = OldNode(entries(1, 20), Meta(5, None, 4), dump_of(10, term=5))
    write_to(disk, node, JOURNAL, DUMP)
    done = go(disk)
    assert (done.state.entries, done.state.hard_state) == ([], HardState(5, 0, 10))
    assert any("another leader's log" in note for note in done.notes)


@pytest.mark.parametrize(
    "node",
    [
        OldNode(entries(1, 20), Meta(5, None, 15), dump_of(10, term=5)),
        OldNode(
            [*entries(1, 9), (b"\x00another", 10, 2), *entries(11, 20)],
            Meta(2, None, 9),
            dump_of(10),
        ),
        OldNode(
            [*entries(1, 8), (b"\x00another", 9, 2), *entries(10, 20)],
            Meta(2, None, 9),
            dump_of(10),
        ),
        old_node(12, 20, dump=10),
        old_node(commit=25),
        old_node(dump=10, last=9, commit=15),
        OldNode([], Meta(3, None, 1)),
    ],
    ids=[
        "the dump contradicts a committed entry",
        "the same term, another entry",
        "the same last entry, another before it",
        "a gap between dump and journal",
        "committed entries are missing",
        "the dump is the older one",
        "an empty journal of a node that took part",
    ],
)
def test_lost_entries_are_refused_unless_their_loss_is_accepted(node, disk):
    write_to(disk, node, JOURNAL, DUMP)
    refused(disk, LostEntriesError)
    done = go(disk, accept_loss=True)
    assert any(note.startswith("accepted: ") for note in done.notes)
    assert done.state.hard_state.commit <= done.state.last_index


def test_a_compacted_journal_without_its_dump_cannot_be_made_whole(disk):
    write_to(disk, old_node(9, 20), JOURNAL, DUMP)
    for options in ({}, {"dump": None}, {"accept_loss": True}):
        error = refused(disk, MigrationRefusedError, **options)
        assert error.index == 9
        assert "fullDumpFile" in error.advice


# Term and vote.


def test_without_a_meta_a_node_that_took_part_is_refused_but_for_a_given_term(disk):
    write_to(disk, OldNode(entries(1, 20), None), JOURNAL, DUMP)
    assert "--term" in refused(disk, MigrationRefusedError).advice
    refused_term = refused_without_advice(disk, term=1)
    assert "the last entry is of term 2" in str(refused_term)
    state = go(disk, term=9).state
    # The vote of the term is spent: nobody else gets it.
    assert state.hard_state == HardState(9, member_id(LOST_VOTE), 1)


def refused_without_advice(disk: SimulatedDisk, **options) -> RaftwalError:
    with pytest.raises(MigrationRefusedError) as caught:
        go(disk, **options)
    return caught.value


def test_a_meta_without_a_term_is_of_an_older_pysyncobj_and_refused(disk):
    write_to(disk, OldNode(entries(1, 20), None), JOURNAL, DUMP)
    put(disk, META, pickle.dumps({"raftCommitIndex": 12}, 2))
    assert "0.3.17" in refused(disk, MigrationRefusedError).advice
    assert go(disk, term=3).state.hard_state.commit == 12


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 60, encode_meta(Meta(2, ME, 5))[:-4], b"\x80\x02N."]
)
def test_a_damaged_meta_is_refused_and_not_taken_for_a_new_node(content, disk):
    write_to(disk, OldNode([(NO_OP, 1, 0)], None), JOURNAL, DUMP)
    put(disk, META, content)
    refused(disk, MigrationRefusedError)
    assert go(disk, term=4).state.hard_state.term == 4


@pytest.mark.parametrize(
    "fields",
    [{"currentTerm": -1}, {"currentTerm": "2"}, {"currentTerm": 2, "raftCommitIndex": 1 << 64}],
)
def test_a_meta_with_numbers_that_cannot_be_is_refused(fields, disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    put(disk, META, pickle.dumps(fields, 2))
    refused(disk, MigrationRefusedError)


def test_a_meta_older_than_the_last_entry_spends_the_vote(disk):
    """The node may have voted in that term, and nobody knows for whom."""
    write_to(disk, old_node(term=1), JOURNAL, DUMP)
    done = go(disk)
    assert done.state.hard_state[:2] == (2, member_id(LOST_VOTE))
    assert done.notes


def test_a_term_given_beside_a_meta_only_raises_it(disk):
    write_to(disk, old_node(term=5), JOURNAL, DUMP)
    assert go(disk, term=3).state.hard_state[:2] == (5, member_id(NODES[1]))
    put(disk, f"{JOURNAL}.again", b"")
    write_to(disk, old_node(1, 21, term=5), JOURNAL, DUMP)
    higher = go(disk, term=8, to=f"{HERE}/higher").state.hard_state
    assert higher[:2] == (8, member_id(LOST_VOTE))


def test_a_vote_for_an_unknown_node_stays_spent_on_the_way_back(disk, tmp_path):
    write_to(disk, old_node(vote="10.9.9.9:1"), JOURNAL, DUMP)
    assert go(disk).vote == "10.9.9.9:1"
    assert go_back(disk).vote == f"member {member_id('10.9.9.9:1'):016x}"
    for path in (BACK, f"{BACK}.meta"):
        (tmp_path / os.path.basename(path)).write_bytes(disk.content(path))
    mute = Mute()
    node = SyncObj(ME, NODES[1:], fast_conf(journalFile=str(tmp_path / "journal")), transport=mute)
    try:
        node._SyncObj__onMessageReceived(
            TCPNode(NODES[2]),
            {"type": "request_vote", "term": 2, "last_log_index": 99, "last_log_term": 9},
        )
        assert mute.sent == []
    finally:
        node.destroy()


# The way back.


def test_what_another_migration_left_unfinished_is_not_taken_for_ones_own(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    go(disk)
    disk.make_directory(f"{HERE}/back")
    for path in (BACK, f"{BACK}.meta", BACK_DUMP):
        put(disk, f"{path}.migrating", b"half of it")
    go_back(disk)
    assert not disk.exists(BACK_DUMP)
    assert not any(path.endswith(".migrating") for path in disk.paths())


def test_a_torn_tail_is_passed_over_and_left_where_it_is(tmp_path):
    data = tmp_path / "data"
    with RaftStorage.open(
        data, identity=Identity(ME), segment_bytes=4096, registry=CollectorRegistry()
    ) as storage:
        for index in range(1, 6):
            storage.save(HardState(1, 0, index), [Entry(1, index, command(index))])
        storage.save(HardState(2, 0, 5), [Entry(2, 6, command(6))])
    tear(data)
    before = contents(data)
    state = to_file_journal(data, tmp_path / "journal", None).state
    assert contents(data) == before
    # Entry 6 is there; the term that was to come behind it, and its vote, are not.
    assert (state.last_index, state.hard_state) == (6, HardState(2, 0, 5))


def test_a_snapshot_needs_a_dump_to_become(disk):
    write_to(disk, old_node(9, 20, dump=10), JOURNAL, DUMP)
    go(disk)
    before = files_on(disk)
    with pytest.raises(MigrationRefusedError, match="no dump file is named"):
        go_back(disk, dump=None)
    assert files_on(disk) == before


@pytest.mark.parametrize(
    ("metadata", "entry"),
    [
        ({"metadata": b"etcd's own"}, Entry(1, 1, b"\x00command")),
        ({"identity": Identity(ME)}, Entry(1, 1, b"set x")),
        ({"identity": Identity(ME)}, Entry(1, 1, None)),
    ],
)
def test_a_log_of_other_software_does_not_become_a_filejournal(metadata, entry, tmp_path):
    with RaftStorage.open(tmp_path / "data", registry=CollectorRegistry(), **metadata) as storage:
        storage.save(HardState(1, 0, 1), [entry])
    with pytest.raises(MigrationRefusedError, match="not that of a PySyncObj node"):
        to_file_journal(tmp_path / "data", tmp_path / "journal", None)
    assert os.listdir(tmp_path) == ["data"]


def test_journal_and_dump_must_be_two_files(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    with pytest.raises(InvalidSettingError):
        go(disk, dump=META)
