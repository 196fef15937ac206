"""A migration that is cut off, or fails, leaves nothing to start from or all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from clusters import fast_conf
from migrations import (
    BACK,
    BACK_DUMP,
    DATA,
    DUMP,
    HERE,
    JOURNAL,
    ME,
    Mute,
    directory_on,
    files_on,
    go,
    go_back,
    new_disk,
    on_disk,
    refused,
    source_of,
)
from old_nodes import (
    NO_OP,
    OldNode,
    entries,
    old_node,
    put,
    write_to,
    write_with_pysyncobj,
)
from prometheus_client import CollectorRegistry
from pysyncobj import SyncObj

from raftwal import RaftStorage, RaftwalError
from raftwal.errors import (
    LockedError,
    MigrationRefusedError,
    MigrationTargetExistsError,
    ReadFailedError,
    WriteFailedError,
)
from raftwal.pysyncobj.file_journal import write_journal
from raftwal.pysyncobj.in_making import DirectoryInMaking
from raftwal.pysyncobj.migration import to_file_journal
from raftwal.testing import Fault, PowerCutError, SimulatedDisk

# PySyncObj leaves closing its .meta to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

every_failure = pytest.mark.parametrize(
    "node",
    [old_node(), old_node(9, 20, dump=10), OldNode([(NO_OP, 1, 0)], None)],
    ids=["a log from its start", "a dump and what follows", "a node that has just begun"],
)


@pytest.fixture
def disk():
    return new_disk()


# Nothing or all of it.


class Left(NamedTuple):
    """A disk after a crash, the place of the crash, and whether the migration was done by then."""

    disk: SimulatedDisk
    place: str
    is_done: bool


def every_crash(before: SimulatedDisk, migrate, outcomes: int = 3) -> Iterator[Left]:
    """What may be left of a migration that a power cut, or a kill, ended at each of its calls,
    or right behind the last.
    """
    whole = before.after_crash(0)
    migrate(whole)
    calls = len(whole.calls)
    assert calls > 30
    for call in range(calls + 1):
        disk = before.after_crash(0)
        disk.cut_power_at = call
        is_done = False
        with contextlib.suppress(PowerCutError):
            migrate(disk)
            is_done = True
        assert is_done == (call == calls)
        for number, left in enumerate(disk.outcomes(outcomes)):
            place = f"power cut at {disk.calls[-1:]}, call {call}, outcome {number}"
            yield Left(left, place, is_done)
        yield Left(disk.after_kill(), f"kill at {disk.calls[-1:]}, call {call}", is_done)


@every_failure
def test_a_crash_at_any_call_leaves_no_directory_or_a_whole_one(node, disk):
    write_to(disk, node, JOURNAL, DUMP)
    source = source_of(disk)
    expected = go(disk.after_crash(0)).state
    for left, place, is_done in every_crash(disk, go):
        assert source_of(left) == source, place
        if not left.exists(DATA):
            assert not is_done, place
            # And the next try is neither in the way of what was left nor kept from it.
            assert go(left).state == expected, place
        assert directory_on(left) == expected, place
        assert not left.exists(f"{DATA}.migrating"), place
        # From here on the old files are known to be old.
        left.rename(DATA, f"{HERE}/gone")
        with pytest.raises(MigrationRefusedError, match="was migrated to"):
            go(left)


@pytest.mark.parametrize("node", [old_node(), old_node(9, 20, dump=10)])
def test_a_crash_at_any_call_on_the_way_back_leaves_nothing_to_start_from_or_all(node, disk):
    write_to(disk, node, JOURNAL, DUMP)
    go(disk)
    disk.write_back()
    source = {path: content for path, content in files_on(disk).items() if path.startswith(DATA)}
    whole = disk.after_crash(0)
    expected = go_back(whole).state
    expected_files = {path: whole.content(path) for path in whole.paths() if "/back/" in path}
    for left, place, is_done in every_crash(disk, go_back):
        assert {path: left.content(path) for path in source} == source, place
        if left.exists(BACK) and left.content(BACK):
            found = {path: left.content(path) for path in expected_files}
            assert found == expected_files, place
        else:
            assert not is_done, place
            # PySyncObj makes a journal where there is none, and does not start on an empty
            # file: the dump or the .meta may stand beside that one only.
            if not left.exists(BACK):
                assert not left.exists(f"{BACK}.meta"), place
                assert not left.exists(BACK_DUMP), place
            assert go_back(left).state == expected, place
            assert {path: left.content(path) for path in expected_files} == expected_files, place
        with pytest.raises(MigrationRefusedError, match="was migrated to"):
            to_file_journal(DATA, f"{HERE}/more", f"{HERE}/more.dump", fs=left)


def test_pysyncobj_does_not_start_on_the_file_that_keeps_the_journals_place(tmp_path):
    (tmp_path / "journal").touch()
    with pytest.raises(ValueError, match="empty"):
        SyncObj(ME, [], fast_conf(journalFile=str(tmp_path / "journal")), transport=Mute())
    assert (tmp_path / "journal").read_bytes() == b""


@pytest.mark.parametrize("migrate", [go, go_back], ids=["there", "back"])
def test_a_call_that_fails_leaves_nothing_new_and_the_next_try_succeeds(migrate, disk):
    write_to(disk, old_node(9, 20, dump=10), JOURNAL, DUMP)
    if migrate is go_back:
        go(disk)
        # Made before, so that what is left can be compared.
        disk.make_directory(f"{HERE}/back")
        disk.write_back()
    whole = disk.after_crash(0)
    before = whole.fingerprint()
    expected = migrate(whole).state
    kinds = [name for name, _ in whole.calls]
    refused = 0
    writing = {"create", "make_directory", "write", "allocate", "sync", "sync_data", "rename"}
    for kind in sorted(set(kinds) - {"exists", "is_directory", "size", "truncate"}):
        for nth in range(1, kinds.count(kind) + 1):
            left = disk.after_crash(0)
            left.faults.append(Fault(kind, nth=nth))
            try:
                done = migrate(left)
            except RaftwalError as error:
                assert isinstance(error, (WriteFailedError, ReadFailedError)), (kind, nth)
                if kind in writing:
                    assert left.fingerprint() == before, (kind, nth, left.paths())
                assert migrate(left).state == expected, (kind, nth)
                refused += 1
            else:
                # What is tidied up, or prepared in the background, may fail.
                assert done.state == expected, (kind, nth)
            assert directory_on(left) == expected, (kind, nth)
    assert refused > 25


def test_a_full_disk_leaves_nothing_new(disk):
    write_to(disk, old_node(9, 20, dump=10), JOURNAL, DUMP)
    disk.capacity = sum(map(len, files_on(disk).values())) + 3000
    error = refused(disk, WriteFailedError)
    assert "No space left" in str(error)


def test_nothing_is_ever_replaced(disk):
    write_to(disk, old_node(9, 20, dump=10), JOURNAL, DUMP)
    disk.make_directory(DATA)
    put(disk, f"{DATA}/anything", b"")
    refused(disk, MigrationTargetExistsError)
    disk.remove_tree(DATA)
    go(disk)
    for path in (BACK, f"{BACK}.meta", BACK_DUMP):
        with contextlib.suppress(FileExistsError):
            disk.make_directory(f"{HERE}/back")
        put(disk, path, b"")
        before = files_on(disk)
        with pytest.raises(MigrationTargetExistsError) as caught:
            go_back(disk)
        assert caught.value.path == path
        assert files_on(disk) == before
        disk.remove(path)


def test_a_node_that_runs_on_the_files_is_noticed(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    seen = []

    def append(call, path):
        if call == "create" and path.endswith(".wal") and not seen:
            seen.append(path)
            disk.before = None
            write_journal(disk, JOURNAL, entries(1, 21), "0.3.17")

    disk.before = append
    with pytest.raises(MigrationRefusedError, match="a node is running"):
        go(disk)
    assert not disk.exists(DATA)


def test_two_migrations_to_one_target_exclude_each_other(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    errors = []

    def another(call, path):
        if call == "rename" and path.endswith(".migrating"):
            disk.before = None
            with pytest.raises(LockedError) as caught:
                go(disk)
            errors.append(caught.value)

    disk.before = another
    assert go(disk).state.last_index == 20
    assert errors


def test_a_migration_that_comes_second_leaves_the_first_ones_marker(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    second = DirectoryInMaking(disk, JOURNAL, DATA)
    go(disk)
    with pytest.raises(MigrationTargetExistsError), second:
        pass
    assert not disk.exists(f"{DATA}.migrating")
    disk.rename(DATA, f"{HERE}/gone")
    refused(disk, MigrationRefusedError)


def test_a_directory_that_a_node_runs_on_is_not_taken_back(tmp_path):
    journal, dump = tmp_path / "journal", tmp_path / "dump"
    write_with_pysyncobj(old_node(), journal, dump)
    on_disk(journal, None, tmp_path / "data")
    with (
        RaftStorage.open(tmp_path / "data", registry=CollectorRegistry()),
        pytest.raises(LockedError),
    ):
        to_file_journal(tmp_path / "data", tmp_path / "back", None)
    assert not (tmp_path / "back").exists()
