"""raftwal broken on purpose, one way at a time: the crash points find every one.

Each mutant leaves out or turns round one step that a promise rests on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import test_crash_points
from crash_points import Check, History, check_failing_sync, entry, open_storage

from raftwal import HardState, recovery
from raftwal import storage as storage_module
from raftwal.fs import FileSystem
from raftwal.snapshots import Snapshotter
from raftwal.storage import RaftStorage
from raftwal.testing import simulated_disk
from raftwal.wal import purging
from raftwal.wal.appending import Appender
from raftwal.wal.log import WAL

SEEDS = 6
"""How many seeds find each of them, at the most."""

File = simulated_disk._SimulatedFile


def without(owner: object, name: str, when: Callable[..., bool] = lambda *_: True) -> tuple:
    """``owner.name`` does nothing for calls of which ``when`` is true."""
    original = getattr(owner, name)

    def patched(self, *arguments, **named):
        return None if when(self, *arguments) else original(self, *arguments, **named)

    return owner, name, patched


def is_segment(file: File) -> bool:
    return file.path.endswith(".wal")


def is_prepared(file: File) -> bool:
    return file.path.endswith(".tmp") and "/wal/" in file.path


def is_snapshot(file: File) -> bool:
    return ".snap" in file.path


def in_wal(_: object, path: str) -> bool:
    return path.endswith("/wal")


def in_snap(_: object, path: str) -> bool:
    return path.endswith("/snap")


def sync_before_write(self: Appender) -> None:
    self._tail.sync_data()
    self.flush()


def record_before_file(self: RaftStorage, snapshot) -> None:
    self.record_snapshot(snapshot.metadata)
    self._snapshotter.save(snapshot)


def purge_before_record(self: RaftStorage, metadata) -> None:
    if metadata.index <= self.hard_state.commit:
        self._adopt(metadata)
    self._wal.save_snapshot(metadata)
    if metadata.index > self.hard_state.commit:
        self._unvouched = metadata


def adopt_at_once(self: RaftStorage, metadata) -> None:
    self._wal.save_snapshot(metadata)
    self._adopt(metadata)


def vouch_unsynced(self: RaftStorage, snapshot, hard_state) -> None:
    self._adopt(snapshot)


def go_on_after_failure(self: Appender) -> None:
    self._failure = None


def purge_all_but_the_last(fs: FileSystem, directory: str, keep: int) -> int:
    for segment in purging.list_segments(fs, directory)[:-1]:
        fs.remove(f"{directory}/{segment}")
    return 0


def purge_with_one_sync(fs: FileSystem, directory: str, keep: int) -> int:
    syncs = []

    class Late:
        def __getattr__(self, name):
            return getattr(fs, name)

        def sync_directory(self, path):
            syncs.append(path)

    purged = purging.purge_segments(Late(), directory, keep)
    if syncs:
        fs.sync_directory(directory)
    return purged


def zeros_not_cleared(self: WAL, end) -> None:
    _, tail = self._files[-1]
    tail.sync()


def write_in_place(self: Snapshotter, snapshot) -> str:
    data = simulated_snapshot_file(snapshot)
    path = f"{self._directory}/{snapshot.metadata.term:016x}-{snapshot.metadata.index:016x}.snap"
    file = self._fs.create(path)
    file.write(0, data)
    self._fs.sync_directory(self._directory)
    return path


def simulated_snapshot_file(snapshot) -> bytes:
    from raftwal.wire.frames import extend_crc  # noqa: PLC0415  # beside its one use
    from raftwal.wire.messages import encode_snapshot, encode_snapshot_file  # noqa: PLC0415

    data = encode_snapshot(snapshot)
    return encode_snapshot_file(extend_crc(0, data), data)


MUTANTS = {
    "a save is not synced": without(File, "sync_data", is_segment),
    "synced before it is written": (Appender, "sync", sync_before_write),
    "the segment that was cut is not synced": without(File, "sync", is_segment),
    "a new segment's header is not synced": without(File, "sync_data", is_prepared),
    "a new segment's name is not synced": without(
        simulated_disk.SimulatedDisk, "sync_directory", in_wal
    ),
    "the data directory's names are not synced": without(
        simulated_disk.SimulatedDisk, "sync_directory", lambda _, path: path.endswith("/node")
    ),
    "a segment grows without its size being synced": without(Appender, "_make_room"),
    "a snapshot file is not synced": without(File, "sync", is_snapshot),
    "a snapshot file's name is not synced": without(
        simulated_disk.SimulatedDisk, "sync_directory", in_snap
    ),
    "a snapshot file is written in place, as etcd's": (Snapshotter, "save", write_in_place),
    "a snapshot is recorded before its file is there": (
        RaftStorage,
        "save_snapshot",
        record_before_file,
    ),
    "segments go before the snapshot is recorded": (
        RaftStorage,
        "record_snapshot",
        purge_before_record,
    ),
    "a received snapshot counts before anything vouches for it": (
        RaftStorage,
        "record_snapshot",
        adopt_at_once,
    ),
    "a received snapshot is vouched for without a sync": (RaftStorage, "_vouch", vouch_unsynced),
    "recovery starts from a snapshot that nothing vouches for": (
        recovery.Opening,
        "_vouches",
        lambda self, contents, start: True,
    ),
    "purging asks nobody whether a segment is needed": (
        storage_module,
        "purge_segments",
        purge_all_but_the_last,
    ),
    "several segments are purged with one sync": (
        storage_module,
        "purge_segments",
        purge_with_one_sync,
    ),
    "what an unfinished write left is not cleared": (WAL, "_settle", zeros_not_cleared),
    "what was read is not made durable": without(WAL, "_settle"),
    "the log goes on after a failed sync": (Appender, "check_usable", go_on_after_failure),
}


@contextlib.contextmanager
def mutated(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(*MUTANTS[name])
        yield


def persistent(disk, history: History) -> None:
    """A caller that does not take a failure for an end: each save is tried twice."""
    storage = open_storage(disk, segment_bytes=4096)
    for index in range(1, 5):
        for _ in range(2):
            saved = [entry(index, size=300)] if index > storage.last_index else []
            try:
                history.save(storage, HardState(1, 7, index - 1), saved)
            except OSError:
                continue
            break


def find_a_fault(seed: int) -> None:
    for scenario in test_crash_points.SCENARIOS:
        Check(scenario, outcomes=6, nested=1, seed=seed).run()
    check_failing_sync(persistent, seed)


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_found(name, monkeypatch):
    for seed in range(SEEDS):
        with mutated(monkeypatch, name):
            try:
                find_a_fault(seed)
            except AssertionError as error:
                print(f"found with seed {seed}: {str(error)[:300]}")
                return
    pytest.fail(f"not found with {SEEDS} seeds")


def test_nothing_is_found_where_nothing_is_broken():
    """The caller that tries each save twice is no fault by itself."""
    for seed in range(SEEDS):
        check_failing_sync(persistent, seed)
