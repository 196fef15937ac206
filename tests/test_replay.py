"""`replay()`: the entries of `read_all`, one after another, in memory that does not grow."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftwal import (
    WAL,
    ConfState,
    Entry,
    HardState,
    SnapshotMetadata,
)
from raftwal.errors import ClosedError, CorruptionError, TornTailError
from raftwal.testing import SimulatedDisk, UnsyncedDisk

DIRECTORY = "/log"


def entries(first: int, count: int, term: int = 1, size: int = 20) -> list[Entry]:
    return [
        Entry(term, index, bytes((index % 251,)) * size) for index in range(first, first + count)
    ]


def written(fs, saves, segment_bytes=600):
    with WAL.create(DIRECTORY, b"m", segment_bytes=segment_bytes, fs=fs) as wal:
        for save in saves:
            if isinstance(save, SnapshotMetadata):
                wal.save_snapshot(save)
            else:
                wal.save(*save)


def check_replay(fs, start=None):
    contents = WAL.open_for_read(DIRECTORY, start, fs=fs).read_all()
    replay = WAL.open_for_read(DIRECTORY, start, fs=fs).replay()
    expected = contents.entries[contents.stale_entries :]
    assert list(replay) == expected
    assert list(replay) == expected, "the second time"
    assert len(replay) == len(expected)
    assert replay.metadata == contents.metadata
    assert replay.hard_state == contents.hard_state
    assert replay.snapshots == contents.snapshots
    assert replay.valid_snapshots == contents.valid_snapshots
    assert replay.torn_tail is None
    return expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12), st.booleans()), max_size=25),
    st.integers(0, 8),
    st.sampled_from((1, 3, 1 << 14)),
)
def test_it_gives_what_no_later_entry_replaced(steps, snapshot_after, most_in_a_run):
    """Saves that go back any number of entries, across segments, runs of any length, from the
    beginning and from a snapshot."""
    fs = SimulatedDisk()
    last = lowest = 0
    term = 1
    start = None
    saves: list = []
    for number, (back, count, saves_state) in enumerate(steps):
        # What a snapshot covers is committed, and stays.
        first = max(lowest + 1, last + 1 - back)
        term += first <= last
        saves.append((HardState(term, 1, 0) if saves_state else None, entries(first, count, term)))
        last = first + count - 1
        if number + 1 == snapshot_after:
            lowest = last
            start = SnapshotMetadata(last, term, ConfState())
            saves.append(start)
    written(fs, saves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raftwal.wal.records._MOST_IN_A_RUN", most_in_a_run)
        check_replay(fs)
        if start is not None:
            check_replay(fs, start)


def test_entries_that_a_received_snapshot_contradicts_are_not_given():
    fs = SimulatedDisk()
    snapshot = SnapshotMetadata(5, 3, ConfState())
    written(fs, [(None, entries(1, 8)), snapshot, (HardState(3, 0, 5), [])])
    assert WAL.open_for_read(DIRECTORY, snapshot, fs=fs).read_all().stale_entries == 3
    assert check_replay(fs, snapshot) == []


def test_damage_is_told_before_any_entry_is_given():
    fs = SimulatedDisk()
    written(fs, [(None, entries(1, 40))])
    (path,) = [f"{DIRECTORY}/{name}" for name in fs.list(DIRECTORY) if name.endswith(".wal")][:1]
    file = fs.open(path)
    file.write(400, bytes((file.read(400, 1)[0] ^ 1,)))
    with pytest.raises(CorruptionError):
        WAL.open_for_read(DIRECTORY, fs=fs).replay()


def test_a_torn_tail_is_told_and_what_is_before_it_given():
    fs = SimulatedDisk()
    written(fs, [(None, entries(1, 4, size=1000))], segment_bytes=1 << 16)
    name = next(name for name in fs.list(DIRECTORY) if name.endswith(".wal"))
    fs.open(f"{DIRECTORY}/{name}").truncate(3500)
    replay = WAL.open_for_read(DIRECTORY, fs=fs).replay()
    assert isinstance(replay.torn_tail, TornTailError)
    assert [entry.index for entry in replay] == [1, 2, 3]
    with pytest.raises(TornTailError), WAL.open(DIRECTORY, fs=fs) as wal:
        wal.replay()


@pytest.mark.parametrize("segment_bytes", [600, 1 << 16])
def test_a_log_open_to_append_goes_on_behind_it_and_what_is_appended_is_not_given(segment_bytes):
    """Also when the entries that follow extend the last run, or replace its end."""
    fs = SimulatedDisk()
    written(fs, [(None, entries(1, 30))], segment_bytes)
    with WAL.open(DIRECTORY, fs=fs, segment_bytes=segment_bytes) as wal:
        replay = wal.replay()
        given_before = list(itertools.islice(replay, 3))
        wal.save(None, entries(31, 5))
        wal.save(HardState(2, 0, 3), entries(20, 3, term=2))
        assert given_before == entries(1, 3)
        assert list(replay) == entries(1, 30)
        with pytest.raises(ClosedError):
            wal.read_all()
        with pytest.raises(ClosedError):
            wal.replay()
    assert check_replay(fs) == entries(1, 19) + entries(20, 3, term=2)


def test_the_segments_of_a_long_log_are_not_held_in_memory(tmp_path, monkeypatch):
    """A hundred thousand entries in segments of 100 kB, counted by what Python allocates."""
    with WAL.create(tmp_path / "log", segment_bytes=100_000, fs=UnsyncedDisk()) as wal:
        for first in range(1, 100_000, 500):
            wal.save(None, entries(first, 500, size=100))
    monkeypatch.setattr("raftwal.wal.records._MOST_IN_A_RUN", 100)
    tracemalloc.start()
    try:
        replay = WAL.open_for_read(tmp_path / "log").replay()
        total = sum(len(entry.data) for entry in replay)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 100 * 100_000
    assert peak < total / 10
