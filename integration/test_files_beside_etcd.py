"""What etcd does with files, and when it syncs: the same, and each respects the other."""

from __future__ import annotations

import os

import pytest
from etcd_packages import EtcdError
from hypothesis import given, settings
from hypothesis import strategies as st

from raftwal import WAL, Entry, HardState, must_sync
from raftwal.errors import LockedError
from raftwal.fs import DISK
from raftwal.wal.purging import purge_segments


def segments_of(directory):
    return sorted(name for name in os.listdir(directory) if name.endswith(".wal"))


def fill(wal, count=30):
    for index in range(1, count + 1):
        wal.save(HardState(1, 1, 0), [Entry(1, index, b"x" * 100)])


states = st.builds(HardState, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=100, deadline=None, database=None)
@given(state=states, previous=states, count=st.integers(0, 2))
def test_both_sync_for_the_same_saves(etcd, state, previous, count):
    assert must_sync(state, previous, count) == etcd.must_sync(state, previous, count)


def test_the_locks_exclude_each_other(etcd, tmp_path):
    """On each segment that is held; a released one is anyone's."""
    with WAL.create(tmp_path / "log", segment_bytes=300) as wal:
        fill(wal, 12)
        wal.release_to(9)
        held = [etcd.try_lock(tmp_path / "log" / name) for name in segments_of(tmp_path / "log")]
        assert held == sorted(held, reverse=True)
        assert 1 < held.count(True) < len(held)
        with pytest.raises(EtcdError, match="locked"):
            etcd.open(tmp_path / "log", 300)
    etcd.open(tmp_path / "log", 300)
    with pytest.raises(LockedError):
        WAL.open(tmp_path / "log")
    etcd.release_to(9)
    for name, was_held in zip(segments_of(tmp_path / "log"), held, strict=True):
        file = DISK.open(str(tmp_path / "log" / name))
        try:
            assert file.try_lock() == was_held, name
        finally:
            file.close()
    etcd.close()


def test_both_purge_the_same_segments(etcd, tmp_path):
    """The oldest, up to the first that is locked, and down to as many as are to stay."""
    for release, keep in ((20, 3), (20, 1), (10, 1), (30, 100)):
        left = []
        for purge in (
            lambda path: purge_segments(DISK, str(path), keep),  # noqa: B023  # called at once
            lambda path: etcd.purge(path, "wal", keep),  # noqa: B023  # called at once
        ):
            path = tmp_path / f"log-{release}-{keep}-{len(left)}"
            with WAL.create(path, segment_bytes=300) as wal:
                fill(wal)
                before = segments_of(path)
                wal.release_to(release)
                purge(path)
                left.append(segments_of(path))
        assert left[0] == left[1]
        assert (left[0] == before) == (keep == 100)


@pytest.mark.parametrize("written", [0, 1000, 5000])
def test_files_have_the_same_size_after_preallocation(etcd, tmp_path, written):
    for name in ("ours", "theirs"):
        (tmp_path / name).write_bytes(b"x" * written)
    file = DISK.open(str(tmp_path / "ours"))
    try:
        file.allocate(4000)
        assert file.size() == etcd.preallocate(tmp_path / "theirs", 4000, extend=True)
    finally:
        file.close()
