"""A write that a crash tore is never taken for lost data; lost data is found where it shows.

The logs here are written by raftwal's own writer, save by save, so that what one write
is does not depend on what the reader believes it to be.
"""

import random

import pytest
from directories import FIRST_SEGMENT, Frames, contents_of, read, segment_name
from prometheus_client import CollectorRegistry

import raftwal
from raftwal import (
    WAL,
    ConfState,
    Entry,
    HardState,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
    Snapshotter,
)
from raftwal.errors import (
    CorruptionError,
    LostRecordsError,
    RecordLengthError,
    ZeroedDataError,
)
from raftwal.wire.byte_damage import changed_byte
from raftwal.wire.frames import ENTRY, HARD_STATE, SNAPSHOT, encode_frame, extend_crc
from raftwal.wire.messages import encode_entry, encode_hard_state, encode_snapshot_record

SECTOR = 512
SEGMENT_BYTES = 1 << 16


class History:
    """A log, and its one segment's bytes before and after each write that was synced."""

    def __init__(self, directory, source, writes, kinds=("save",), sizes=(0, 8, 40, 300, 900)):
        self.directory = directory
        self.contents = []
        self.images = []
        self.source = source
        self.index = 0
        self.terms = {0: 0}
        self.state = HardState(1, source.getrandbits(64), 0)
        with WAL.create(directory, b"node 1", segment_bytes=SEGMENT_BYTES) as wal:
            wal.save(self.state, [])
            self._note()
            for _ in range(writes):
                getattr(self, f"_{source.choice(kinds)}")(wal, sizes)
                self._note()
            self.end = len(self.images[-1].rstrip(b"\0"))
        self.whole = read(directory)

    def _note(self):
        self.images.append((self.directory / FIRST_SEGMENT).read_bytes())

    def _save(self, wal, sizes):
        """Commit indexes that wait, then entries and a hard state, as PySyncObj's journal
        and etcd's server write them."""
        source = self.source
        for commit in range(self.state.commit, self.index):
            if source.random() < 0.3:
                self.state = self.state._replace(commit=commit)
                wal.save(self.state, [])
        entries = []
        for _ in range(source.choice((1, 1, 2, 3, 8))):
            self.index += 1
            data = source.randbytes(source.choice(sizes))
            entries.append(Entry(self.state.term, self.index, data))
            self.terms[self.index] = self.state.term
        self.state = self.state._replace(commit=source.randint(self.state.commit, self.index))
        wal.save(self.state, entries)

    def _entries(self, wal, sizes):
        """Entries alone: nothing says where one save ends and the next begins."""
        self.index += 1
        data = self.source.randbytes(self.source.choice(sizes))
        wal.save(HardState(), [Entry(self.state.term, self.index, data)])

    def _vote(self, wal, sizes):
        self.state = HardState(self.state.term + 1, self.source.getrandbits(64), self.state.commit)
        wal.save(self.state, [])

    def _cut_back(self, wal, sizes):
        """A new leader replaces what was not committed."""
        self._vote(wal, sizes)
        self._note()
        self.index = self.source.randint(self.state.commit, self.index)
        self._save(wal, sizes)

    def _snapshot(self, wal, sizes):
        self.state = self.state._replace(commit=self.index)
        wal.save(self.state, [])
        wal.save_snapshot(SnapshotMetadata(self.index, self.terms[self.index]))

    def put(self, data):
        (self.directory / FIRST_SEGMENT).write_bytes(data)


EVERY_KIND = ("save", "save", "save", "vote", "cut_back", "snapshot")


def sectors_between(before, after):
    return [
        at
        for at in range(0, len(after), SECTOR)
        if before[at : at + SECTOR] != after[at : at + SECTOR]
    ]


@pytest.mark.parametrize("seed", range(120))
def test_a_torn_write_is_never_taken_for_lost_data(tmp_path, seed):
    """Whichever sectors of the last write are missing, all before it is read."""
    source = random.Random(seed)
    history = History(tmp_path / "log", source, source.randint(1, 6), EVERY_KIND)
    before, after = history.images[-2:]
    history.put(before)
    kept = read(history.directory)
    changed = sectors_between(before, after)
    for _ in range(40):
        data = bytearray(after)
        for at in source.sample(changed, source.randint(1, len(changed))):
            data[at : at + SECTOR] = before[at : at + SECTOR]
        history.put(data)
        contents = read(history.directory)
        assert contents.entries[: len(kept.entries)] == kept.entries or (
            # The write replaces entries that were not committed.
            contents.entries[: kept.hard_state.commit] == kept.entries[: kept.hard_state.commit]
        ), f"seed {seed}"
        assert contents.hard_state.term >= kept.hard_state.term


@pytest.mark.parametrize("kinds", [("save",), EVERY_KIND, ("vote",), ("snapshot",)])
@pytest.mark.parametrize("seed", range(15))
def test_a_lost_sector_shows_as_soon_as_two_whole_writes_follow_it(tmp_path, seed, kinds):
    """Where the sector lies makes no difference: inside a record or where one begins."""
    source = random.Random(seed)
    history = History(tmp_path / "log", source, 12, kinds)
    ends = [len(image.rstrip(b"\0")) for image in history.images]
    refused = 0
    for sector in range(SECTOR, history.end, SECTOR):
        if sum(1 for end in ends if end > sector + SECTOR) < 4:
            break
        data = bytearray(history.images[-1])
        data[sector : sector + SECTOR] = bytes(SECTOR)
        history.put(data)
        before = contents_of(history.directory)
        for way in (read, raftwal.verify, raftwal.repair, open_to_append):
            with pytest.raises(CorruptionError) as caught:
                way(history.directory)
            assert caught.value.offset <= sector + SECTOR, f"seed {seed}, sector {sector}"
        assert contents_of(history.directory) == before
        refused += 1
    assert refused or history.end < 2 * SECTOR or kinds in (("vote",), ("snapshot",))


def damaged(path, values, change, size=1 << 14):
    """A log of ``values`` saved one by one, with ``change`` made to its bytes; the offset
    at which the last record begins."""
    with WAL.create(path, b"node 1", segment_bytes=size) as wal:
        for value in values:
            before = len((path / FIRST_SEGMENT).read_bytes().rstrip(b"\0"))
            wal.save(HardState(), [value])
    data = bytearray((path / FIRST_SEGMENT).read_bytes())
    last = before + -before % 8
    change(data, last)
    (path / FIRST_SEGMENT).write_bytes(data)
    return last


WITH_ZEROS = [Entry(1, 1, b"a"), Entry(1, 2, b"front" + bytes(2048) + b"back")]


@pytest.mark.parametrize("at", [8, 9, 10, 12, 16, 18, 20, 24, 26, 2070, 2072])
def test_zeros_that_belong_to_a_damaged_record_do_not_make_it_a_torn_write(tmp_path, at):
    """etcd cuts the record off, and says nothing.  ``at``: a byte in each field of it."""

    def change(data, last):
        data[last + at] ^= 0x55

    last = damaged(tmp_path / "log", WITH_ZEROS, change)
    before = contents_of(tmp_path / "log")
    for way in (read, raftwal.verify, raftwal.repair, open_to_append):
        with pytest.raises(CorruptionError) as caught:
            way(tmp_path / "log")
        assert caught.value.offset == last
    assert contents_of(tmp_path / "log") == before


def test_a_damaged_record_with_zeros_before_other_saves_is_no_torn_write(tmp_path):
    """However many bytes of it are wrong."""

    def change(data, last):
        at = data.index(b"front")
        data[at : at + 5] = b"other"

    later = [Entry(1, 3, b"c"), Entry(1, 4, b"d"), Entry(1, 3, b"again")]
    damaged(tmp_path / "log", [*WITH_ZEROS, *later], change)
    with pytest.raises(LostRecordsError):
        read(tmp_path / "log")


def test_a_record_that_a_crash_tore_is_a_torn_tail_although_it_holds_zeros(tmp_path):
    """A sector of what is not zero never made it to the disk."""
    values = [Entry(1, 1, b"a"), Entry(1, 2, bytes(700) + b"x" * 1000 + bytes(700))]

    def change(data, last):
        at = data.index(b"x") // SECTOR * SECTOR + SECTOR
        data[at : at + SECTOR] = bytes(SECTOR)

    last = damaged(tmp_path / "log", values, change)
    assert read(tmp_path / "log").torn_tail.offset == last
    assert raftwal.repair(tmp_path / "log").repaired


@pytest.mark.parametrize("at", range(3, 7))
@pytest.mark.parametrize("is_last", [True, False])
def test_a_damaged_length_field_before_a_whole_record_is_no_torn_write(tmp_path, at, is_last):
    """It runs past the file's end, as a torn one does; the record behind it says better."""

    def change(data, last):
        data[last + at] ^= 0x10

    values = [Entry(1, 1, b"a"), Entry(1, 2, b"b")]
    last = damaged(tmp_path / "log", values if is_last else values[:1], change)
    with pytest.raises(RecordLengthError) as caught:
        read(tmp_path / "log")
    assert caught.value.offset == last


@pytest.mark.parametrize("behind", [0, 1, 8])
@pytest.mark.parametrize("bit", range(64))
def test_any_flipped_bit_of_a_length_field_is_found(tmp_path, bit, behind):
    """One that is too large takes in the records behind it, and the zeros behind those, as a
    torn record has them; one of zero says that the log ends."""
    values = [Entry(1, index, b"data") for index in range(1, 3 + behind)]
    at = damaged(tmp_path / "shorter", values[:2], lambda data, last: None)

    def change(data, last):
        data[at + bit // 8] ^= 1 << bit % 8

    damaged(tmp_path / "log", values, change)
    before = contents_of(tmp_path / "log")
    for way in (read, raftwal.verify, raftwal.repair, open_to_append):
        with pytest.raises(CorruptionError) as caught:
            way(tmp_path / "log")
        assert caught.value.offset == at
    assert contents_of(tmp_path / "log") == before


@pytest.mark.parametrize("size", [0, 1, 17, 1000])
def test_a_length_of_zero_in_one_sector_with_its_record_is_no_end_of_the_log(tmp_path, size):
    def change(data, last):
        data[last : last + 8] = bytes(8)

    values = [Entry(1, 1, b"a"), Entry(1, 2, b"b" * size)]
    last = damaged(tmp_path / "log", values, change)
    with pytest.raises(RecordLengthError) as caught:
        read(tmp_path / "log")
    assert caught.value.offset == last


def test_a_length_of_zero_at_the_end_of_a_sector_is_the_end_of_the_log(tmp_path):
    """A torn write may have left all but the sector in which it began."""

    def change(data, last):
        assert last % SECTOR == SECTOR - 8
        data[last : last + 8] = bytes(8)

    values = [Entry(1, 1, b"a" * 410), Entry(1, 2, b"b")]
    damaged(tmp_path / "log", values, change)
    assert read(tmp_path / "log").entries == values[:1]


@pytest.mark.parametrize("missing", range(1, 40))
def test_a_file_that_ends_in_its_last_record_has_a_torn_tail(tmp_path, missing):
    """Also when only padding is missing: the length field is right."""
    last = damaged(tmp_path / "log", WITH_ZEROS, lambda data, last: None)
    path = tmp_path / "log" / FIRST_SEGMENT
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    path.write_bytes(data[: end + -end % 8 - missing])
    assert read(tmp_path / "log").torn_tail.offset == last


@pytest.mark.parametrize("seed", range(40))
def test_the_one_changed_byte_of_a_record_is_found(seed):
    """In its checksum, its lengths and its data; the type is under no checksum."""
    source = random.Random(seed)
    before = source.getrandbits(32)
    data = source.randbytes(source.choice((1, 2, 50, 127, 128, 5000)))
    frame = encode_frame(ENTRY, data, extend_crc(before, data))
    end = 8 + int.from_bytes(frame[:7], "little")
    assert changed_byte(before, b"", 0, 0) is None
    for at in {8, *range(10, min(end, 40)), *range(max(end - 40, 10), end)}:
        changed = bytearray(frame)
        changed[at] ^= source.randint(1, 255)
        assert changed_byte(before, bytes(changed), 8, end) == at, f"seed {seed}"


def test_a_flipped_bit_is_found_in_more_data_than_a_changed_byte():
    """Where chance would find a byte too often, it still does not find a bit."""
    data = random.Random(1).randbytes(100_000)
    frame = encode_frame(ENTRY, data, extend_crc(7, data))
    end = 8 + int.from_bytes(frame[:7], "little")
    for change, found in ((0x10, 70_000), (0x11, None)):
        changed = bytearray(frame)
        changed[70_000] ^= change
        assert changed_byte(7, bytes(changed), 8, end) == found


def test_torn_records_are_hardly_ever_taken_for_changed_bytes():
    """By chance a wrong checksum looks like one changed byte; at most one in a thousand."""
    source = random.Random(5)
    found = 0
    for _ in range(300):
        data = source.randbytes(4000)
        frame = bytearray(encode_frame(ENTRY, data, extend_crc(9, data)))
        end = 8 + int.from_bytes(frame[:7], "little")
        frame[1024:1536] = bytes(512)
        found += changed_byte(9, bytes(frame), 8, end) is not None
    assert found <= 2


def behind_a_hole(values, data_bytes=1500):
    """A segment whose second entry has lost a sector, and behind it ``values``."""
    frames = Frames().add_header()
    frames.add(ENTRY, encode_entry(Entry(1, 1, b"a")))
    frames.add(HARD_STATE, encode_hard_state(HardState(1, 7, 0)))
    frames.add(ENTRY, encode_entry(Entry(1, 2, b"b" * data_bytes)))
    add_all(frames, values)
    frames.data = frames.data[:SECTOR] + bytes(SECTOR) + frames.data[2 * SECTOR :]
    return frames


def add_all(frames, values):
    for value in values:
        if isinstance(value, Entry):
            frames.add(ENTRY, encode_entry(value))
        elif isinstance(value, HardState):
            frames.add(HARD_STATE, encode_hard_state(value))
        else:
            frames.add(SNAPSHOT, encode_snapshot_record(value))


@pytest.mark.parametrize(
    ("values", "is_later"),
    [
        # Its hard state, then nothing: one save.
        ([Entry(1, 3, b"c"), HardState(1, 7, 3)], False),
        # No log of three entries commits the fourth.
        ([Entry(1, 3, b"c"), HardState(1, 7, 4)], True),
        # Between entry 2 and this there must have been others.
        ([Entry(1, 4, b"d"), Entry(1, 5, b"e")], True),
        ([Entry(1, 3, b"c"), Entry(1, 4, b"d")], False),
    ],
)
def test_records_behind_a_hole_that_reach_further_than_it_has_room_for_are_of_a_later_write(
    tmp_path, values, is_later
):
    behind_a_hole(values).write(tmp_path / "log" / FIRST_SEGMENT)
    if is_later:
        with pytest.raises(LostRecordsError):
            read(tmp_path / "log")
    else:
        assert read(tmp_path / "log").torn_tail is not None


@pytest.mark.parametrize("index", [2, 3])
def test_a_save_behind_a_hard_state_that_waited_follows_on_what_the_log_holds(tmp_path, index):
    """Else the hard state ended a save that is lost with the sector: an entry and it were there."""
    frames = Frames().add_header()
    frames.add(ENTRY, encode_entry(Entry(1, 1, b"a" * 390)))
    frames.data += bytes(-len(frames.data) % SECTOR + SECTOR)
    add_all(frames, [HardState(1, 7, 0), Entry(1, index, b"c"), HardState(1, 7, 1)])
    frames.write(tmp_path / "log" / FIRST_SEGMENT)
    if index == 2:
        assert read(tmp_path / "log").torn_tail is None
    else:
        with pytest.raises(ZeroedDataError):
            read(tmp_path / "log")


def test_a_torn_write_in_the_only_segment_that_a_purge_has_left_is_a_torn_tail(tmp_path):
    """What was before it is known from its name."""
    frames = Frames(0x1234).add_header(first=False)
    frames.add(HARD_STATE, encode_hard_state(HardState(1, 7, 990)))
    add_all(frames, [Entry(1, 1000, b"a" * 1500), Entry(1, 1001, b"b"), HardState(1, 7, 999)])
    frames.data = frames.data[:SECTOR] + bytes(SECTOR) + frames.data[2 * SECTOR :]
    frames.write(tmp_path / "log" / segment_name(5, 1000))
    assert raftwal.repair(tmp_path / "log").repaired


def test_a_log_whose_end_was_replaced_is_judged_alike_from_the_beginning_and_from_a_snapshot(
    tmp_path,
):
    """Recovery reads it both ways: what the first calls torn, the second must not refuse."""
    wal = tmp_path / "node" / "wal"
    wal.mkdir(parents=True)
    before = Frames().add_header()
    first = [HardState(1, 7, 0), *(Entry(1, index, b"a") for index in range(1, 21))]
    add_all(before, [*first, HardState(2, 7, 0), Entry(2, 8, b"b")])
    before.write(wal / FIRST_SEGMENT)
    # From here on nothing says that the log once reached entry 20.
    frames = Frames(before.crc).add_header(first=False)
    snapshot = Snapshot(SnapshotMetadata(10, 2, ConfState((7,))), b"state")
    more = [HardState(2, 7, 0), Entry(2, 9, b"c"), Entry(2, 10, b"d" * 300)]
    add_all(frames, [*more, HardState(2, 7, 10), snapshot.metadata])
    frames.data += bytes(-len(frames.data) % SECTOR + SECTOR - 16)
    add_all(frames, [HardState(2, 7, 11)])
    frames.write(wal / segment_name(1, 9))
    Snapshotter(tmp_path / "node" / "snap").save(snapshot)
    with RaftStorage.open(tmp_path / "node", registry=CollectorRegistry()) as storage:
        assert storage.recovered.snapshot == snapshot
        assert storage.recovered.repair.repaired


def open_to_append(directory):
    with WAL.open(directory, segment_bytes=SEGMENT_BYTES) as wal:
        wal.read_all()
