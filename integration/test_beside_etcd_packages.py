"""raftwal and the newest etcd's packages: the same calls, the same files, the same answers.

``RAFTWAL_ETCD_SCRIPTS`` is how many scripts are drawn for this file, thousands by hand;
without it the same 150 every time.  Hypothesis prints a script that fails, and how to draw
it again.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from beside_etcd import Writers
from etcd_packages import EtcdError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_scripts import Script, scripts

from raftwal import (
    WAL,
    ConfState,
    Entry,
    HardState,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
    must_sync,
    wal_exists,
)
from raftwal.errors import LockedError
from raftwal.fs import DISK

SCRIPTS = int(os.environ.get("RAFTWAL_ETCD_SCRIPTS", "150"))
drawn = settings(
    max_examples=SCRIPTS,
    derandomize="RAFTWAL_ETCD_SCRIPTS" not in os.environ,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def seen():
    """How often the scripts did what they are for."""
    counted: Counter[str] = Counter()
    yield counted
    print(f"\n{dict(counted)}")


@drawn
@given(script=scripts())
def test_the_same_calls_give_the_same_files_and_each_reads_the_others(etcd, seen, script: Script):
    """Also in turns: each goes on in the directory that the other wrote."""
    with tempfile.TemporaryDirectory() as root:
        writers = Writers(Path(root), etcd)
        try:
            writers.perform(script)
        except BaseException:
            etcd.kill()
            writers.writers[0].close()
            raise
        seen["scripts"] += 1
        seen["calls"] += len(script.calls)
        seen["cuts"] += writers.cuts
        seen["turns"] += writers.turns
        seen["same bytes to the end"] += writers.same_bytes
        seen["given up where etcd forgot a received snapshot"] += not writers.same_contents
        for call in script.calls:
            seen[type(call).__name__] += 1


STATES = st.builds(
    HardState, *[st.one_of(st.integers(0, 2), st.integers(0, 2**64 - 1)) for _ in range(3)]
)


@drawn
@given(state=STATES, previous=STATES, entry_count=st.integers(0, 3))
def test_both_have_the_same_rule_of_when_to_sync(etcd, state, previous, entry_count):
    assert must_sync(state, previous, entry_count) == etcd.must_sync(state, previous, entry_count)


def test_each_is_kept_out_of_a_log_that_the_other_has_open(etcd, tmp_path):
    etcd.create(tmp_path / "etcd", b"", 4096)
    with pytest.raises(LockedError):
        WAL.open(tmp_path / "etcd")
    etcd.close()
    WAL.open(tmp_path / "etcd").close()

    with WAL.create(tmp_path / "raftwal", b"", segment_bytes=4096):
        (segment,) = (tmp_path / "raftwal").glob("*.wal")
        assert not etcd.try_lock(segment)
        with pytest.raises(EtcdError, match="file already locked"):
            etcd.open(tmp_path / "raftwal", 4096)
        # Neither keeps a reader out.
        assert etcd.read(tmp_path / "raftwal").entries == []
    assert etcd.try_lock(segment)


def test_both_say_of_the_same_directories_that_there_is_a_log(etcd, tmp_path):
    WAL.create(tmp_path / "log", b"", segment_bytes=4096).close()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.tmp").touch()
    for name in ("log", "empty", "other", "none"):
        assert wal_exists(tmp_path / name) == etcd.exist(tmp_path / name) == (name == "log")


@pytest.mark.parametrize("before", [0, 100, 5000])
@pytest.mark.parametrize("size", [1, 4096, 100_000])
def test_both_extend_a_file_to_the_size_that_is_allocated(etcd, tmp_path, before, size):
    """One that is larger already stays as it is."""
    for name in ("raftwal", "etcd"):
        (tmp_path / name).write_bytes(b"x" * before)
    file = DISK.open(str(tmp_path / "raftwal"))
    file.allocate(size)
    file.close()
    assert etcd.preallocate(tmp_path / "etcd", size, extend=True) == max(before, size)
    assert (tmp_path / "raftwal").read_bytes() == (tmp_path / "etcd").read_bytes()


def test_a_killed_etcd_leaves_what_raftwal_reads_to_the_last_acknowledged_save(etcd, tmp_path):
    """What waits for the next sync, a commit index alone, is lost with the process."""
    etcd.create(tmp_path / "log", b"", 4096)
    etcd.save(HardState(1, 7, 0), [Entry(1, 1, b"one")])
    etcd.save(HardState(1, 7, 1))
    etcd.kill()
    with WAL.open(tmp_path / "log", segment_bytes=4096) as wal:
        contents = wal.read_all()
    assert contents.hard_state == HardState(1, 7, 0)
    assert contents.entries == [Entry(1, 1, b"one")]


def test_entries_that_were_cut_off_behind_a_snapshot_come_back_in_etcd_only(etcd, tmp_path):
    """Both read them; raftwal says that they do not follow, and its storage drops them."""
    node = tmp_path / "node"
    with RaftStorage.open(node) as storage:
        storage.save(HardState(1, 1, 3), [Entry(1, index, b"x") for index in range(1, 8)])
        storage.save(HardState(2, 1, 5), [Entry(2, index, b"y") for index in (4, 5)])
        storage.save_snapshot(Snapshot(SnapshotMetadata(5, 2, ConfState((1,))), b"state"))
    start = SnapshotMetadata(5, 2)
    cut_off = [Entry(1, index, b"x") for index in (6, 7)]
    assert etcd.read(node / "wal", start).entries == cut_off
    contents = WAL.open_for_read(node / "wal", start).read_all()
    assert (contents.entries, contents.stale_entries) == (cut_off, 2)
    with RaftStorage.open(node) as storage:
        assert storage.recovered.entries == []
        assert storage.last_index == 5
