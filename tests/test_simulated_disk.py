"""The simulated disk: what is durable, what a crash may leave, and what fails on demand."""

from __future__ import annotations

import errno

import pytest

from raftwal import Entry, HardState, RaftStorage
from raftwal.errors import LockedError, ReadFailedError, WriteFailedError
from raftwal.testing import Fault, InlineExecutor, PowerCutError, SimulatedDisk

SECTOR = 512


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    disk.make_directory("/d")
    disk.sync_directory("/")
    return disk


def written(disk, data=b"", name="/d/f"):
    """A durable file, open."""
    file = disk.create(name)
    file.write(0, data)
    file.sync()
    disk.sync_directory("/d")
    return file


def contents(disk, name="/d/f", most=1000):
    """What the file may hold after a crash; ``None`` for no file."""
    return {left.content(name) if left.exists(name) else None for left in disk.outcomes(most)}


def test_what_was_synced_is_there(disk):
    written(disk, b"synced")
    assert contents(disk) == {b"synced"}


def test_a_write_that_was_not_synced_is_there_or_not_sector_by_sector(disk):
    old, new = b"o" * 2 * SECTOR, b"n" * 2 * SECTOR
    written(disk, old).write(0, new)
    assert contents(disk) == {a * SECTOR + b * SECTOR for a in (b"o", b"n") for b in (b"o", b"n")}


def test_a_sector_may_have_any_version_since_the_last_sync(disk):
    file = written(disk, b"1" * SECTOR)
    file.write(0, b"2")
    file.write(0, b"3")
    assert {content[:1] for content in contents(disk)} == {b"1", b"2", b"3"}
    file.sync_data()
    assert {content[:1] for content in contents(disk)} == {b"3"}


def test_a_file_may_have_grown_without_its_data(disk):
    """Zeros or what was on the disk before, where nothing was written yet."""
    written(disk, b"x" * 100).write(100, b"y" * 100)
    found = contents(disk)
    assert b"x" * 100 in found
    assert b"x" * 100 + b"y" * 100 in found
    assert b"x" * 100 + bytes(100) in found
    others = found - {b"x" * 100, b"x" * 100 + b"y" * 100, b"x" * 100 + bytes(100)}
    assert others, "nothing stale"
    assert all(len(other) == 200 and other.startswith(b"x" * 100) for other in others)


def test_a_cut_may_be_undone_until_it_is_synced(disk):
    file = written(disk, b"x" * 900)
    file.truncate(100)
    assert {len(content) for content in contents(disk)} == {900, 100}
    file.sync()
    assert contents(disk) == {b"x" * 100}


def test_allocated_space_reads_as_zeros(disk):
    file = written(disk, b"x" * 100)
    file.allocate(2 * SECTOR)
    file.sync()
    assert contents(disk) == {b"x" * 100 + bytes(2 * SECTOR - 100)}


def test_a_new_name_is_there_or_not_until_the_directory_is_synced(disk):
    file = disk.create("/d/f")
    file.write(0, b"data")
    file.sync()
    assert contents(disk) == {None, b"data"}
    disk.sync_directory("/d")
    assert contents(disk) == {b"data"}


def test_a_rename_is_there_as_a_whole_or_not_at_all(disk):
    written(disk, b"old")
    written(disk, b"new", "/d/t")
    disk.rename("/d/t", "/d/f")
    found = {(left.content("/d/f"), left.exists("/d/t")) for left in disk.outcomes(100)}
    assert found == {(b"old", True), (b"new", False)}
    disk.sync_directory("/d")
    assert contents(disk) == {b"new"}


def test_a_removal_may_be_undone_until_the_directory_is_synced(disk):
    written(disk, b"data")
    disk.remove("/d/f")
    assert contents(disk) == {None, b"data"}
    disk.sync_directory("/d")
    assert contents(disk) == {None}


def test_a_directory_whose_name_is_not_durable_takes_all_in_it_along(disk):
    disk.make_directory("/d/sub")
    written_below = disk.create("/d/sub/f")
    written_below.write(0, b"data")
    written_below.sync()
    disk.sync_directory("/d/sub")
    assert {left.exists("/d/sub/f") for left in disk.outcomes(100)} == {True, False}


def test_what_is_kept_once_after_a_crash_stays(disk):
    written(disk, b"old").write(0, b"new")
    left = disk.after_crash(1)
    assert contents(left) == {left.content("/d/f")}


def test_many_outcomes_are_sampled_with_the_extremes_first(disk):
    file = written(disk, b"o" * 40 * SECTOR)
    file.write(0, b"n" * 40 * SECTOR)
    found = [left.content("/d/f") for left in disk.outcomes(50)]
    assert found[:2] == [b"o" * 40 * SECTOR, b"n" * 40 * SECTOR]
    assert 20 < len(set(found)) == len(found) <= 50
    again = [left.content("/d/f") for left in disk.outcomes(50)]
    assert again == found, "not a function of the seed"


def test_the_power_goes_at_the_call_that_was_named_and_stays_off(disk):
    file = written(disk, b"old")
    disk.cut_power_at = len(disk.calls) + 1
    file.write(0, b"new")
    with pytest.raises(PowerCutError):
        file.sync()
    for call in (lambda: file.write(0, b"more"), lambda: disk.list("/d"), file.size):
        with pytest.raises(PowerCutError):
            call()
    assert contents(disk) == {b"old", b"new"}


def test_after_a_kill_all_that_was_written_is_there_and_no_more_durable(disk):
    file = written(disk, b"old")
    assert file.try_lock()
    file.write(0, b"new")
    left = disk.after_kill()
    assert left.content("/d/f") == b"new"
    assert left.open("/d/f").try_lock()
    assert contents(left) == {b"old", b"new"}
    with pytest.raises(PowerCutError):
        disk.list("/d")


def test_after_a_sync_that_failed_the_data_is_gone_and_the_next_sync_succeeds(disk):
    """What is read shows it all the same, until a crash: the kernel's real behaviour."""
    file = written(disk, b"old")
    file.write(0, b"new")
    disk.faults.append(Fault("sync_data"))
    with pytest.raises(OSError, match="Input/output"):
        file.sync_data()
    file.sync_data()
    assert file.read(0, 3) == b"new"
    assert contents(disk) == {b"old"}
    file.write(2, b"!")
    file.sync_data()
    assert contents(disk) == {b"ne!"}, "a page that is written again goes as a whole"


def test_faults_hit_the_call_the_number_and_the_path_that_they_name(disk):
    file = written(disk, b"x")
    other = written(disk, b"x", "/d/other")
    disk.faults.append(Fault("write", errno.ENOSPC, nth=2, path="/f"))
    other.write(0, b"1")
    file.write(0, b"1")
    with pytest.raises(OSError, match="No space") as caught:
        file.write(0, b"2")
    assert caught.value.errno == errno.ENOSPC
    file.write(0, b"3")
    disk.faults.append(Fault("sync", repeats=True))
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            other.sync()


def test_a_write_that_fails_may_have_written_a_part(disk):
    lengths = set()
    for seed in range(30):
        disk = SimulatedDisk(seed)
        file = disk.create("/f")
        disk.faults.append(Fault("write"))
        with pytest.raises(OSError, match="Input/output"):
            file.write(0, b"x" * 3 * SECTOR)
        lengths.add(file.size())
    assert lengths == {0, SECTOR, 2 * SECTOR}


def test_a_full_disk_takes_what_fits_and_goes_on_when_there_is_room(disk):
    disk.capacity = 3 * SECTOR
    file = written(disk, b"x" * SECTOR)
    with pytest.raises(OSError, match="No space"):
        file.write(SECTOR, b"y" * 3 * SECTOR)
    assert file.size() == 3 * SECTOR
    file.write(0, b"z" * SECTOR)
    with pytest.raises(OSError, match="No space"):
        disk.create("/d/other").allocate(1)
    disk.remove("/d/f")
    disk.create("/d/other").allocate(SECTOR)


def test_a_bad_sector_and_a_flipped_bit(disk):
    file = written(disk, b"x" * 3 * SECTOR)
    disk.flip_bit("/d/f", 5, bit=3)
    assert file.read(5, 1) == bytes([ord("x") ^ 8])
    assert contents(disk).pop()[5] == ord("x") ^ 8
    disk.break_sector("/d/f", SECTOR + 7)
    assert file.read(0, SECTOR)[:1] == b"x"
    for offset, length in ((0, SECTOR + 1), (SECTOR, 1), (2 * SECTOR - 1, 10)):
        with pytest.raises(OSError, match="Input/output"):
            file.read(offset, length)


def test_names_that_are_not_there_or_there_already(disk):
    written(disk, b"x")
    for call, error in (
        (lambda: disk.open("/d/none"), FileNotFoundError),
        (lambda: disk.list("/none"), FileNotFoundError),
        (lambda: disk.list("/d/f"), NotADirectoryError),
        (lambda: disk.remove("/d"), IsADirectoryError),
        (lambda: disk.make_directory("/d"), FileExistsError),
        (lambda: disk.rename("/d/none", "/d/g"), FileNotFoundError),
    ):
        with pytest.raises(error):
            call()


def open_storage(disk):
    return RaftStorage.open("/d/node", fs=disk, segment_bytes=4096, executor=InlineExecutor())


def test_a_slow_sync_is_whatever_the_simulation_makes_of_it(disk):
    clock = [0.0]

    def before(call, path):
        clock[0] += 2.0 if call == "sync_data" else 0.0

    with open_storage(disk) as storage:
        disk.before = before
        storage.save(HardState(1, 1, 0), [Entry(1, 1, b"x")])
        assert clock == [2.0]


def test_a_storage_on_it_meets_its_locks_faults_and_bad_sectors(disk):
    storage = open_storage(disk)
    with pytest.raises(LockedError):
        open_storage(disk)
    storage.save(HardState(1, 1, 0), [Entry(1, 1, b"x")])
    disk.faults.append(Fault("sync_data"))
    with pytest.raises(WriteFailedError):
        storage.save(None, [Entry(1, 2, b"y")])
    left = disk.after_crash(0)
    (segment,) = (path for path in left.paths() if path.endswith(".wal"))
    left.break_sector(segment, 0)
    with pytest.raises(ReadFailedError):
        open_storage(left)
