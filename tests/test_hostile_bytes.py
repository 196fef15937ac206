"""Any bytes offered as a segment, a record or a snapshot file are read correctly or refused.

What "correctly" is, `fuzzing.log_model` says.  Here the whole corpus goes through, and as many
new inputs as fit into a few seconds; ``make fuzz`` tries a million.
"""

import collections
import os
import random

import pytest
from directories import FIRST_SEGMENT, Frames, segment_name
from fuzzing import log_model
from fuzzing.inputs import TARGETS, Inputs, corpus
from fuzzing.memory_files import DIRECTORY, MemoryFiles
from fuzzing.running import run_range, without_events
from fuzzing.segments import outcome, sequence_of

from raftwal import WAL, Entry, HardState, Identity, LogContents, Snapshot, SnapshotMetadata
from raftwal.errors import RecordFormatError, SnapshotFileError
from raftwal.pysyncobj.dump import Dump
from raftwal.testing import InlineExecutor
from raftwal.wal.reading import read_whole_log
from raftwal.wire.frames import ENTRY, SNAPSHOT
from raftwal.wire.messages import decode_entry, encode_entry, encode_snapshot_record

MAX_UINT64 = (1 << 64) - 1
FILES = [path for kind in TARGETS for path in corpus(kind)]


@pytest.fixture(autouse=True)
def quiet():
    with without_events():
        yield


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input_of_the_corpus(path):
    for target in TARGETS[path.parent.name]:
        target(path.read_bytes())


def test_corpus_is_small_enough_to_keep():
    assert sum(path.stat().st_size for path in FILES) < 100_000
    assert len(FILES) < 500


def test_inputs_made_from_the_corpus():
    """RAFTWAL_FUZZ_INPUTS of them, 3000 by default, by RAFTWAL_SEED."""
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    count = int(os.environ.get("RAFTWAL_FUZZ_INPUTS", "3000"))
    print(f"seed {seed}, {count} inputs; replay with RAFTWAL_SEED={seed}")
    failure = run_range(seed, range(count))
    assert failure is None, f"input {failure.number} of seed {seed}\n{failure.report}"


def test_inputs_are_neither_all_sound_nor_all_refused():
    """A fuzzer that never gets past the checksums, or never hits anything, shows nothing."""
    inputs = Inputs(1)
    found = collections.Counter()
    # Every twelfth input is a segment alone.
    for number in range(0, 12 * 1500, 12):
        data = inputs[number].data
        sequence = sequence_of(data)
        fs = MemoryFiles({segment_name(sequence, 0): data})
        read = outcome(lambda fs=fs: read_whole_log(fs, DIRECTORY)[0])
        if isinstance(read, LogContents):
            why = log_model.follow([(sequence, data)]).stop.why
            found["read", why, "with entries" if read.entries else "empty"] += 1
        else:
            found[type(read).__name__] += 1
    print(dict(found))
    for why in ("end", "remains", "torn"):
        assert found["read", why, "with entries"] >= 10
    for error in (
        "CrcMismatchError",
        "EntryGapError",
        "EntryTermError",
        "HardStateOrderError",
        "LostRecordsError",
        "MetadataConflictError",
        "RecordFormatError",
        "RecordLengthError",
        "SegmentHeaderError",
        "ZeroedDataError",
    ):
        assert found[error], error


def log_of(*records):
    frames = Frames().add_header()
    for record_type, payload in records:
        frames.add(record_type, payload)
    return MemoryFiles({FIRST_SEGMENT: frames.data})


def open_log(fs, start=None):
    return WAL.open(DIRECTORY, start, segment_bytes=512, fs=fs, executor=InlineExecutor())


def entry_record(*entry):
    return ENTRY, encode_entry(Entry(*entry))


def test_an_entry_at_index_0_changes_nothing():
    """A log that held one took every index but the next for a gap."""
    fs = log_of(entry_record(1, 1), entry_record(1, 2), entry_record(1, 0), entry_record(1, 3))
    with open_log(fs) as wal:
        assert [entry.index for entry in wal.read_all().entries] == [1, 2, 3]
    fs = log_of(entry_record(1, 1), entry_record(1, 2), entry_record(1, 0))
    with open_log(fs) as wal:
        wal.read_all()
        assert wal.last_index == 2
        wal.save(None, [Entry(1, 3)])
        wal.save(None, [Entry(1, 0)])
        assert wal.last_index == 3
        wal.save(None, [Entry(1, 4)])
    assert len(WAL.open_for_read(DIRECTORY, fs=fs).read_all().entries) == 4


def test_nothing_is_lost_behind_the_highest_index_there_is():
    """A segment begun there had a name of 17 digits, which no reader took for a segment's."""
    fs = log_of()
    with open_log(fs) as wal:
        wal.read_all()
        wal.save_snapshot(SnapshotMetadata(MAX_UINT64, 1))
        for term in range(1, 60):
            wal.save(HardState(term, 7, 0))
    assert list(fs.contents()) == [FIRST_SEGMENT]
    assert WAL.open_for_read(DIRECTORY, fs=fs).read_all().hard_state == HardState(59, 7, 0)


def test_a_log_that_others_left_at_the_highest_index_takes_votes():
    start = SnapshotMetadata(MAX_UINT64 - 1, 1)
    fs = log_of((SNAPSHOT, encode_snapshot_record(start)), entry_record(1, MAX_UINT64))
    with open_log(fs, start) as wal:
        assert wal.read_all().entries == [Entry(1, MAX_UINT64)]
        for term in range(1, 60):
            wal.save(HardState(term, 7, 0))
    with WAL.open_for_read(DIRECTORY, start, fs=fs) as reader:
        assert reader.read_all().hard_state == HardState(59, 7, 0)


def test_a_name_that_is_not_text_is_refused():
    """protobuf hands it out as bytes, and whoever takes it for text fails later."""
    data = b"\x08\x01\x12\x06host\xff1"
    assert Identity.decode(data) is None
    with pytest.raises(SnapshotFileError):
        Dump.of_snapshot(Snapshot(SnapshotMetadata(), b"\x08\x01\x2a\x06host\xff1"))


@pytest.mark.parametrize("length_bytes", [5, 6, 10])
def test_an_entry_is_read_alike_whichever_way_it_is_laid_out(length_bytes):
    """A length of more bytes than protobuf takes was read when the fields were in order."""
    length = b"\x81" + b"\x80" * (length_bytes - 2) + b"\0"
    head, tail = b"\x08\0\x10\x01", b"\x18\x02"
    usual = head + tail + b"\x22" + length + b"x"
    other = tail + head + b"\x22" + length + b"x"
    if length_bytes > 5:
        for payload in (usual, other):
            with pytest.raises(RecordFormatError):
                decode_entry(payload)
    else:
        assert decode_entry(usual) == decode_entry(other) == Entry(1, 2, b"x")
