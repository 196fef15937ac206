"""Nodes that start beside old files, or from what has become old."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from clusters import fast_conf, free_addresses
from migrations import (
    DATA,
    DUMP,
    HERE,
    JOURNAL,
    ME,
    META,
    Mute,
    directory_on,
    go,
    go_back,
    new_disk,
    refused,
)
from old_nodes import (
    NODES,
    dump_of,
    old_node,
    put,
    write_to,
    write_with_pysyncobj,
)
from prometheus_client import CollectorRegistry

from raftwal import wal_exists
from raftwal.errors import (
    IdentityMismatchError,
    InvalidSettingError,
    MigrationRefusedError,
    ReadFailedError,
)
from raftwal.pysyncobj import DurableSyncObj, StorageSettings, install
from raftwal.pysyncobj.migration import to_file_journal
from raftwal.testing import Fault

# PySyncObj leaves closing its .meta to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def disk():
    return new_disk()


# Old files stay old.


def test_files_that_were_migrated_are_not_migrated_again_until_they_change(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    go(disk)
    disk.rename(DATA, f"{HERE}/gone")
    error = refused(disk, MigrationRefusedError)
    assert DATA in str(error)
    assert f"{JOURNAL}.migrated" in error.advice
    refused(disk, MigrationRefusedError, to=f"{HERE}/another")
    # PySyncObj ran on them since.
    write_to(disk, old_node(1, 21), JOURNAL, DUMP)
    assert go(disk).state.last_index == 21
    disk.rename(DATA, f"{HERE}/gone as well")
    disk.remove(f"{JOURNAL}.migrated")
    assert go(disk).state.last_index == 21


def test_a_marker_that_cannot_be_read_is_not_passed_over(disk):
    write_to(disk, old_node(), JOURNAL, DUMP)
    put(disk, f"{JOURNAL}.migrated", b"{}")
    refused(disk, MigrationRefusedError)


def test_there_back_and_there_again_in_one_place(disk):
    """As an operator does it: the old ones are moved away, with or without their markers."""
    write_to(disk, old_node(9, 20, dump=10), JOURNAL, DUMP)
    state = go(disk).state
    for path in (JOURNAL, META, DUMP):
        disk.rename(path, f"{path}.old")
    assert go_back(disk, JOURNAL, DUMP).state == state
    disk.rename(DATA, f"{DATA}.old")
    assert go(disk).state == state
    assert directory_on(disk) == state
    assert not disk.exists(f"{DATA}.migrated")


def test_a_marker_that_cannot_be_left_is_noted(disk):
    """The old files may lie on what is mounted for reading only."""
    write_to(disk, old_node(), JOURNAL, DUMP)
    disk.faults.append(Fault("create", error=30, path=".migrated.tmp"))  # EROFS
    done = go(disk)
    assert any("move them away" in note for note in done.notes)


# At the start of a node.


def kv(tmp_path, **arguments):
    conf = fast_conf(journalFile=str(tmp_path / "journal"), fullDumpFile=str(tmp_path / "dump"))
    settings = StorageSettings(segment_bytes=1 << 16, registry=CollectorRegistry())
    return DurableSyncObj(
        ME,
        NODES[1:],
        conf,
        transport=Mute(),
        data_dir=tmp_path / "data",
        settings=settings,
        **arguments,
    )


def test_a_durable_node_starts_beside_old_files_only_when_told_to_take_them_over(tmp_path):
    write_with_pysyncobj(old_node(), tmp_path / "journal", tmp_path / "dump")
    with pytest.raises(IdentityMismatchError, match="starting empty would forget") as caught:
        kv(tmp_path)
    assert "migrate='auto'" in caught.value.advice
    assert not (tmp_path / "data").exists()
    node = kv(tmp_path, migrate="auto")
    assert node.raftCurrentTerm == 2
    assert node._durable_node.journal.getVotedForNodeId() == NODES[1]
    node.destroy()
    kv(tmp_path).destroy()  # from then on it is as any other


def test_a_dump_alone_is_not_forgotten_either(tmp_path):
    (tmp_path / "dump").write_bytes(dump_of(10))
    with pytest.raises(IdentityMismatchError):
        kv(tmp_path)
    with pytest.raises(ReadFailedError):
        kv(tmp_path, migrate="auto")
    assert not (tmp_path / "data").exists()


def test_a_node_does_not_go_back_in_time_when_its_directory_is_removed(tmp_path):
    write_with_pysyncobj(old_node(), tmp_path / "journal", tmp_path / "dump")
    kv(tmp_path, migrate="auto").destroy()
    (tmp_path / "data").rename(tmp_path / "removed")
    with pytest.raises(MigrationRefusedError, match="was migrated to"):
        kv(tmp_path, migrate="auto")
    assert not (tmp_path / "data").exists()


def test_a_directory_whose_node_went_back_is_not_started_from(tmp_path):
    write_with_pysyncobj(old_node(), tmp_path / "journal", tmp_path / "dump")
    kv(tmp_path, migrate="auto").destroy()
    for name in ("journal", "journal.meta"):
        (tmp_path / name).rename(tmp_path / f"old.{name}")
    to_file_journal(tmp_path / "data", tmp_path / "journal", None)
    for migrate in (None, "auto"):
        with pytest.raises(MigrationRefusedError, match="went back to a FileJournal") as caught:
            kv(tmp_path, migrate=migrate)
    # What the advice says does it.
    assert "data.migrated" in caught.value.advice
    for name in ("data", "data.migrated"):
        (tmp_path / name).rename(tmp_path / f"old.{name}")
    kv(tmp_path, migrate="auto").destroy()


def test_migrate_is_auto_or_nothing(tmp_path):
    with pytest.raises(InvalidSettingError):
        kv(tmp_path, migrate="yes")
    with pytest.raises(InvalidSettingError):
        install(migrate=True)


INSTALLED = """
    import sys
    from pysyncobj import SyncObj, SyncObjConf, replicated
    import raftwal.pysyncobj
    if sys.argv[1] == "raftwal":
        raftwal.pysyncobj.install(raftwal.pysyncobj.StorageSettings(segment_bytes=1 << 16),
                                  migrate="auto")
    conf = SyncObjConf(journalFile="journal", fullDumpFile="dumps/of the node",
                       autoTickPeriod=0.005, logCompactionMinEntries=20, raftMinTimeout=0.31,
                       raftMaxTimeout=0.4, useFork=False)

    class Counter(SyncObj):
        def __init__(self):
            super().__init__(sys.argv[2], [], conf)
            self.count = 0

        @replicated
        def add(self):
            self.count += 1
            return self.count

    counter = Counter()
    for _ in range(30):
        last = counter.add(sync=True, timeout=30)
    print(last)
    counter.destroy_synchronous()
"""


def test_install_takes_over_what_the_configuration_names(tmp_path):
    (address,) = free_addresses(1)
    (tmp_path / "dumps").mkdir()
    counted = []
    for role in ("plain", "raftwal", "raftwal"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(INSTALLED), role, address],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        counted.append(done.stdout)
    assert counted == ["30\n", "60\n", "90\n"]
    assert (tmp_path / "dumps" / "of the node").exists()
    assert wal_exists(tmp_path / "journal.raftwal" / "wal")
