"""The power is cut at every call of every operation, and whatever may be left recovers.

RAFTWAL_CRASH_OUTCOMES: how many outcomes of each power cut are tried, 6 by default.
"""

from __future__ import annotations

import contextlib
import io
import os
import random

import pytest
from crash_points import (
    NODE,
    Check,
    History,
    check_failing_sync,
    entry,
    open_storage,
    snapshot,
)
from directories import entry_up_to_a_sector

from raftwal import WAL, Entry, HardState, Snapshotter
from raftwal.testing import InlineExecutor, PowerCutError, SimulatedDisk

OUTCOMES = int(os.environ.get("RAFTWAL_CRASH_OUTCOMES", "6"))


@pytest.fixture
def seed():
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}; replay with RAFTWAL_SEED={seed}")
    return seed


def create_and_save(disk: SimulatedDisk, history: History) -> None:
    """Create, save one by one and in batches, across sectors; hard states, commits alone."""
    storage = open_storage(disk, segment_bytes=4096)
    history.save(storage, HardState(1, 7, 0))
    history.save(storage, HardState(1, 7, 0), [entry(1)])
    history.save(storage, HardState(1, 7, 1))
    history.save(storage, HardState(1, 7, 1), [entry(2), entry(3, size=900), Entry(1, 4)])
    history.save(storage, HardState(1, 7, 3))
    history.save(storage, HardState(1, 7, 4))
    history.save(storage, HardState(2, 0, 4))
    history.save(storage, None, [entry(5, 2, 0), entry(6, 2, 400)])
    history.sync(storage)
    storage.close()
    history.acknowledged = len(history.records)


def save_across_sectors(disk: SimulatedDisk, history: History) -> None:
    """Saves of several sectors, of which a crash may leave the last without the first."""
    storage = open_storage(disk, segment_bytes=1 << 14)
    for first in range(1, 20, 3):
        new = [entry(first, size=40), entry(first + 1, size=700), entry(first + 2, size=330)]
        history.save(storage, HardState(1, 7, first - 1), new)


def begin_with_a_sector(disk: SimulatedDisk, history: History) -> None:
    """Saves whose first record begins with a sector: where that one is missing, nothing in its
    place is older, and the rest of the save is there in whole records.
    """
    storage = open_storage(disk, segment_bytes=1 << 14)
    history.save(storage, HardState(1, 7, 0))
    for first in range(1, 16, 5):
        (path,) = [path for path in disk.paths() if path.endswith(".wal")]
        history.save(storage, None, [entry_up_to_a_sector(disk.content(path), first)])
        new = [
            entry(first + number, size=size) for number, size in enumerate((60, 900, 40, 420), 1)
        ]
        history.save(storage, HardState(1, 7, first + 4), new)


def cut_and_purge(disk: SimulatedDisk, history: History) -> None:
    """Segments are cut, snapshots are saved, and what they make needless is purged."""
    storage = open_storage(disk)
    for index in range(1, 13):
        history.save(storage, HardState(1, 7, index - 1), [entry(index)])
        if index in (5, 9):
            history.save_snapshot(storage, snapshot(index - 1))
    history.save(storage, None, [entry(13, size=1500)])
    history.save(storage, HardState(1, 7, 13), [entry(14, size=0)])
    history.save_snapshot(storage, snapshot(13))
    for index in range(15, 27):
        history.save(storage, HardState(1, 7, index - 1), [entry(index, size=300)])
    # Several segments go at once.
    history.save_snapshot(storage, snapshot(25))


def replace_the_tail(disk: SimulatedDisk, history: History) -> None:
    """Another leader's entries take the place of some that were never committed."""
    storage = open_storage(disk)
    history.save(storage, HardState(1, 7, 2), [entry(index) for index in range(1, 7)])
    history.save(storage, HardState(2, 8, 2), [entry(4, 2), entry(5, 2)])
    history.save(storage, HardState(2, 8, 4), [entry(6, 2), entry(7, 2)])
    history.save(storage, HardState(3, 9, 4), [entry(5, 3)])
    history.save_snapshot(storage, snapshot(4, 2))
    history.save(storage, HardState(3, 9, 5))
    # What was cut off behind entry 5 must not follow on this.
    history.save_snapshot(storage, snapshot(5, 3))


def install_a_snapshot(disk: SimulatedDisk, history: History) -> None:
    """One far ahead, then one that contradicts what is not committed."""
    storage = open_storage(disk)
    history.save(storage, HardState(1, 7, 3), [entry(index) for index in range(1, 5)])
    history.save_snapshot(storage, snapshot(3))
    history.save_snapshot(storage, snapshot(40, 2))
    history.save(storage, HardState(2, 0, 40), [entry(41, 2), entry(42, 2)])
    history.save(storage, HardState(2, 0, 41), [entry(43, 2)])
    history.save(storage, HardState(3, 0, 41))
    history.save_snapshot(storage, snapshot(42, 3))
    history.save(storage, HardState(3, 0, 42), [entry(43, 3)])
    history.save(storage, None, [entry(44, 3), entry(45, 3)])


def reopen_with_remains(disk: SimulatedDisk, history: History) -> None:
    """A first life, whose end may be torn, and what the second one makes of it."""
    storage = open_storage(disk, segment_bytes=4096)
    history.save(storage, HardState(1, 7, 1), [entry(1), entry(2, size=900)])
    history.save(storage, HardState(1, 7, 2))
    storage.close()
    history.acknowledged = len(history.records)
    storage = open_storage(disk, segment_bytes=4096)
    history.save(storage, HardState(2, 8, 2), [entry(3, 2)])
    storage.close()
    storage = open_storage(disk, segment_bytes=512)
    history.save(storage, HardState(2, 8, 3), [entry(4, 2, 600)])
    history.save(storage, HardState(2, 8, 3), [entry(5, 2, 600)])
    history.save_snapshot(storage, snapshot(3, 2))


SCENARIOS = [
    create_and_save,
    save_across_sectors,
    begin_with_a_sector,
    cut_and_purge,
    replace_the_tail,
    install_a_snapshot,
    reopen_with_remains,
]
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)


@every_scenario
def test_a_power_cut_at_any_call_leaves_what_was_acknowledged(scenario, seed):
    check = Check(scenario, outcomes=OUTCOMES, nested=1, seed=seed)
    check.run()
    print(f"{check.recoveries} recoveries")
    assert check.recoveries > 200


@every_scenario
def test_a_call_that_fails_is_final_and_what_was_acknowledged_is_there(scenario, seed):
    assert check_failing_sync(scenario, seed) > 20


def test_a_torn_tail_is_repaired_wherever_the_repair_is_cut_off(seed):
    """The torn last record goes, the whole ones before it never do."""
    made, history = SimulatedDisk(seed), History()
    storage = open_storage(made, segment_bytes=4096)
    history.save(storage, HardState(1, 7, 1), [entry(1), entry(2)])
    history.acknowledged = len(history.records)
    # A save that a crash tears: its second sector never came.
    history.records += [entry(3, size=900), HardState(1, 7, 2)]
    storage.save(HardState(1, 7, 2), [entry(3, size=900)])
    storage.close()
    (path,) = [path for path in made.paths() if path.endswith(".wal")]
    made._inode(path).write(1024, bytes(512))
    made.write_back()

    def repair(disk, history):
        open_storage(disk, segment_bytes=4096)

    once = made.after_crash(0)
    assert open_storage(once, segment_bytes=4096).recovered.repair.repaired
    assert [path for path in once.paths() if path.endswith(".broken")]
    check = Check(repair, outcomes=OUTCOMES, nested=2, seed=seed)
    for call in range(len(once.calls) + 1):
        disk = made.after_crash(0)
        disk.cut_power_at = call
        with contextlib.suppress(PowerCutError):
            repair(disk, history)
        for left in disk.outcomes(OUTCOMES):
            check.recover(left, history, f"call {call}")
    assert check.recoveries > 100


def test_a_new_log_is_there_as_a_whole_or_not_at_all(seed):
    def create(disk):
        return WAL.create(
            f"{NODE}/wal", b"m", segment_bytes=2048, fs=disk, executor=InlineExecutor()
        )

    whole = SimulatedDisk(seed)
    create(whole).close()
    for call in range(len(whole.calls) + 1):
        disk = SimulatedDisk(seed)
        disk.cut_power_at = call
        is_made = False
        try:
            wal = create(disk)
            is_made = True
            wal.close()
        except PowerCutError:
            pass
        for left in disk.outcomes(200):
            try:
                WAL.open(
                    f"{NODE}/wal", segment_bytes=2048, fs=left, executor=InlineExecutor()
                ).read_all()
            except FileNotFoundError:
                assert not is_made, call
                create(left).close()


def test_a_snapshot_file_is_there_as_a_whole_or_not_at_all(seed):
    """And the one before it as long as the new one is not."""

    def save(disk):
        Snapshotter(f"{NODE}/snap", fs=disk).save(snapshot(1))
        yield snapshot(1)
        Snapshotter(f"{NODE}/snap", fs=disk).save(snapshot(2))
        yield snapshot(2)

    whole = SimulatedDisk(seed)
    list(save(whole))
    for call in range(len(whole.calls) + 1):
        disk = SimulatedDisk(seed)
        disk.cut_power_at = call
        saved = []
        with contextlib.suppress(PowerCutError):
            saved.extend(save(disk))
        for left in disk.outcomes(100):
            snapshots = Snapshotter(f"{NODE}/snap", fs=left)
            for name in snapshots.names():
                assert snapshots.read(name) == snapshot(name.index)
            assert not saved or snapshots.load().metadata.index >= saved[-1].metadata.index


def test_a_snapshots_database_is_there_as_a_whole_or_not_at_all(seed):
    state = bytes(range(256)) * 9

    def save(disk):
        Snapshotter(f"{NODE}/snap", fs=disk).save_database(io.BytesIO(state), 5)

    whole = SimulatedDisk(seed)
    save(whole)
    for call in range(len(whole.calls) + 1):
        disk = SimulatedDisk(seed)
        disk.cut_power_at = call
        is_saved = False
        try:
            save(disk)
            is_saved = True
        except PowerCutError:
            pass
        for left in disk.outcomes(100):
            snapshots = Snapshotter(f"{NODE}/snap", fs=left)
            try:
                path = snapshots.database_path(5)
            except FileNotFoundError:
                assert not is_saved
            else:
                assert left.content(path) == state
