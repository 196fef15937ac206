"""Each kind of bad directory has its own error, with the place and what to do; nothing
in the directory changes.  Each kind of bad save is refused before anything is written."""

import subprocess
import sys

import pytest
from directories import (
    FIRST_SEGMENT,
    Frames,
    contents_of,
    entries,
    make_log,
    open_and_read,
    read,
    segment_name,
)

import raftwal
from raftwal import (
    WAL,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Identity,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
    Snapshotter,
    errors,
)
from raftwal.testing import InlineExecutor
from raftwal.wire.frames import ENTRY, HARD_STATE, SNAPSHOT, encode_frame
from raftwal.wire.messages import encode_entry, encode_hard_state, encode_snapshot_record


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def check_refused(directory, error, offset=None, file_name="", ways=None):
    """Every way in raises ``error`` with its place and advice; the files stay as they are."""
    before = contents_of(directory)
    for way in ways or (read, open_and_read, raftwal.verify, raftwal.repair):
        with pytest.raises(error) as caught:
            way(directory)
        assert type(caught.value) is error
        assert caught.value.path.endswith(file_name)
        text = str(caught.value)
        assert str(directory) in text
        assert caught.value.advice
        assert caught.value.advice in text
        if offset is not None:
            assert caught.value.offset == offset
            assert f"byte {offset}" in text
        assert contents_of(directory) == before


def crafted(log, *records, garbage=b""):
    """A log of one segment with these records; where the last of them begins."""
    frames = Frames().add_header()
    offset = len(frames.data)
    for record_type, data in records:
        offset = len(frames.data)
        frames.add(record_type, data)
    frames.data += garbage
    frames.write(log / FIRST_SEGMENT)
    return offset


def entry_record(index, term=1, data=b"data"):
    return ENTRY, encode_entry(Entry(term, index, data))


def test_directory_that_does_not_exist(tmp_path):
    for way in (read, open_and_read, raftwal.verify, raftwal.repair):
        with pytest.raises(errors.NotAWalError, match="does not exist"):
            way(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_not_a_log(log):
    log.mkdir()
    (log / "letter.txt").write_text("dear reader")
    check_refused(log, errors.NotAWalError)
    assert not raftwal.wal_exists(log)


def test_segment_missing_in_the_middle(log):
    make_log(log, 40, segment_bytes=512)
    segments = sorted(log.glob("*.wal"))
    segments[2].unlink()
    check_refused(log, errors.MissingSegmentError)


def test_first_segments_missing_and_no_snapshot_to_start_from(log):
    make_log(log, 40, segment_bytes=512)
    min(log.glob("*.wal")).unlink()
    check_refused(log, errors.NotAWalError, ways=(read, open_and_read, raftwal.verify))


def test_metadata_of_another_log(log):
    """A segment of another node's log among this one's."""
    frames = Frames().add_header().add(*entry_record(1))
    frames.write(log / FIRST_SEGMENT, len(frames.data))
    Frames(frames.crc).add_header(b"node 2", first=False).write(log / segment_name(1, 2))
    check_refused(log, errors.MetadataConflictError, 16, segment_name(1, 2))


def test_segment_that_does_not_continue_the_one_before_it(log):
    frames = Frames().add_header().add(*entry_record(1))
    frames.write(log / FIRST_SEGMENT, len(frames.data))
    Frames(frames.crc ^ 1).add_header(first=False).write(log / segment_name(1, 2))
    check_refused(log, errors.CrcMismatchError, 0, segment_name(1, 2))


def test_segment_that_starts_with_something_else(log):
    Frames().add(*entry_record(1)).write(log / FIRST_SEGMENT)
    check_refused(log, errors.SegmentHeaderError, 0, FIRST_SEGMENT)


def test_unknown_snapshot(log):
    """A snapshot newer than the log, or of an index that it never recorded."""
    make_log(log, 10)
    for index in (5, 99):
        start = SnapshotMetadata(index, 1)
        check_refused(
            log,
            errors.SnapshotNotFoundError,
            ways=(
                lambda path, start=start: WAL.open_for_read(path, start).read_all(),
                lambda path, start=start: raftwal.verify(path, start),
                lambda path, start=start: open_from(path, start),
            ),
        )


def open_from(path, snapshot):
    with WAL.open(path, snapshot, segment_bytes=4096) as wal:
        return wal.read_all()


def test_snapshot_of_another_term(log):
    offset = crafted(
        log,
        entry_record(1),
        (HARD_STATE, encode_hard_state(HardState(1, 7, 1))),
        (SNAPSHOT, encode_snapshot_record(SnapshotMetadata(1, 1))),
    )
    start = SnapshotMetadata(1, 2)
    check_refused(
        log,
        errors.SnapshotMismatchError,
        offset,
        FIRST_SEGMENT,
        (lambda path: raftwal.verify(path, start), lambda path: open_from(path, start)),
    )


def test_entries_with_a_gap(log):
    offset = crafted(log, entry_record(1), entry_record(3))
    check_refused(log, errors.EntryGapError, offset, FIRST_SEGMENT)


def test_entry_of_a_lower_term_than_the_one_before_it(log):
    offset = crafted(log, entry_record(1, 5), entry_record(2, 4))
    check_refused(log, errors.EntryTermError, offset, FIRST_SEGMENT)


def test_hard_state_of_a_lower_term(log):
    states = [(HARD_STATE, encode_hard_state(HardState(term, 7, 0))) for term in (2, 1)]
    offset = crafted(log, *states)
    check_refused(log, errors.HardStateOrderError, offset, FIRST_SEGMENT)


def test_segment_cut_short_that_is_not_the_last(log):
    make_log(log, 40, segment_bytes=512)
    middle = sorted(log.glob("*.wal"))[1]
    middle.write_bytes(middle.read_bytes()[:-5])
    check_refused(log, errors.TruncatedSegmentError, file_name=middle.name)


def test_file_of_zeros(log):
    log.mkdir()
    (log / FIRST_SEGMENT).write_bytes(bytes(4096))
    check_refused(log, errors.ZeroedDataError, 0, FIRST_SEGMENT)


def test_empty_first_segment(log):
    log.mkdir()
    (log / FIRST_SEGMENT).touch()
    check_refused(log, errors.ZeroedDataError, 0, FIRST_SEGMENT)


def test_huge_length_field_in_the_last_segment(log):
    """The trace of a torn write, as far as anyone can tell: refused until repaired."""
    crafted(log, entry_record(1), garbage=(1 << 50).to_bytes(8, "little"))
    assert read(log).torn_tail is not None
    check_refused(log, errors.TornTailError, ways=(open_and_read,))


def test_huge_length_field_in_an_earlier_segment(log):
    make_log(log, 40, segment_bytes=512)
    second = sorted(log.glob("*.wal"))[1]
    data = second.read_bytes()
    second.write_bytes(data[:16] + (1 << 50).to_bytes(8, "little") + data[24:])
    check_refused(log, errors.RecordLengthError, 16, second.name)


@pytest.mark.parametrize(
    ("record_type", "data"),
    [
        pytest.param(9, b"data", id="unknown type"),
        pytest.param(ENTRY, b"\xff\xff\xff", id="entry that does not parse"),
        pytest.param(ENTRY, encode_entry((1, 1, b"", 3)), id="entry of unknown type"),
        pytest.param(ENTRY, b"\x08\x00\x10\x01\x18\x01\x50\x01", id="entry with unknown field"),
        pytest.param(HARD_STATE, b"\x07", id="hard state that does not parse"),
        pytest.param(SNAPSHOT, b"\x1a\x7f", id="snapshot that does not parse"),
    ],
)
def test_record_that_checks_but_is_not_of_the_format(log, record_type, data):
    """Its checksum holds, so it is what was written: corruption or a newer format."""
    offset = crafted(log, (record_type, data))
    check_refused(log, errors.RecordFormatError, offset, FIRST_SEGMENT)


def test_padding_that_is_not_zero(log):
    offset = crafted(log, entry_record(1, data=b""))
    segment = log / FIRST_SEGMENT
    data = bytearray(segment.read_bytes())
    assert data[offset + 7] & 0x7F, "the record has padding"
    data[len(data.rstrip(b"\0")) // 8 * 8 + 7] = 1
    segment.write_bytes(data)
    check_refused(log, errors.RecordFormatError, offset, FIRST_SEGMENT)


def test_log_open_in_this_process(log):
    with WAL.create(log, segment_bytes=4096, executor=InlineExecutor()) as wal:
        wal.save(None, entries(1, 3))
        before = contents_of(log)
        with pytest.raises(errors.LockedError) as caught:
            WAL.open(log)
        assert str(log) in str(caught.value)
        assert contents_of(log) == before
        assert read(log).entries == entries(1, 3)


def test_log_open_in_another_process(tmp_path):
    """The second writer gets its error at once; when the first is gone, it may."""
    program = (
        "import sys, raftwal\n"
        "storage = raftwal.RaftStorage.open(sys.argv[1], segment_bytes=4096)\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(errors.LockedError):
            RaftStorage.open(tmp_path / "data")
        with pytest.raises(errors.LockedError):
            WAL.open(tmp_path / "data" / "wal")
        other.stdin.close()
    with RaftStorage.open(tmp_path / "data", segment_bytes=4096) as storage:
        assert storage.last_index == 0


def test_directory_of_another_node(tmp_path):
    data = tmp_path / "data"
    RaftStorage.open(data, identity=Identity("a:1", "blue"), segment_bytes=4096).close()
    before = contents_of(data)
    with pytest.raises(errors.IdentityMismatchError, match="'a:1', not 'b:1'") as caught:
        RaftStorage.open(data, identity=Identity("b:1", "blue"))
    assert str(data) in str(caught.value)
    assert caught.value.advice in str(caught.value)
    with pytest.raises(errors.IdentityMismatchError, match="cluster name"):
        RaftStorage.open(data, identity=Identity("a:1", "green"))
    with pytest.raises(errors.IdentityMismatchError):
        RaftStorage.open(data, metadata=b"something else")
    assert contents_of(data) == before
    RaftStorage.open(data, identity=Identity("a:1", "blue"), segment_bytes=4096).close()


def test_snapshots_without_a_log(tmp_path):
    data = tmp_path / "data"
    Snapshotter(data / "snap").save(Snapshot(SnapshotMetadata(5, 1, ConfState()), b"state"))
    before = contents_of(data)
    with pytest.raises(errors.SnapshotAheadOfLogError) as caught:
        RaftStorage.open(data)
    assert str(data) in str(caught.value)
    assert contents_of(data) == before


def test_commit_beyond_the_log(tmp_path):
    """The hard state commits entries that neither the log nor a snapshot has."""
    wal = tmp_path / "data" / "wal"
    wal.parent.mkdir()
    crafted(wal, entry_record(1), (HARD_STATE, encode_hard_state(HardState(1, 7, 5))))
    before = contents_of(tmp_path)
    with pytest.raises(errors.CommitBeyondLogError) as caught:
        RaftStorage.open(tmp_path / "data")
    assert caught.value.index == 5
    assert contents_of(tmp_path) == before


@pytest.mark.parametrize(
    ("hard_state", "bad"),
    [
        pytest.param(None, [Entry(3, 6)], id="gap after the last"),
        pytest.param(None, [Entry(3, 5), Entry(3, 7)], id="gap between two"),
        pytest.param(None, [Entry(3, 5), Entry(3, 5)], id="same index twice"),
        pytest.param(None, [Entry(2, 5)], id="term below the last entry's"),
        pytest.param(None, [Entry(4, 5), Entry(3, 6)], id="terms that go down"),
        pytest.param(None, [Entry(3, -1)], id="negative index"),
        pytest.param(None, [Entry(1 << 64, 5)], id="term of 65 bits"),
        pytest.param(None, [Entry(-1, 5)], id="negative term"),
        pytest.param(None, [Entry(3.0, 5)], id="float term"),
        pytest.param(None, [Entry("3", 5)], id="string term"),
        pytest.param(None, [Entry(3, 5, "text")], id="string data"),
        pytest.param(None, [Entry(3, 5, bytearray(b"x"))], id="bytearray data"),
        pytest.param(None, [Entry(3, 5, b"", 3)], id="unknown type"),
        pytest.param(None, [Entry(3, 5, b"", 1.0)], id="float type"),
        pytest.param(None, [(3, 5)], id="pair"),
        pytest.param(None, [None], id="None"),
        pytest.param(HardState(2, 7, 0), [], id="lower term"),
        pytest.param(HardState(3, 7, 0), [Entry(4, 3)], id="term below a replacing entry's"),
        pytest.param(HardState(3, -1, 0), [], id="negative vote"),
        pytest.param(HardState(3, 1 << 64, 0), [], id="vote of 65 bits"),
        pytest.param(HardState(3, None, 0), [], id="vote None"),
        pytest.param((3, 7, 1), [], id="tuple for a hard state"),
        pytest.param(HardState(3, 7, 1), [Entry(3, 5), Entry(3, 9)], id="state with bad entries"),
    ],
)
def test_save_that_is_refused_writes_nothing(log, hard_state, bad):
    with WAL.create(log, segment_bytes=4096, executor=InlineExecutor()) as wal:
        wal.save(HardState(3, 7, 2), entries(1, 4, term=3))
        before = contents_of(log)
        with pytest.raises(errors.InvalidEntryError):
            wal.save(hard_state, bad)
        with pytest.raises(ValueError):
            wal.save(hard_state, bad)
        wal.sync()
        assert contents_of(log) == before
        wal.save(HardState(3, 7, 5), [Entry(3, 5, b"good", EntryType.CONF_CHANGE)])
    assert read(log).entries == [*entries(1, 4, term=3), Entry(3, 5, b"good", EntryType(1))]


@pytest.mark.parametrize(
    "bad",
    [
        SnapshotMetadata(-1, 1),
        SnapshotMetadata(1, 1 << 64),
        SnapshotMetadata(1, 1, ConfState(voters=(-1,))),
        SnapshotMetadata(1, 1, ConfState(learners=(1 << 64,))),
    ],
)
def test_snapshot_record_that_is_refused_writes_nothing(log, bad):
    with WAL.create(log, segment_bytes=4096, executor=InlineExecutor()) as wal:
        before = contents_of(log)
        with pytest.raises(errors.InvalidEntryError):
            wal.save_snapshot(bad)
        wal.sync()
        assert contents_of(log) == before


def test_every_error_derives_from_the_base_and_documents_itself():
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    for error in found:
        assert issubclass(error, raftwal.RaftwalError)
        assert error.__doc__
        assert error.__name__ in errors.__doc__
    assert len(found) > 20


def test_frames_made_by_hand_are_what_the_log_writes(tmp_path):
    """The crafted directories above are sound but for what each test breaks."""
    make_log(tmp_path / "made", 2)
    data = (tmp_path / "made" / FIRST_SEGMENT).read_bytes()
    frames = Frames().add_header()
    assert data.startswith(frames.data)
    assert encode_frame(9, None, 0)[8:] == b"\x08\x09\x10\x00\0\0\0\0"
