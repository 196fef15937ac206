"""A storage on asyncio: tasks share syncs, in order, and no disk holds up the event loop."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest
from directories import entries
from test_group_commit import PATIENCE, SlowDisk

from raftwal import AsyncRaftStorage, Entry, HardState, RaftStorage, Snapshot, SnapshotMetadata
from raftwal.errors import (
    ClosedError,
    InvalidEntryError,
    SnapshotOutOfDateError,
    WriteFailedError,
)
from raftwal.metrics import StorageMetrics


@pytest.fixture
def disk():
    return SlowDisk()


def open_storage(path, disk, **settings):
    return RaftStorage.open(
        path / "data",
        fs=disk,
        segment_bytes=1 << 16,
        preallocation="reserve",
        metrics=StorageMetrics(),
        **settings,
    )


def recovered(path):
    with RaftStorage.open(path / "data", metrics=StorageMetrics()) as storage:
        return storage.recovered


def run(main):
    return asyncio.run(asyncio.wait_for(main, PATIENCE))


async def reached(disk):
    """The loop goes on while the disk is stuck, or this never returns."""
    while not disk.reached.is_set():
        await asyncio.sleep(0.001)


def test_tasks_that_save_at_the_same_time_share_a_sync(tmp_path, disk):
    async def main():
        async with AsyncRaftStorage(open_storage(tmp_path, disk)) as storage:
            disk.is_stuck = True
            saves = [asyncio.ensure_future(storage.save(None, entries(1, 1)))]
            await reached(disk)
            saves += [asyncio.ensure_future(storage.save(None, entries(n, n))) for n in range(2, 9)]
            await asyncio.sleep(0)
            assert storage.storage.last_index == 8
            assert not any(save.done() for save in saves)
            disk.calls.clear()
            disk.answer()
            await asyncio.gather(*saves)
            assert [call for call, _ in disk.calls] == ["sync_data", "write", "sync_data"]

    run(main())
    assert recovered(tmp_path).entries == entries(1, 8)


def test_all_that_is_durable_by_then_is_told_with_one_call_into_the_loop(tmp_path, disk):
    async def main():
        loop = asyncio.get_running_loop()
        async with AsyncRaftStorage(open_storage(tmp_path, disk)) as storage:
            disk.is_stuck = True
            saves = [asyncio.ensure_future(storage.save(None, entries(n, n))) for n in range(1, 9)]
            await reached(disk)
            calls = []
            call = loop.call_soon_threadsafe
            loop.call_soon_threadsafe = lambda *arguments: calls.append(call(*arguments))
            disk.answer()
            # The loop has no turn before all of them are done.
            storage.storage.submit(None).result(PATIENCE)
            assert len(calls) == 1
            await asyncio.gather(*saves)
            await storage.save(None, entries(9, 9))
            assert len(calls) == 2

    run(main())
    assert recovered(tmp_path).entries == entries(1, 9)


def test_a_save_is_durable_that_a_loop_did_not_wait_for_until_it_ended(tmp_path, disk, caplog):
    storage = open_storage(tmp_path, disk)

    async def main():
        disk.is_stuck = True
        save = asyncio.ensure_future(AsyncRaftStorage(storage).save(None, entries(1, 1)))
        await reached(disk)
        save.cancel()

    run(main())
    disk.answer()
    storage.submit(None).result(PATIENCE)
    storage.close()
    assert not caplog.records
    assert recovered(tmp_path).entries == entries(1, 1)


def test_what_is_called_one_after_another_is_done_in_that_order(tmp_path, disk):
    """Saves, a received snapshot, the save that reaches it, a sync, the end."""

    async def main():
        storage = AsyncRaftStorage(open_storage(tmp_path, disk))
        await storage.save(HardState(1, 1, 2), entries(1, 3))
        await storage.save_snapshot(Snapshot(SnapshotMetadata(40, 2), b"theirs"))
        calls = [
            storage.save(HardState(2, 1, 40), [Entry(2, 41, b"a")]),
            storage.save(None, [Entry(2, 42, b"b")]),
            storage.sync(),
            storage.save(HardState(2, 1, 42)),
            storage.close(),
            storage.save(None, [Entry(2, 43, b"c")]),
        ]
        *done, refused = await asyncio.gather(*calls, return_exceptions=True)
        assert done == [None] * 5
        assert isinstance(refused, ClosedError)

    run(main())
    found = recovered(tmp_path)
    assert found.snapshot.metadata.index == 40
    assert found.entries == [Entry(2, 41, b"a"), Entry(2, 42, b"b")]
    assert found.hard_state == HardState(2, 1, 42)


def test_a_cancelled_save_is_saved_and_holds_up_nobody(tmp_path, disk):
    async def main():
        async with AsyncRaftStorage(open_storage(tmp_path, disk)) as storage:
            disk.is_stuck = True
            first = asyncio.ensure_future(storage.save(None, entries(1, 1)))
            await reached(disk)
            second = asyncio.ensure_future(storage.save(None, entries(2, 2)))
            third = asyncio.ensure_future(storage.save(None, entries(3, 3)))
            await asyncio.sleep(0)
            first.cancel()
            second.cancel()
            for save in (first, second):
                with pytest.raises(asyncio.CancelledError):
                    await save
            disk.answer()
            await third

    run(main())
    assert recovered(tmp_path).entries == entries(1, 3)


@pytest.mark.parametrize("call", ["save", "sync", "save_snapshot"])
def test_a_long_call_that_is_cancelled_is_done_before_the_next(tmp_path, disk, call):
    async def main():
        async with AsyncRaftStorage(open_storage(tmp_path, disk)) as storage:
            await storage.save(HardState(1, 1, 2), entries(1, 3))
            if call == "save":
                await storage.save_snapshot(Snapshot(SnapshotMetadata(3, 1), b"theirs"))
                long = storage.save(HardState(1, 1, 3))
            elif call == "sync":
                long = storage.sync()
            else:
                long = storage.save_snapshot(Snapshot(SnapshotMetadata(2, 1), b"own"))
            disk.is_stuck = True
            task = asyncio.ensure_future(long)
            await reached(disk)
            after = asyncio.ensure_future(storage.save(None, entries(4, 4)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert storage.storage.last_index == 3, "it would wait for the disk, in the loop"
            disk.answer()
            await after

    run(main())
    found = recovered(tmp_path)
    assert found.entries[-1:] == entries(4, 4)
    assert (found.snapshot is not None) == (call != "sync")


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_snapshot_that_is_written_holds_up_no_save(tmp_path, disk, is_cancelled):
    writes, may_write = threading.Event(), threading.Event()

    def hold(call, path, arguments):
        if call == "write" and ".snap" in path:
            writes.set()
            assert may_write.wait(PATIENCE)

    async def main():
        async with AsyncRaftStorage(open_storage(tmp_path, disk)) as storage:
            await storage.save(HardState(1, 1, 2), entries(1, 3))
            disk.before = hold
            snapshot = Snapshot(SnapshotMetadata(2, 1), b"state")
            task = asyncio.ensure_future(storage.save_snapshot(snapshot))
            while not writes.is_set():
                await asyncio.sleep(0.001)
            await storage.save(HardState(1, 1, 3), entries(4, 4))
            if is_cancelled:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            may_write.set()
            while storage.storage.snapshot_metadata.index == 0:
                await asyncio.sleep(0.001)
            assert is_cancelled or await task is None
            assert storage.storage.snapshot_metadata.index == 2
            with pytest.raises(SnapshotOutOfDateError):
                await storage.save_snapshot(snapshot)

    run(main())
    assert recovered(tmp_path).entries == entries(3, 4)


def test_errors_reach_who_awaits(tmp_path, disk):
    async def main():
        storage = AsyncRaftStorage(open_storage(tmp_path, disk))
        with pytest.raises(InvalidEntryError):
            await storage.save(None, entries(2, 2))
        disk.is_stuck = True
        saves = [asyncio.ensure_future(storage.save(None, entries(n, n))) for n in (1, 2, 3)]
        await reached(disk)
        disk.error = OSError(errno.EIO, "broken")
        disk.answer()
        for error in await asyncio.gather(*saves, return_exceptions=True):
            assert isinstance(error, WriteFailedError)
        with pytest.raises(WriteFailedError):
            await storage.sync()
        await storage.close()

    run(main())
