"""Dumps and journals of any kind: what is damaged or of another kind is told, nothing is run."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migrations import (
    DUMP,
    JOURNAL,
    ME,
    META,
    directory_on,
    files_on,
    go,
    migrated,
    new_disk,
    on_disk,
    refused,
)
from old_nodes import (
    NODES,
    dump_of,
    entries,
    old_node,
    put,
    write_to,
    write_with_pysyncobj,
)
from operated_directories import contents
from pysyncobj.node import TCPNode

from raftwal import RaftwalError
from raftwal.errors import (
    FileJournalError,
    MigrationRefusedError,
    ReadFailedError,
)
from raftwal.pysyncobj.file_journal import read_journal, write_journal
from raftwal.pysyncobj.migration import from_file_journal, to_file_journal
from raftwal.testing import SimulatedDisk


@pytest.fixture
def disk():
    return new_disk()


# Dumps.


def test_a_dump_is_read_without_the_application_and_nothing_in_it_is_run(disk, tmp_path):
    """Classes that cannot be imported, objects that are made by calls, nodes of a subclass."""
    program = f"""
        import collections, datetime, decimal, enum, gzip, os, pickle
        from pysyncobj.node import TCPNode

        class DNSNode(TCPNode):
            pass

        class Colour(enum.Enum):
            RED = 1

        class Slots:
            __slots__ = ("one",)

        class Many(list):
            pass

        class Bomb:
            def __reduce__(self):
                return os.system, ("touch {tmp_path}/ran",)

        slots = Slots()
        slots.one = {{1, 2}}
        state = {{
            "application": [slots, Colour.RED, Many([1, slots]), Bomb()],
            "library": [collections.OrderedDict(a=1), datetime.datetime.now(), b"", b"\\xff",
                        decimal.Decimal("1.5"), collections.deque([1]), bytearray(b"x"),
                        collections.defaultdict(list, a=[1]), frozenset([1]), {{Colour.RED}}],
        }}
        parts = ({entries(10, 10)[0]!r}, {entries(9, 9)[0]!r}, {{DNSNode(n) for n in {NODES!r}}})
        with open({str(tmp_path / "dump")!r}, "wb") as file:
            file.write(gzip.compress(pickle.dumps(([state, state], *parts), 2)))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    dump = (tmp_path / "dump").read_bytes()
    state = migrated(disk, old_node(9, 20)._replace(dump=dump))
    assert state.dump.description[1:] == (entries(10, 10)[0], NODES)
    assert state.dump.sha256 == hashlib.sha256(dump).hexdigest()
    assert not (tmp_path / "ran").exists()


def test_a_meta_that_names_a_function_does_not_call_it(disk, tmp_path):
    write_to(disk, old_node(), JOURNAL, DUMP)

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    put(disk, META, pickle.dumps({"currentTerm": Bomb()}, 2))
    refused(disk, MigrationRefusedError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, dump_of(10)[:-3], dump_of(10)[:40]])
def test_a_damaged_dump_is_refused_though_the_journal_alone_would_do(content, disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    put(disk, DUMP, content)
    refused(disk, FileJournalError)
    assert go(disk, accept_loss=True).state.entries == entries(1, 20)


@pytest.mark.parametrize(
    "content",
    [
        b"of the application's own",
        gzip.compress(pickle.dumps({"a": 1}, 2)),
        gzip.compress(pickle.dumps((None, 1, 2, 3), 2)),
        gzip.compress(pickle.dumps((None, entries(10, 10)[0], entries(9, 9)[0], {1, 2}), 2)),
    ],
)
def test_a_dump_of_another_kind_is_refused_with_advice(content, disk):
    write_to(disk, old_node(9, 20), JOURNAL, DUMP)
    put(disk, DUMP, content)
    assert "migrate='auto'" in refused(disk, MigrationRefusedError).advice


def test_the_applications_own_dump_is_read_by_its_deserializer_once_and_from_a_copy(tmp_path):
    journal, dump = tmp_path / "journal", tmp_path / "dump"
    write_with_pysyncobj(old_node(9, 20), journal, dump)
    parts = (entries(10, 10)[0], entries(9, 9)[0], [TCPNode(node) for node in NODES])
    dump.write_bytes(pickle.dumps(parts))
    read = []

    def deserializer(path):
        read.append(path)
        content = Path(path).read_bytes()
        os.truncate(path, 0)
        return pickle.loads(content)

    done = from_file_journal(
        journal, dump, tmp_path / "data", node_id=ME, deserializer=deserializer
    )
    assert len(read) == 1
    assert dump.read_bytes() == pickle.dumps(parts)
    assert done.state.dump.description.node_ids == NODES
    # The way back needs nobody to open it.
    to_file_journal(tmp_path / "data", tmp_path / "again", tmp_path / "again.dump")
    assert (tmp_path / "again.dump").read_bytes() == pickle.dumps(parts)


def test_a_deserializer_that_fails_is_told_and_leaves_nothing(tmp_path):
    journal, dump = tmp_path / "journal", tmp_path / "dump"
    write_with_pysyncobj(old_node(9, 20, dump=10), journal, dump)
    before = contents(tmp_path)

    def deserializer(path):
        raise KeyError("no such version")

    with pytest.raises(MigrationRefusedError, match="no such version"):
        on_disk(journal, dump, tmp_path / "data", deserializer=deserializer)
    assert contents(tmp_path) == before


def test_a_node_that_the_dump_does_not_name_is_noted(disk):
    write_to(disk, old_node(9, 20, dump=10), JOURNAL, DUMP)
    assert any("not among the dump's nodes" in note for note in go(disk, node_id="me:1").notes)


# Damage of the journal.


def changed(content: bytes, offset: int, new: bytes) -> bytes:
    return content[:offset] + new + content[offset + len(new) :]


def record_at(content: bytes, number: int) -> int:
    offset = 40
    for _ in range(number):
        offset += int.from_bytes(content[offset : offset + 4], "little") + 8
    return offset


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda c, at: c[:at] + bytes(len(c) - at), "zeros where a record should be"),
        (lambda c, at: c[:at] + bytes(4), "says that it ends"),
        (lambda c, at: c[: at + 9], "says that it ends"),
        (lambda c, at: changed(c, at, b"\xff\xff\xff\x7f"), "with .* to the end"),
        (lambda c, at: changed(c, at, b"\x05\0\0\0"), "with .* to the end"),
        (lambda c, at: changed(c, at - 4, b"\x77\0\0\0"), "in front and as 119 behind"),
        (lambda c, at: changed(c, at + 4, b"\x63"), "entry 99 behind entry 4"),
        (lambda c, at: changed(c, at + 12, b"\x01"), "of term 1 behind one of term 2"),
        (lambda c, at: changed(c, at + 20, b"\x09"), "a command of type 9"),
        (lambda c, at: changed(c, 36, (at + 20).to_bytes(4, "little")), "before the end"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_damage_of_the_journal_is_told_with_its_place_and_nothing_is_made(harm, words, disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    content = disk.content(JOURNAL)
    at = record_at(content, 4)
    put(disk, JOURNAL, harm(content, at))
    error = refused(disk, FileJournalError)
    assert error.path == JOURNAL
    assert error.offset is not None
    with pytest.raises(FileJournalError, match=words):
        go(disk)
    # What stands before it can be had, for a node that has nowhere else to get it from.
    state = go(disk, accept_loss=True).state
    assert state.entries == entries(1, len(state.entries))
    assert 3 <= state.last_index <= 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"PYSYNCOBJ", "9 bytes"),
        (bytes(1024), "does not begin as one"),
        (b"SQLite format 3\0" * 8, "does not begin as one"),
        (b"PYSYNCOBJ".ljust(32, b"\0") + b"\x02\0\0\0" + b"\x28\0\0\0", "of format 2"),
        (b"PYSYNCOBJ".ljust(32, b"\0") + b"\x01\0\0\0" + b"\x07\0\0\0", "ends at byte 7"),
    ],
)
def test_what_is_no_journal_is_refused(content, words, disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    put(disk, JOURNAL, content)
    assert words in str(refused(disk, FileJournalError))
    refused(disk, FileJournalError, accept_loss=True)


def test_a_journal_that_cannot_be_read_is_refused(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    disk.break_sector(JOURNAL, 0)
    refused(disk, ReadFailedError)
    disk.remove(JOURNAL)
    refused(disk, ReadFailedError)


@settings(max_examples=100, deadline=None)
@given(
    which=st.sampled_from([JOURNAL, META, DUMP]),
    where=st.floats(0, 1),
    new=st.binary(max_size=12),
    cut=st.booleans(),
    accept_loss=st.booleans(),
    at=st.sampled_from([None, 10]),
)
def test_whatever_the_files_hold_there_is_a_clear_error_or_a_whole_directory(
    which, where, new, cut, accept_loss, at
):
    disk = new_disk()
    write_to(disk, old_node(9 if at else 1, 20, dump=at), JOURNAL, DUMP)
    if not disk.exists(which):
        return
    content = disk.content(which)
    offset = int(where * len(content))
    put(disk, which, content[:offset] + new + (b"" if cut else content[offset + len(new) :]))
    before = files_on(disk)
    try:
        state = go(disk, accept_loss=accept_loss).state
    except RaftwalError as error:
        assert str(error)
        assert files_on(disk) == before
    else:
        assert directory_on(disk) == state
        assert {path: disk.content(path) for path in before} == before


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200), header=st.booleans())
def test_any_bytes_as_a_journal_are_read_or_refused(content, header):
    disk = SimulatedDisk()
    end = (40 + len(content)).to_bytes(4, "little")
    head = b"PYSYNCOBJ".ljust(32, b"\0") + b"\x01\0\0\0" + end if header else b""
    put(disk, "/journal", head + content)
    with contextlib.suppress(FileJournalError):
        found = read_journal(disk, "/journal")
        assert found.damage is not None or len(content) == sum(
            len(c) + 24 for c, *_ in found.entries
        )


def test_a_log_that_no_filejournal_can_address_is_refused():
    class Large(bytes):
        def __len__(self):
            return 1 << 31

    disk = SimulatedDisk()
    with pytest.raises(MigrationRefusedError, match="4 GiB"):
        write_journal(disk, "/journal", [(Large(), 1, 1), (Large(), 2, 1)], "0.3.17")
    assert disk.paths() == []
