"""Whatever happens to a log's bytes: the records before the damage, or an error.

Never a wrong entry, and never a change to the directory together with an error.
"""

import random
import tracemalloc

import pytest
from directories import (
    EMPTY_SNAPSHOT_RECORD,
    FIRST_SEGMENT,
    Frames,
    contents_of,
    entries,
    read,
    segment_name,
)
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from watched_disk import WatchedDisk

import raftwal
from raftwal import (
    WAL,
    Entry,
    EntryType,
    HardState,
    RaftStorage,
    RaftwalError,
    SnapshotMetadata,
)
from raftwal.errors import (
    CorruptionError,
    RecordLengthError,
    SegmentHeaderError,
    TornTailError,
    ZeroedDataError,
)
from raftwal.testing import InlineExecutor, UnsyncedDisk
from raftwal.wire.frames import CRC, ENTRY, HARD_STATE, METADATA, SNAPSHOT
from raftwal.wire.messages import encode_entry, encode_hard_state, encode_snapshot_record

ALICE, BOB = 0x8D3F_51C2_9E07_A6B4, 0xF1E2_0B77_3C55_9A1D
HEADER = [(CRC, None), (METADATA, b"node 1"), (SNAPSHOT, EMPTY_SNAPSHOT_RECORD)]


class Log:
    """A log made by hand: its bytes, where each record ends, and what it then says."""

    def __init__(self, values, size=None):
        frames = Frames()
        for record_type, data in HEADER:
            frames.add(record_type, data)
        self.header_end = len(frames.data)
        self.ends = [self.header_end]
        state, log, snapshots = HardState(), [], [SnapshotMetadata()]
        self.states = [(state, [], list(snapshots))]
        for value in values:
            if isinstance(value, Entry):
                frames.add(ENTRY, encode_entry(value))
                del log[value.index - 1 :]
                log.append(value)
            elif isinstance(value, HardState):
                frames.add(HARD_STATE, encode_hard_state(value))
                state = value
            else:
                frames.add(SNAPSHOT, encode_snapshot_record(value))
                snapshots.append(value)
            self.ends.append(len(frames.data))
            self.states.append((state, list(log), list(snapshots)))
        self.end = len(frames.data)
        self.data = frames.data.ljust(size or self.end, b"\0")

    def records_before(self, offset):
        """How many records after the header are whole in the first ``offset`` bytes."""
        return sum(1 for end in self.ends if end <= offset) - 1


SMALL = Log(
    [
        HardState(1, ALICE, 0),
        Entry(1, 1, b"first"),
        Entry(1, 2, b"cut off later"),
        HardState(1, ALICE, 1),
        SnapshotMetadata(1, 1),
        HardState(2, BOB, 1),
        Entry(2, 2, b"second", EntryType.CONF_CHANGE),
        HardState(2, BOB, 2),
        Entry(2, 3, b"the third and last one"),
    ],
    size=512,
)


def varied(count):
    """Entries from a few bytes to a few sectors, hard states and snapshots among them."""
    source = random.Random(count)
    values = []
    for index in range(1, count + 1):
        size = source.choice((4, 30, 100, 700, 1600))
        values.append(Entry(1 + index // 9, index, source.randbytes(size)))
        values.append(HardState(1 + index // 9, source.choice((ALICE, BOB)), index - 1))
        if index % 7 == 0:
            values.append(SnapshotMetadata(index - 1, 1 + (index - 1) // 9))
    return values


class Case:
    """A directory with one segment, whose bytes are set anew for each variant."""

    def __init__(self, path):
        self.directory = path / "log"
        self.directory.mkdir()
        self.segment = self.directory / FIRST_SEGMENT
        self.fs = UnsyncedDisk()
        self.executor = InlineExecutor()

    def check(self, log, data, most, least=0, note=""):
        """Reading, opening to append and repairing give ``least`` to ``most`` records.

        ``least`` of ``None`` allows an error as well.  Returns how many a reader gives.
        """
        allowed = log.states[least or 0 : most + 1]

        def judge(contents, how):
            found = (contents.hard_state, contents.entries, contents.snapshots)
            assert found in allowed, (how, note, found)

        self.put(data)
        given = None
        try:
            contents = read(self.directory)
        except CorruptionError:
            assert least is None, note
            self.check_unchanged(data, note)
        else:
            judge(contents, "read")
            given = contents
        try:
            judge(self.append(), "open")
        except RaftwalError as error:
            assert isinstance(error, TornTailError if given is not None else CorruptionError), note
            self.check_unchanged(data, note)
        self.put(data)
        try:
            raftwal.repair(self.directory, fs=self.fs)
        except CorruptionError:
            assert given is None, note
            self.check_unchanged(data, note)
        else:
            assert given is not None, note
            assert self.append() == given._replace(torn_tail=None), note
        return given

    def put(self, data):
        for path in self.directory.iterdir():
            path.unlink()
        self.segment.write_bytes(data)

    def append(self):
        with WAL.open(
            self.directory, segment_bytes=4096, fs=self.fs, executor=self.executor
        ) as wal:
            return wal.read_all()

    def check_unchanged(self, data, note):
        assert contents_of(self.directory) == {FIRST_SEGMENT: (len(data), data.rstrip(b"\0"))}, note


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_undamaged_logs_read_whole(case):
    for log in (SMALL, Log(varied(20)), Log(varied(20), size=20_000)):
        every = len(log.states) - 1
        assert case.check(log, log.data, every, every) is not None


def test_file_cut_at_every_byte_of_its_last_kilobyte(case):
    """Exactly the records that are whole; opening it says torn tail, repairing mends it."""
    log = Log(varied(12))
    for length in range(log.end - 1024, log.end):
        whole = log.records_before(length)
        contents = case.check(log, log.data[:length], whole, whole, length)
        assert contents is not None
        # Fewer than 8 bytes of zeros are padding of nothing; no record begins with them.
        is_torn = length not in log.ends
        assert (contents.torn_tail is not None) == is_torn, length
        if is_torn:
            assert contents.torn_tail.offset == log.ends[whole], length


def test_file_cut_inside_its_header_is_corruption(case):
    """A segment gets its name when its header is durable, so no crash leaves that."""
    for length in range(SMALL.header_end):
        case.put(SMALL.data[:length])
        for way in (read, raftwal.repair, lambda _: case.append()):
            with pytest.raises((SegmentHeaderError, ZeroedDataError)):
                way(case.directory)
        case.check_unchanged(SMALL.data[:length], length)


def test_each_sector_of_the_tail_zeroed(case):
    """The records before the one that it hit, or an error that says that more was there."""
    log = Log(varied(30), size=24 * 1024)
    for sector in range(512, log.end, 512):
        data = log.data[:sector] + bytes(512) + log.data[sector + 512 :]
        whole = log.records_before(sector)
        assert sector not in log.ends, "see the tests of zeros at a record boundary"
        contents = case.check(log, data, whole, None, sector)
        untouched = sum(1 for start in log.ends[:-1] if start >= sector + 512)
        if contents is not None:
            assert untouched < 4, "a whole save, and more, follows"
            assert contents.torn_tail.offset == log.ends[whole]
        else:
            assert untouched > 1, "no two records follow"


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_flipped(case, bit):
    """No single flipped bit, in whichever byte, gives an entry or a vote never written."""
    every = len(SMALL.states) - 1
    for offset in range(SMALL.end + 32):
        data = bytearray(SMALL.data)
        data[offset] ^= 1 << bit
        # Every: a flip can be harmless, such as in the bits of a varint that do not count.
        case.check(SMALL, bytes(data), every, None, offset)


@pytest.mark.parametrize("seed", range(60))
def test_garbage_after_the_end(case, seed):
    """All that was written, or an error; garbage is never taken for a record."""
    source = random.Random(seed)
    log = Log(varied(5))
    every = len(log.states) - 1
    garbage = source.randbytes(source.choice((1, 7, 8, 9, 64, 513, 2000)))
    case.check(log, log.data + garbage, every, None, seed)
    behind_zeros = log.data + bytes(source.choice((8, 16, 504, 512))) + garbage
    case.check(log, behind_zeros, every, every, seed)


@pytest.mark.parametrize("seed", range(60))
def test_random_damage(case, seed):
    """Blocks overwritten, removed, repeated: what is left of the log, or an error."""
    source = random.Random(seed)
    log = Log(varied(10), size=16 * 1024)
    at, length = source.randrange(log.end), source.randrange(1, 1024)
    before, block, after = log.data[:at], log.data[at : at + length], log.data[at + length :]
    data = before + source.choice((source.randbytes(length), b"", block + block)) + after
    case.check(log, data, len(log.states) - 1, None, f"seed {seed}")


@pytest.mark.parametrize("length", [1 << 20, 1 << 31, (1 << 40) + 8, (1 << 56) - 8])
@pytest.mark.parametrize("is_last", [True, False])
def test_huge_length_field_allocates_nothing(tmp_path, length, is_last):
    directory = tmp_path / "log"
    frames = Frames().add_header()
    frames.data += length.to_bytes(8, "little")
    frames.write(directory / FIRST_SEGMENT)
    if not is_last:
        Frames(frames.crc).add_header(first=False).write(directory / segment_name(1, 1))
    tracemalloc.start()
    try:
        if is_last:
            assert read(directory).torn_tail is not None
        else:
            with pytest.raises(RecordLengthError):
                read(directory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 18


def log_with_a_boundary(values):
    """A log in which the fifth record, or a later one, begins with a sector; and where."""
    for size in range(200, 800):
        log = Log([Entry(1, 1, b"a" * size), *values])
        boundary = next((end for end in log.ends[5:-20] if end % 512 == 0), None)
        if boundary is not None:
            return log, boundary
    raise AssertionError("no size gives a record at a sector boundary")


def without_sector(log, boundary):
    return log.data[:boundary] + bytes(512) + log.data[boundary + 512 :]


ONE_SAVE = entries(2, 60)
SAVES = [value for entry in ONE_SAVE for value in (entry, HardState(1, ALICE, entry.index - 1))]
TOLD = (
    r"torn tail: zeros at byte {}, and {} at byte {}; an interrupted write leaves this; "
    r"if the machine did not crash, a sector was lost"
)


def check_lost(case, data, boundary):
    """By every way an error, and nothing is changed."""
    case.put(data)
    for way in (read, raftwal.verify, raftwal.repair, lambda _: case.append()):
        with pytest.raises(ZeroedDataError) as caught:
            way(case.directory)
        assert caught.value.offset == boundary
    case.check_unchanged(data, boundary)


def check_torn(case, data, boundary, told):
    """Read up to the zeros and told, by every way; opened to append only once the segment was
    set aside."""
    case.put(data)
    for torn in (read(case.directory).torn_tail, raftwal.verify(case.directory).torn_tail):
        assert (torn.what, torn.offset) == (told, boundary)
    with pytest.raises(TornTailError) as caught:
        case.append()
    assert (caught.value.what, caught.value.offset) == (told, boundary)
    assert "rejoin" in caught.value.advice
    case.check_unchanged(data, boundary)
    report = raftwal.repair(case.directory)
    assert (report.offset, report.reason) == (boundary, told)
    assert (case.directory / f"{FIRST_SEGMENT}.broken").read_bytes() == data
    assert case.segment.read_bytes() == data[:boundary]
    case.append()


def test_zeros_in_front_of_a_later_write_are_lost_data(case):
    """etcd takes them for the end and overwrites the acknowledged entries beyond them."""
    log, boundary = log_with_a_boundary(SAVES)
    check_lost(case, without_sector(log, boundary), boundary)


def test_zeros_in_front_of_records_that_can_be_of_one_write_are_a_torn_tail(case):
    """One that never got its first sector leaves them, and so does a sector that is lost."""
    log, boundary = log_with_a_boundary(ONE_SAVE)
    (follows, *_) = (end for end in log.ends if end >= boundary + 512)
    told = TOLD.format(boundary, "records that belong together follow", follows)
    check_torn(case, without_sector(log, boundary), boundary, told)
    case.put(without_sector(log, boundary))
    assert read(case.directory).entries == log.states[log.records_before(boundary)][1]


@pytest.mark.parametrize("gap", [512, 1024])
def test_zeros_in_front_of_a_lone_record_that_reaches_beyond_them(case, gap):
    """A save may commit its own entries, and a received snapshot be of any index; but no write
    can commit more entries than it has room for."""
    log, boundary = log_with_a_boundary(ONE_SAVE)
    last = log.states[log.records_before(boundary)][1][-1].index
    most = last + gap // 24

    def lone(record_type, payload):
        return log.data[:boundary] + bytes(gap) + Frames(0x1234).add(record_type, payload).data

    def committing(index):
        return lone(HARD_STATE, encode_hard_state(HardState(1, ALICE, index)))

    case.put(committing(last))
    assert read(case.directory).torn_tail is None
    for index in (last + 1, most):
        what = f"the hard state record at byte {boundary + gap} reaches index {index}"
        told = TOLD.replace(" at byte {};", ";").format(boundary, what)
        check_torn(case, committing(index), boundary, told)
    check_lost(case, committing(most + 1), boundary)
    received = lone(SNAPSHOT, encode_snapshot_record(SnapshotMetadata(9000, 1)))
    what = f"the snapshot record at byte {boundary + gap} reaches index 9000"
    check_torn(case, received, boundary, TOLD.replace(" at byte {};", ";").format(boundary, what))


def test_zeros_that_end_in_their_sector_in_front_of_records_are_lost_data(case):
    """A write leaves a sector as it was, or whole."""
    log, boundary = log_with_a_boundary(ONE_SAVE)
    (end,) = (end for end in log.ends if boundary + 64 <= end < boundary + 100)
    check_lost(case, log.data[:boundary] + bytes(end - boundary) + log.data[end:], boundary)


def test_a_sector_of_zeros_in_place_of_a_header_is_lost_data(tmp_path):
    """Also in a last segment beside others: it got its name when the header was durable."""
    directory = tmp_path / "log"
    before = Frames().add_header()
    before.add(ENTRY, encode_entry(Entry(1, 1, b"first"))).write(directory / FIRST_SEGMENT)
    frames = Frames(before.crc).add_header(first=False)
    for entry in entries(2, 40):
        frames.add(ENTRY, encode_entry(entry))
    frames.data = bytes(512) + frames.data[512:]
    frames.write(directory / segment_name(1, 2))
    for way in (read, raftwal.verify, raftwal.repair):
        with pytest.raises(ZeroedDataError) as caught:
            way(directory)
        assert caught.value.offset == 0


def test_a_storage_recovers_from_zeros_in_front_of_records_keeps_them_and_warns(tmp_path):
    log, boundary = log_with_a_boundary(ONE_SAVE)
    segment = tmp_path / "node" / "wal" / FIRST_SEGMENT
    segment.parent.mkdir(parents=True)
    damaged = without_sector(log, boundary)
    segment.write_bytes(damaged)
    registry = CollectorRegistry()
    with (
        capture_logs() as events,
        RaftStorage.open(
            tmp_path / "node", segment_bytes=8192, registry=registry, node="a"
        ) as storage,
    ):
        recovered = storage.recovered
        assert recovered.entries == log.states[log.records_before(boundary)][1]
        assert recovered.repair.offset == boundary
        assert recovered.repair.set_aside == f"{segment}.broken"
        storage.save(HardState(1, ALICE, 0), [Entry(1, storage.last_index + 1, b"goes on")])
    (warning,) = (event for event in events if event["event"] == "wal_repaired")
    assert warning["log_level"] == "warning"
    assert warning["offset"] == boundary
    assert "records that belong together follow" in warning["reason"]
    assert warning["reason"] == recovered.repair.reason
    assert registry.get_sample_value("raftwal_wal_repairs_total", {"node": "a"}) == 1
    # What was cut off is in the copy, to the last record.
    kept = (tmp_path / "node" / "wal" / f"{FIRST_SEGMENT}.broken").read_bytes()
    assert kept == damaged
    assert encode_entry(ONE_SAVE[-1]) in kept
    with RaftStorage.open(
        tmp_path / "node", segment_bytes=8192, registry=CollectorRegistry()
    ) as storage:
        assert not storage.recovered.repair.repaired
        assert storage.recovered.entries[-1].data == b"goes on"


def test_remains_of_a_write_beyond_the_end_are_cleared_durably(tmp_path):
    """A write that never completed left its second half: gone after opening, and synced."""
    directory = tmp_path / "log"
    log = Log(entries(1, 5), size=8192)
    segment = directory / FIRST_SEGMENT
    directory.mkdir()
    segment.write_bytes(log.data[:4096] + b"remains of a write" + log.data[4114:])
    disk = WatchedDisk()
    with WAL.open(directory, segment_bytes=4096, fs=disk) as wal:
        assert wal.read_all().entries == entries(1, 5)
        calls = [call for call, name in disk.calls if name == FIRST_SEGMENT]
        assert calls.index("truncate") < calls.index("sync")
    assert segment.read_bytes() == log.data


def test_what_is_read_is_made_durable_before_anyone_builds_on_it(tmp_path):
    """A killed process may have left its last write, and its names, to the system."""
    directory = tmp_path / "log"
    directory.mkdir()
    (directory / FIRST_SEGMENT).write_bytes(SMALL.data)
    disk = WatchedDisk()
    with WAL.open(directory, segment_bytes=4096, fs=disk) as wal:
        assert disk.count("sync") == 0
        wal.read_all()
        assert ("sync", FIRST_SEGMENT) in disk.calls
        assert ("sync_directory", "log") in disk.calls
        assert ("sync_directory", tmp_path.name) in disk.calls
