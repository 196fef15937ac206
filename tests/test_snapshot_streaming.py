"""Snapshots in pieces: the same files, in bounded memory, of any size, checked before use."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import random
import tracemalloc

import pytest
from watched_disk import CHANGING_CALLS, Failing, WatchedDisk

from raftwal import ConfState, Entry, HardState, RaftStorage, Snapshot, SnapshotMetadata
from raftwal.errors import (
    InvalidSnapshotError,
    NoSnapshotError,
    ReadFailedError,
    SnapshotFileError,
    WriteFailedError,
)
from raftwal.pysyncobj.dump import Dump, DumpChunks, DumpDescription, StoredDump
from raftwal.snapshot_files import ChunksOf
from raftwal.snapshots import SnapshotName, Snapshotter
from raftwal.spool import CHUNK_BYTES, SizedChunks
from raftwal.testing import PowerCutError, SimulatedDisk
from raftwal.wire.frames import extend_crc
from raftwal.wire.messages import encode_snapshot, encode_snapshot_file
from raftwal.wire.schema import PbPySyncObjSnapshot

METADATA = SnapshotMetadata(5, 2, ConfState((1, 2, 3)))
NAME = SnapshotName(2, 5)
MIB = 1 << 20


def file_of(data: bytes) -> bytes:
    """What the file of a snapshot holds, as the format says it."""
    message = encode_snapshot(Snapshot(METADATA, data))
    return encode_snapshot_file(extend_crc(0, message), message)


def in_pieces(data: bytes, size: int):
    for start in range(0, len(data), size):
        yield data[start : start + size]


def random_bytes(count: int) -> bytes:
    return random.Random(count).randbytes(count)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "snap"


@pytest.fixture
def snapshots(directory):
    return Snapshotter(directory)


# The file.


@pytest.mark.parametrize(
    ("size", "piece"),
    [(0, 1), (1, 1), (127, 5), (300, 300), (16384, 1000), (CHUNK_BYTES, 4096), (3 * MIB + 1, MIB)],
)
def test_what_is_saved_in_pieces_is_the_file_that_save_makes(directory, snapshots, size, piece):
    data = random_bytes(size)
    path = directory / str(NAME)
    assert snapshots.save_stream(METADATA, in_pieces(data, piece)) == str(path)
    assert path.read_bytes() == file_of(data)
    path.unlink()
    snapshots.save(Snapshot(METADATA, data))
    assert path.read_bytes() == file_of(data)
    with snapshots.open(NAME) as reader:
        assert reader.metadata == METADATA
        assert reader.size == size
        assert b"".join(reader.chunks()) == data
        assert reader.read(max(0, size - 1), 10) == data[-1:]
        assert reader.read(size, 10) == b""
    assert snapshots.read(NAME) == Snapshot(METADATA, data)
    assert os.listdir(directory) == [str(NAME)]


def test_a_large_snapshot_is_synced_a_portion_at_a_time(directory):
    """The log's sync, which the node waits for, need not wait for all of a snapshot."""
    disk = WatchedDisk()
    Snapshotter(directory, fs=disk).save_stream(METADATA, in_pieces(bytes(40 * MIB), MIB))
    assert disk.count("sync_data", ".snap.tmp") == 2
    assert disk.count("sync", ".snap.tmp") == 1
    assert disk.count("sync", ".spool.tmp") == disk.count("sync_data", ".spool.tmp") == 0


@contextlib.contextmanager
def most_memory():
    """How many bytes were allocated at once, at most."""
    found = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_snapshot(directory, snapshots):
    chunk = random_bytes(64 << 10)
    for count in (16, 1024):
        with most_memory() as peak:
            snapshots.save_stream(METADATA, (chunk for _ in range(count)))
            with snapshots.open(NAME) as reader:
                size = sum(len(piece) for piece in reader.chunks())
        assert size == count * len(chunk)
        print(f"{peak[0] / MIB:.1f} MiB for one of {size / MIB:.0f} MiB")
        assert peak[0] < 8 * MIB


def test_a_storage_that_does_not_keep_the_data_recovers_in_bounded_memory(tmp_path):
    with RaftStorage.open(tmp_path / "node") as storage:
        storage.save(HardState(2, 1, 5), [Entry(2, index, b"x") for index in range(1, 7)])
        storage.save_snapshot_stream(METADATA, (bytes(MIB) for _ in range(64)))
        storage.record_snapshot(METADATA)
    with most_memory() as peak:
        storage = RaftStorage.open(tmp_path / "node", keep_snapshot_data=False)
        with storage, storage.open_snapshot() as reader:
            assert storage.recovered.snapshot == Snapshot(METADATA)
            assert [entry.index for entry in storage.recovered.entries] == [6]
            assert sum(map(len, reader.chunks())) == reader.size == 64 * MIB
    print(f"{peak[0] / MIB:.1f} MiB")
    # The log's reader takes some for the preallocated segment.
    assert peak[0] < 150 * MIB


class MostlyZeros:
    """A file that keeps what is written and is not all zeros: as large as one likes."""

    def __init__(self) -> None:
        self.path = ""
        self.written: dict[int, bytes] = {}
        self.length = 0
        self.zeros = bytes(CHUNK_BYTES + 64)

    def size(self):
        return self.length

    def read(self, offset, length):
        end = min(self.length, offset + length)
        overlapping = [
            (at, data)
            for at, data in self.written.items()
            if at < end and at + len(data) > offset and end > offset
        ]
        found = self.zeros[: end - offset]
        for at, data in overlapping:
            whole = bytearray(found)
            first, last = max(at, offset), min(at + len(data), end)
            whole[first - offset : last - offset] = data[first - at : last - at]
            found = bytes(whole)
        return found

    def write(self, offset, data):
        if data != self.zeros[: len(data)]:
            self.written[offset] = data
        self.length = max(self.length, offset + len(data))

    def sync(self): ...

    sync_data = close = sync


class OneFile:
    """A file system that has one directory, and one file in it."""

    def __init__(self, file) -> None:
        self.file = file

    def is_directory(self, path):
        return True

    def exists(self, path):
        return False

    def create(self, path):
        self.file.path = path
        return self.file

    def rename(self, source, target):
        self.file.path = target

    def sync_directory(self, path): ...

    def open_read_only(self, path):
        assert path == self.file.path
        return self.file


class Zeros(SizedChunks):
    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self):
        return self._size

    def __iter__(self):
        whole, rest = divmod(self._size, CHUNK_BYTES)
        chunk = bytes(CHUNK_BYTES)
        for _ in range(whole):
            yield chunk
        yield chunk[:rest]


def test_a_snapshot_may_be_larger_than_a_protobuf_message():
    size = (1 << 31) + 7
    snapshots = Snapshotter("/snap", fs=OneFile(MostlyZeros()))
    snapshots.save_stream(METADATA, Zeros(size))
    with snapshots.open(NAME) as reader:
        assert reader.metadata == METADATA
        assert reader.size == size
        assert reader.read(size - 3, 100) == bytes(3)


# What is wrong with it.


def test_whatever_bit_is_flipped_the_data_are_the_same_or_the_file_is_refused(directory, snapshots):
    path = directory / str(NAME)
    snapshots.save_stream(METADATA, [b"the state"])
    whole = path.read_bytes()
    for position in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            with snapshots.open(NAME) as reader:
                found = b"".join(reader.chunks())
        except SnapshotFileError as error:
            assert error.path == str(path)
            continue
        assert found == b"the state", position


def test_a_flipped_bit_in_a_large_file_is_found_wherever_it_is(directory, snapshots):
    path = directory / str(NAME)
    snapshots.save_stream(METADATA, in_pieces(random_bytes(3 * MIB), MIB))
    whole = path.read_bytes()
    source = random.Random(1)
    places = [20, MIB - 1, MIB, 2 * MIB, len(whole) - 30, len(whole) - 1]
    for place in places + [source.randrange(20, len(whole)) for _ in range(20)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(SnapshotFileError):
            snapshots.open(NAME)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:7],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: b"\xff" * len(data),
        lambda data: data[1:],
        lambda data: b"\x08\x00\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + data,
    ],
    ids=["empty", "cut", "half", "head", "longer", "zeros", "ones", "shifted", "claims"],
)
def test_damage_is_told_as_it_is_when_all_is_read_at_once(directory, snapshots, damage):
    path = directory / str(NAME)
    snapshots.save_stream(METADATA, in_pieces(random_bytes(2 * MIB), MIB))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SnapshotFileError) as at_once:
        snapshots.read(NAME)
    with pytest.raises(SnapshotFileError) as in_one_pass:
        snapshots.open(NAME)
    assert str(in_one_pass.value) == str(at_once.value)


def test_a_broken_file_is_set_aside_and_the_next_one_is_opened(directory, snapshots):
    for index in (3, 5):
        snapshots.save_stream(SnapshotMetadata(index, 2), [b"state %d" % index])
    (directory / str(NAME)).write_bytes(b"\x08\x01\x12\x01x")
    vouched = [SnapshotMetadata(3, 2), SnapshotMetadata(5, 2)]
    with snapshots.open_newest(vouched) as reader:
        assert (reader.metadata.index, reader.read(0, 99)) == (3, b"state 3")
    assert (directory / f"{NAME}.broken").exists()
    with pytest.raises(NoSnapshotError):
        snapshots.open_newest(vouched[1:])


def test_a_file_under_the_name_of_another_is_refused(directory, snapshots):
    snapshots.save_stream(METADATA, [b"x"])
    (directory / str(NAME)).rename(directory / str(SnapshotName(2, 6)))
    with pytest.raises(SnapshotFileError, match="index 5"):
        snapshots.open(SnapshotName(2, 6))


def test_a_file_that_cannot_be_read_is_no_damage(directory):
    Snapshotter(directory).save_stream(METADATA, [b"x" * 5000])
    for nth in (1, 2, 3):
        disk = WatchedDisk(Failing(errno.EIO, nth, ("open_read_only", "read")))
        with pytest.raises(ReadFailedError, match=os.strerror(errno.EIO)):
            Snapshotter(directory, fs=disk).open(NAME)
    assert Snapshotter(directory).read(NAME).data == b"x" * 5000


def test_metadata_that_cannot_be_are_refused_before_anything_is_read_or_written(directory):
    def chunks():
        raise AssertionError("asked for")
        yield b""

    with pytest.raises(InvalidSnapshotError):
        Snapshotter(directory).save_stream(SnapshotMetadata(1, 1 << 64), chunks())
    assert not directory.exists()


# While it is used.


def test_a_snapshot_that_is_purged_while_it_is_read_is_read_to_its_end(directory, snapshots):
    data = random_bytes(3 * MIB)
    snapshots.save_stream(METADATA, in_pieces(data, MIB))
    snapshots.save_stream(SnapshotMetadata(6, 2), [b"newer"])
    with snapshots.open(NAME) as reader:
        assert reader.read(0, MIB) == data[:MIB]
        assert snapshots.purge(SnapshotMetadata(6, 2), keep=1) == 1
        assert not (directory / str(NAME)).exists()
        assert b"".join(reader.chunks()) == data


def test_a_closed_reader_says_so_instead_of_reading_something_else(snapshots):
    snapshots.save_stream(METADATA, [b"state"])
    reader = snapshots.open(NAME)
    reader.close()
    reader.close()
    with pytest.raises(ReadFailedError):
        reader.read(0, 5)


def test_a_source_that_fails_is_told_as_it_is_and_leaves_nothing(directory, snapshots):
    def chunks():
        yield bytes(2 * MIB)
        raise ConnectionResetError("the peer is gone")

    with pytest.raises(ConnectionResetError):
        snapshots.save_stream(METADATA, chunks())
    assert os.listdir(directory) == []


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_whichever_call_fails_nothing_is_left_and_it_can_be_saved_then(tmp_path, error):
    data = random_bytes(3 * MIB)
    disk = WatchedDisk()
    Snapshotter(tmp_path / "whole", fs=disk).save_stream(METADATA, in_pieces(data, MIB))
    calls = [call for call, _ in disk.calls if call in CHANGING_CALLS]
    assert calls.count("write") >= 6
    directory = tmp_path / "snap"
    directory.mkdir()
    # But for the directory's own making, and for the sync after which it is there.
    for nth in range(1, len(calls) - 2):
        failing = Failing(error, nth)
        with pytest.raises(WriteFailedError):
            Snapshotter(directory, fs=WatchedDisk(failing)).save_stream(
                METADATA, in_pieces(data, MIB)
            )
        assert os.listdir(directory) == [], failing.failed_at
    Snapshotter(directory).save_stream(METADATA, in_pieces(data, MIB))
    assert Snapshotter(directory).read(NAME).data == data


def test_a_power_cut_at_any_call_leaves_the_whole_file_or_none(monkeypatch):
    """Of one that is spooled and synced in portions; and the one before it stays."""
    monkeypatch.setattr("raftwal.spool.CHUNK_BYTES", 600)
    monkeypatch.setattr("raftwal.snapshots.CHUNK_BYTES", 600)
    monkeypatch.setattr("raftwal.snapshot_files.CHUNK_BYTES", 600)
    monkeypatch.setattr("raftwal.snapshot_files.SYNC_BYTES", 1000)
    data = random_bytes(3000)

    def save(disk):
        snapshots = Snapshotter("/node/snap", fs=disk)
        snapshots.save_stream(SnapshotMetadata(3, 2), [b"before"])
        yield 3
        snapshots.save_stream(METADATA, in_pieces(data, 250))
        yield 5

    whole = SimulatedDisk(1)
    list(save(whole))
    assert [call for call, path in whole.calls if path.endswith("5.snap.tmp")].count(
        "sync_data"
    ) > 1
    for call in range(len(whole.calls) + 1):
        disk = SimulatedDisk(call)
        disk.cut_power_at = call
        saved = []
        with contextlib.suppress(PowerCutError):
            saved.extend(save(disk))
        for left in disk.outcomes(30):
            snapshots = Snapshotter("/node/snap", fs=left)
            for name in snapshots.names():
                with snapshots.open(name) as reader:
                    assert reader.read(0, 9999) == (data if name.index == 5 else b"before")
            assert not saved or snapshots.names()[0].index >= saved[-1]
            snapshots.remove_unfinished()
            assert not [path for path in left.paths() if path.endswith(".tmp")]


def test_what_a_crash_left_of_a_spool_is_removed_when_the_storage_is_opened(tmp_path):
    storage = RaftStorage.open(tmp_path / "node")
    spool = storage.spool()
    spool.append(bytes(2 * MIB))
    left = tmp_path / "node" / "snap" / os.path.basename(spool.path)
    assert left.stat().st_size == 2 * MIB
    storage.close()
    RaftStorage.open(tmp_path / "node").close()
    assert not left.exists()
    spool.close()


def test_spools_of_one_storage_do_not_meet(tmp_path):
    with RaftStorage.open(tmp_path / "node") as storage:
        spools = [storage.spool() for _ in range(3)]
        for number, spool in enumerate(spools):
            spool.append(b"%d" % number * (2 * MIB))
        for number, spool in enumerate(spools):
            assert b"".join(spool) == b"%d" % number * (2 * MIB)
            assert spool.read(2 * MIB - 1, 5) == b"%d" % number
            spool.close()
        assert os.listdir(tmp_path / "node" / "snap") == []


# PySyncObj's dump in it.

DESCRIPTION = DumpDescription((b"before", 4, 1), (b"last", 5, 2), ("a:1", "b:2"))


@pytest.mark.parametrize("size", [0, 1, 200, 3 * MIB])
def test_a_dump_in_pieces_is_the_snapshot_that_protobuf_makes_of_it(size):
    content = random_bytes(size)
    message = PbPySyncObjSnapshot(format_version=1, dump=content, node_ids=["a:1", "b:2"])
    for field, (command, index, term) in (
        (message.previous, DESCRIPTION.previous),
        (message.last, DESCRIPTION.last),
    ):
        field.Term, field.Index, field.Data = term, index, command
    chunks = DumpChunks(DESCRIPTION, ChunksOf(content))
    data = b"".join(chunks)
    assert data == message.SerializeToString(deterministic=True)
    assert len(data) == chunks.size
    snapshot = Dump(*DESCRIPTION, content).to_snapshot()
    assert snapshot == Snapshot(DESCRIPTION.metadata, data)
    assert Dump.of_snapshot(snapshot) == Dump(*DESCRIPTION, content)


def test_a_stored_dump_is_read_in_pieces(snapshots):
    content = gzip.compress(random_bytes(3 * MIB))
    snapshots.save_stream(DESCRIPTION.metadata, DumpChunks(DESCRIPTION, ChunksOf(content)))
    with StoredDump(snapshots.open(NAME)) as dump:
        assert dump.description == DESCRIPTION
        assert dump.size == len(content)
        assert dump.read(dump.size - 2, 50) == content[-2:]
        assert dump.read(dump.size, 50) == b""
        with dump.stream() as stream:
            assert gzip.GzipFile(fileobj=stream).read() == random_bytes(3 * MIB)
            # PySyncObj's loader starts anew where a pickle does not load.
            assert stream.seek(0) == 0
            assert stream.read() == content
            assert stream.seek(-1, os.SEEK_END) == len(content) - 1
            assert stream.read() == content[-1:]


def test_the_state_of_another_program_is_not_taken_for_a_dump(snapshots):
    snapshots.save_stream(METADATA, [b"something else"])
    with (
        snapshots.open(NAME) as reader,
        pytest.raises(SnapshotFileError, match="not made by raftwal's PySyncObj adapter"),
    ):
        StoredDump(reader)
