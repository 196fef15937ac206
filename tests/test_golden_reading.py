"""raftwal reads what etcd wrote as etcd's package does, whole and damaged."""

import json

import pytest
from directories import contents_of
from golden_directories import (
    NAMES,
    SERVER,
    bytes_of,
    digest,
    entry_of,
    expected,
    state_of,
    unpack,
    unpack_server,
)

import raftwal
from raftwal import WAL, ConfState, HardState, RaftStorage, SnapshotMetadata
from raftwal.errors import (
    CorruptionError,
    CrcMismatchError,
    LostRecordsError,
    MissingSegmentError,
    NotAWalError,
    RecordFormatError,
    RecordLengthError,
    SnapshotNotFoundError,
    TornTailError,
    TruncatedSegmentError,
    ZeroedDataError,
)

# What raftwal raises where etcd says this.
SAME_ERROR = {
    "walpb: crc mismatch": CrcMismatchError,
    "wal: file not found": NotAWalError,
    "wal: snapshot not found": SnapshotNotFoundError,
    "unexpected EOF": TornTailError,
}

# directory -> the error that every reader raises, and why that differs from etcd.
DIFFERENT_ON_PURPOSE = {
    "many_segments-truncated_middle": (
        TruncatedSegmentError,
        "a record cut short in a segment that is not the last is corruption; etcd's "
        "read-only reader and its Verify stop there and report success",
    ),
    "many_segments-missing_segment": (
        MissingSegmentError,
        "etcd notices only when the checksum chain breaks; the gap in the numbers says more",
    ),
    "small-zeroed_sector0": (
        ZeroedDataError,
        "the header is gone, and etcd takes zeros at a record boundary for the end of the "
        "log: opened for appending it loses every entry without an error",
    ),
    "small-zeroed_sector2": (
        ZeroedDataError,
        "as small-zeroed_sector0",
    ),
    "small-flipped_bit5": (
        RecordFormatError,
        "a flipped bit in the top byte of a length field, which etcd does not look at",
    ),
    "one_segment-flipped_bit4": (
        RecordLengthError,
        "the length field runs past the file's end, but the record behind it is whole: etcd "
        "drops it and the 93 entries after it as a torn tail",
    ),
    **dict.fromkeys(
        (
            "many_segments-zeroed_sector0",
            "many_segments-zeroed_sector1",
            "one_segment-zeroed_sector0",
            "one_segment-zeroed_sector1",
            "one_segment-zeroed_sector2",
        ),
        (
            LostRecordsError,
            "a sector inside a record is gone, and later saves follow: etcd drops them as a "
            "torn tail",
        ),
    ),
}

READABLE = [name for name in NAMES if name not in DIFFERENT_ON_PURPOSE]


def check(contents, wanted):
    assert len(contents.entries) == wanted["count"]
    assert digest(contents.entries) == wanted["digest"]
    assert contents.hard_state == state_of(wanted["state"])
    assert contents.metadata == bytes_of(wanted["metadata"])
    if wanted["count"]:
        assert contents.entries[0].index == wanted["first"]
        assert contents.entries[-1].index == wanted["last"]


def check_for_append(contents, wanted):
    counts = {"EntryNormal": 0, "EntryConfChange": 1, "EntryConfChangeV2": 2}
    assert len(contents.entries) == wanted["entry_count"]
    for name, entry_type in counts.items():
        found = sum(1 for entry in contents.entries if entry.type == entry_type)
        assert found == wanted["entry_types"].get(name, 0)
    assert sum(len(entry.data or b"") for entry in contents.entries) == wanted["data_bytes"]
    if contents.entries:
        assert contents.entries[0][:2] == (wanted["first"]["term"], wanted["first"]["index"])
        assert contents.entries[-1][:2] == (wanted["last"]["term"], wanted["last"]["index"])
    assert contents.hard_state == state_of(wanted["state"])
    assert contents.metadata == bytes_of(wanted["metadata"])


def read_from(directory, snapshot=None):
    with WAL.open_for_read(directory, snapshot) as reader:
        return reader.read_all()


def open_to_append(directory):
    with WAL.open(directory, segment_bytes=8192) as wal:
        return wal.read_all()


@pytest.mark.parametrize("name", READABLE)
def test_reading_from_the_beginning(name, tmp_path):
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    before = contents_of(directory)
    wanted = expected(name)["dump"]
    if wanted["error"] is not None:
        with pytest.raises(SAME_ERROR[wanted["error"]]):
            read_from(directory)
    else:
        contents = read_from(directory)
        check(contents, wanted)
        if "entries" in wanted:
            assert contents.entries == [entry_of(entry) for entry in wanted["entries"]]
    assert contents_of(directory) == before


@pytest.mark.parametrize(
    "name", [name for name in READABLE if "dump_from_last_snapshot" in expected(name)]
)
def test_reading_from_the_last_snapshot(name, tmp_path):
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    wanted = expected(name)["dump_from_last_snapshot"]
    start = SnapshotMetadata(wanted["index"], wanted["term"])
    assert wanted["error"] is None
    check(read_from(directory, start), wanted)


def test_reading_a_segment_of_full_size(tmp_path):
    """The other tests shorten the zeros at the end; here are all 64 MB of them."""
    directory = unpack("small", tmp_path)
    check(read_from(directory), expected("small")["dump"])
    check_for_append(open_to_append(directory), expected("small")["dump_for_append"])


@pytest.mark.parametrize("name", READABLE)
def test_opening_to_append(name, tmp_path):
    """A torn tail is refused until it is repaired, as etcd's "unexpected EOF"."""
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    before = contents_of(directory)
    wanted = expected(name)["dump_for_append"]
    if wanted["error"] is not None:
        with pytest.raises(SAME_ERROR[wanted["error"]]):
            open_to_append(directory)
        assert contents_of(directory) == before
    else:
        check_for_append(open_to_append(directory), wanted)


@pytest.mark.parametrize("name", READABLE)
def test_verifying(name, tmp_path):
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    wanted = expected(name)
    error = wanted["verify"]["error"]
    if error is not None:
        with pytest.raises(SAME_ERROR[error]):
            raftwal.verify(directory)
        return
    report = raftwal.verify(directory)
    assert report.entries == wanted["dump"]["count"]
    is_torn = wanted["dump_for_append"]["error"] == "unexpected EOF"
    assert (report.torn_tail is not None) == is_torn


@pytest.mark.parametrize("name", READABLE)
def test_snapshots_that_the_log_vouches_for(name, tmp_path):
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    wanted = expected(name)["snapshots"]
    if wanted["error"] is not None:
        with pytest.raises(SAME_ERROR[wanted["error"]]):
            raftwal.valid_snapshots(directory)
        return
    found = [(snapshot.index, snapshot.term) for snapshot in raftwal.valid_snapshots(directory)]
    assert found == [(one["index"], one["term"]) for one in wanted["snapshots"]]


@pytest.mark.parametrize("name", READABLE)
def test_repairing_and_reading_after_it(name, tmp_path):
    """What etcd repairs, raftwal repairs to the same log.

    Where reading fails, etcd's Repair looks at the last segment only and may say that
    it succeeded; raftwal's fails as its reader does, but for a log that is sound from a
    later segment on.
    """
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    wanted = expected(name)
    before = contents_of(directory)
    if wanted["snapshots"]["error"] is not None:
        with pytest.raises(SAME_ERROR[wanted["snapshots"]["error"]]):
            raftwal.repair(directory)
        assert contents_of(directory) == before
        return
    assert wanted["repair"]["ok"]
    is_torn = wanted["dump_for_append"]["error"] == "unexpected EOF"
    assert raftwal.repair(directory).repaired == is_torn
    after = wanted["dump_after_repair"]
    if after["error"] is not None:
        with pytest.raises(SAME_ERROR[after["error"]]):
            read_from(directory)
        return
    check(read_from(directory), after)
    check(open_to_append(directory), after)


@pytest.mark.parametrize("name", DIFFERENT_ON_PURPOSE)
def test_different_from_etcd_on_purpose(name, tmp_path):
    """Every way in reports the damage, and nothing in the directory changes."""
    error, reason = DIFFERENT_ON_PURPOSE[name]
    assert issubclass(error, CorruptionError)
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    before = contents_of(directory)
    for way in (
        read_from,
        open_to_append,
        raftwal.verify,
        raftwal.valid_snapshots,
        raftwal.repair,
    ):
        with pytest.raises(error):
            way(directory)
        assert contents_of(directory) == before, (way, reason)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return unpack_server(tmp_path_factory.mktemp("server"))


SUMMARY = json.loads((SERVER / "summary.json").read_text())


def test_log_of_a_real_server(server):
    """Every entry of a real etcd server, byte for byte."""
    contents = read_from(server / "wal")
    check_for_append(contents, SUMMARY["dump_from_zero"])
    wanted = json.loads((SERVER / "entries.json").read_text())["entries"]
    assert contents.entries == [entry_of(entry) for entry in wanted]
    assert [(one.index, one.term) for one in raftwal.valid_snapshots(server / "wal")] == [
        (one["index"], one["term"]) for one in SUMMARY["wal_snapshots"]["snapshots"]
    ]


def test_log_of_a_real_server_from_its_newest_snapshot(server):
    """The snapshot file loads, and the log goes on from there."""
    newest = SUMMARY["newest_snap"]
    snapshots = raftwal.Snapshotter(server / "snap")
    snapshot = snapshots.load_newest(raftwal.valid_snapshots(server / "wal"))
    assert snapshot == snapshots.load()
    assert snapshot.metadata == SnapshotMetadata(
        newest["index"], newest["term"], ConfState(voters=tuple(newest["voters"]))
    )
    assert (len(snapshot.data) + 2) // 3 * 4 == newest["data_base64_chars"]
    contents = read_from(server / "wal", snapshot.metadata)
    check_for_append(contents, SUMMARY["dump_from_last_snapshot"])


def test_a_real_servers_directory_opens_as_a_storage(tmp_path):
    """A node could take over from etcd: same snapshot, same entries, and it can save."""
    member = unpack_server(tmp_path)
    with RaftStorage.open(member, segment_bytes=8192) as storage:
        recovered = storage.recovered
        assert recovered.snapshot.metadata.index == SUMMARY["newest_snap"]["index"]
        assert recovered.hard_state == HardState(**SUMMARY["dump_from_zero"]["state"])
        assert recovered.metadata == bytes_of(SUMMARY["dump_from_zero"]["metadata"])
        assert len(recovered.entries) == SUMMARY["dump_from_last_snapshot"]["entry_count"]
        storage.save(None, [raftwal.Entry(3, storage.last_index + 1, b"more")])
    with WAL.open_for_read(member / "wal") as reader:
        assert reader.read_all().entries[-1].data == b"more"
