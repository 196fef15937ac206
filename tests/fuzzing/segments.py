"""Any bytes as a segment: alone, as the last of two, as the first of two with a sound one behind.

Every way into the log is tried, and each must agree with the model and with the others.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import google_crc32c
from directories import Frames, segment_name
from implementations import pure_python

import raftwal
from fuzzing import log_model
from fuzzing.log_model import ENTRY, HARD_STATE, SNAPSHOT, Chain, Reading, Refusal
from fuzzing.memory_files import DIRECTORY, MemoryFiles
from raftwal import (
    WAL,
    ConfState,
    Entry,
    HardState,
    LogContents,
    RaftwalError,
    RepairReport,
    SnapshotMetadata,
)
from raftwal.errors import (
    CorruptionError,
    InvalidEntryError,
    NotAWalError,
    RecordLengthError,
    TornTailError,
    ZeroedDataError,
)
from raftwal.testing import InlineExecutor
from raftwal.wal.reading import read_until_damage, read_whole_log
from raftwal.wal.segments import SegmentName, list_segments
from raftwal.wire.messages import encode_entry, encode_hard_state

START = SnapshotMetadata()
MAX_UINT64 = (1 << 64) - 1

# What one byte does to the checksum's register when that is zero; the top byte says which it was.
_STEP = [google_crc32c.extend(0xFFFFFFFF, bytes((n,))) ^ 0xFFFFFFFF for n in range(256)]
_BYTE_OF_TOP = {step >> 24: n for n, step in enumerate(_STEP)}


def alone(data: bytes) -> None:
    check_every_way({segment_name(sequence_of(data), 0): data})


def last_of_two(data: bytes) -> None:
    """The one before it ends with the checksum that this one begins with, and has its metadata."""
    crc, metadata = _opening(data)
    before = Frames().add_header(metadata)
    before.add(ENTRY, encode_entry(Entry(1, 1, b"first")))
    before.add(HARD_STATE, encode_hard_state(HardState(1, 7, 1)))
    head = encode_entry(Entry(1, 2, bytes(4)))[:-4]
    before.add(ENTRY, head + _bytes_that_lead_to(crc, google_crc32c.extend(before.crc, head)))
    assert before.crc == crc
    check_every_way({segment_name(0, 0): before.data, segment_name(1, 3): data})


def first_of_two(data: bytes) -> None:
    sequence = sequence_of(data)
    chain = log_model.follow([(sequence, data)])
    read = log_model.interpret(chain, sequence, None)
    if isinstance(read, Refusal):
        read = Reading(None, HardState(), [], [], 0, 0)
    after = Frames(chain.crc).add_header(read.metadata, first=False)
    after.add(HARD_STATE, encode_hard_state(read.hard_state))
    index = min(read.last_written + 1, MAX_UINT64 - 1)
    after.add(ENTRY, encode_entry(Entry(read.highest_term, index, b"behind")))
    check_every_way(
        {segment_name(sequence, 0): data, segment_name(sequence + 1, index): after.data}
    )


def sequence_of(data: bytes) -> int:
    """0 for what starts as the first segment of a log does, 1 for what starts as a later one."""
    records = log_model.follow([(1, data)]).records
    return 0 if len(records) < 3 or records[2].type == SNAPSHOT else 1


def _opening(data: bytes) -> tuple[int, bytes | None]:
    """The checksum that the segment says it starts with, and its metadata."""
    records = log_model.follow([(1, data)]).records
    if not records:
        return 0, None
    found = log_model.record_of(data[8 : 8 + int.from_bytes(data[:7], "little")])
    crc = found[1] if found is not None else 0
    return crc, records[1].data if len(records) > 1 else None


def _bytes_that_lead_to(target: int, crc: int) -> bytes:
    """The four bytes that take a CRC-32C from ``crc`` to ``target``."""
    register = target ^ 0xFFFFFFFF
    for _ in range(4):
        number = _BYTE_OF_TOP[register >> 24]
        register = ((register ^ _STEP[number]) << 8 | number) & 0xFFFFFFFF
    return (register ^ crc ^ 0xFFFFFFFF).to_bytes(4, "little")


class Expected(NamedTuple):
    """What the model says of reading from ``start``; ``segments`` are the files' names."""

    segments: list[str]
    chain: Chain
    meaning: Reading | Refusal

    @property
    def snapshot_segments(self) -> list[str]:
        records = self.chain.records
        return [self.segments[record.segment] for record in records if record.type == SNAPSHOT]


def expect(files: dict[str, bytes], start: SnapshotMetadata | None) -> Expected | None:
    """``None`` when no segment reaches back to ``start``."""
    names = sorted(filter(SegmentName.parse, files))
    parsed = [SegmentName.parse(name) for name in names]
    first = 0
    if start is not None:
        reaching = [at for at, name in enumerate(parsed) if name.index <= start.index]
        if not reaching:
            return None
        first = reaching[-1]
    used = names[first:]
    sequences = [name.sequence for name in parsed[first:]]
    chain = log_model.follow([(n, files[name]) for n, name in zip(sequences, used, strict=True)])
    return Expected(used, chain, log_model.interpret(chain, sequences[0], start))


Outcome = LogContents | RaftwalError


def outcome(call: Callable[[], Any]) -> Any:
    """What ``call`` gives, or the error of raftwal's that it raises; any other is a fault."""
    try:
        return call()
    except RaftwalError as error:
        str(error)
        return error


def judge(found: Outcome, expected: Expected | None) -> None:
    """Whether a reading, or a refusal to read, is one that the format allows."""
    if expected is None:
        assert isinstance(found, NotAWalError), found
        return
    stop, meaning = expected.chain.stop, expected.meaning
    if isinstance(found, RaftwalError):
        assert isinstance(found, CorruptionError), repr(found)
        if isinstance(meaning, Refusal) and meaning.record is not None:
            _check_place(found, expected, meaning.record.segment, meaning.record.offset)
        elif isinstance(meaning, Refusal) and found.offset is None:
            assert stop.why != "damage"
        else:
            assert stop.why != "end", found
            # Zeros, or a length field that alone is zero.
            of_remains = (ZeroedDataError, RecordLengthError)
            assert stop.why != "remains" or isinstance(found, of_remains), repr(found)
            _check_place(found, expected, stop.segment, stop.offset)
        return
    assert stop.why != "damage", stop
    assert isinstance(meaning, Reading), meaning
    assert found.metadata == meaning.metadata
    assert found.hard_state == meaning.hard_state
    assert found.entries == meaning.entries
    assert found.snapshots == meaning.snapshots
    assert found.snapshot_segments == expected.snapshot_segments
    assert 0 <= found.stale_entries <= len(found.entries)
    # What stands behind zeros can be a torn write as well.
    assert stop.why == "remains" or (found.torn_tail is not None) == (stop.why == "torn")
    if found.torn_tail is not None:
        _check_place(found.torn_tail, expected, stop.segment, stop.offset)


def _check_place(error: RaftwalError, expected: Expected, segment: int, offset: int) -> None:
    assert error.path == f"{DIRECTORY}/{expected.segments[segment]}", error
    assert error.offset == offset, (error, offset)


def check_same(found: Any, other: Any) -> None:
    """Two ways of reading gave the same, or refused with the same error."""
    if isinstance(found, RaftwalError) or isinstance(other, RaftwalError):
        assert (type(found), str(found)) == (type(other), str(other))
    else:
        assert found == other


def read_from(fs: MemoryFiles, start: SnapshotMetadata) -> Outcome:
    return outcome(lambda: WAL.open_for_read(DIRECTORY, start, fs=fs).read_all())


def check_every_way(files: dict[str, bytes]) -> None:
    """Read, verify, list snapshots, repair and open to append: the model's answer, each time."""
    fs = MemoryFiles(files)
    whole = outcome(lambda: read_whole_log(fs, DIRECTORY)[0])
    judge(whole, expect(files, None))
    with pure_python():
        check_same(
            _without_error(outcome(lambda: read_whole_log(fs, DIRECTORY)[0])), _without_error(whole)
        )
    _check_reading_whole(fs, whole)
    starts = [START]
    if isinstance(whole, LogContents):
        vouched = [snapshot for snapshot in whole.valid_snapshots if snapshot.index]
        starts += vouched[:1] + vouched[1:][-1:]
    readings = [(start, read_from(fs, start)) for start in starts]
    for start, found in readings:
        judge(found, expect(files, start))
        _check_report(fs, start, found)
        _check_replay(fs, start, found)
    assert fs.changes == 0
    assert fs.locked() == []
    repaired = check_repair(files, whole)
    source = random.Random(zlib.crc32(b"".join(files.values())))
    for start, found in readings:
        check_open(files, repaired, start, found, source)


def _without_error(found: Outcome) -> Any:
    """Errors compare by identity, so in what was read there is their text."""
    if isinstance(found, RaftwalError):
        return found
    return found._replace(torn_tail=str(found.torn_tail))


def _check_report(fs: MemoryFiles, start: SnapshotMetadata, found: Outcome) -> None:
    report = outcome(lambda: raftwal.verify(DIRECTORY, start, fs=fs))
    if isinstance(found, RaftwalError):
        check_same(report, found)
        return
    assert report.entries == len(found.entries)
    assert report.hard_state == found.hard_state
    assert report.snapshots == found.valid_snapshots
    assert str(report.torn_tail) == str(found.torn_tail)


def _check_replay(fs: MemoryFiles, start: SnapshotMetadata, found: Outcome) -> None:
    replay = outcome(lambda: WAL.open_for_read(DIRECTORY, start, fs=fs).replay())
    if isinstance(found, RaftwalError):
        check_same(replay, found)
        return
    check_same(_without_error(replay.contents), _without_error(found._replace(entries=[])))
    assert list(replay) == found.entries[found.stale_entries :]
    assert len(replay) == len(found.entries) - found.stale_entries


def _check_reading_whole(fs: MemoryFiles, whole: Outcome) -> None:
    vouched = outcome(lambda: raftwal.valid_snapshots(DIRECTORY, fs=fs))
    check_same(vouched, whole.valid_snapshots if isinstance(whole, LogContents) else whole)
    segments = list_segments(fs, DIRECTORY)
    gathered, _, error = read_until_damage(fs, DIRECTORY, segments)
    if isinstance(whole, RaftwalError):
        check_same(error, whole)
    else:
        assert error is None
        assert gathered[:4] == whole[:4]


def check_repair(files: dict[str, bytes], whole: Outcome) -> dict[str, bytes]:
    """The files after a repair: what was torn is cut off and kept aside, and nothing else."""
    fs = MemoryFiles(files)
    report = outcome(lambda: raftwal.repair(DIRECTORY, fs=fs))
    assert fs.locked() == []
    if isinstance(whole, RaftwalError):
        check_same(report, whole)
    elif whole.torn_tail is None:
        assert report == RepairReport(repaired=False)
    else:
        last = max(files)
        offset = whole.torn_tail.offset
        assert report.repaired
        assert (report.segment, report.offset) == (f"{DIRECTORY}/{last}", offset)
        assert report.removed_bytes == len(files[last]) - offset
        assert fs.contents() == {
            **files,
            last: files[last][:offset],
            f"{last}.broken": files[last],
        }
        again = outcome(lambda: read_whole_log(fs, DIRECTORY)[0])
        check_same(again, whole._replace(torn_tail=None))
        assert not raftwal.repair(DIRECTORY, fs=fs).repaired
        return fs.contents()
    assert fs.contents() == files
    assert fs.changes == 0
    return files


def check_open(
    files: dict[str, bytes],
    repaired: dict[str, bytes],
    start: SnapshotMetadata,
    found: Outcome,
    source: random.Random,
) -> None:
    """Opened to append, a log gives what a reader gave, and then takes what is saved."""
    fs = MemoryFiles(files)
    if isinstance(found, RaftwalError) or found.torn_tail is not None:
        error = outcome(lambda: _open_and_read(fs, start))
        check_same(error, found if isinstance(found, RaftwalError) else found.torn_tail)
        assert fs.changes == 0
        assert fs.locked() == []
        if isinstance(found, RaftwalError) or repaired is files:
            return
        assert isinstance(error, TornTailError)
    fs = MemoryFiles(repaired)
    model = expect(repaired, start)
    end = model.chain.stop.offset
    last = max(files)
    with WAL.open(
        DIRECTORY,
        start,
        segment_bytes=source.choice((128, 512, 4096)),
        fs=fs,
        executor=InlineExecutor(),
    ) as wal:
        assert wal.read_all() == found._replace(torn_tail=None)
        kept = repaired[last]
        assert fs.contents()[last] == kept[:end].ljust(len(kept), b"\0")
        if start == START:
            assert wal.last_index == (found.entries[-1].index if found.entries else 0)
        expected = _save_some(wal, found, model.meaning.highest_term, source)
    assert fs.locked() == []
    assert all(map(SegmentName.parse, (n for n in fs.contents() if not n.endswith(".broken"))))
    after = read_from(fs, start)
    judge(after, expect(fs.contents(), start))
    check_same(after[:3], expected[:3])
    assert after.snapshots[: len(expected.snapshots)] == expected.snapshots
    assert after.torn_tail is None


def _open_and_read(fs: MemoryFiles, start: SnapshotMetadata) -> LogContents:
    with WAL.open(DIRECTORY, start, segment_bytes=512, fs=fs, executor=InlineExecutor()) as wal:
        return wal.read_all()


def _save_some(
    wal: WAL, found: LogContents, highest_term: int, source: random.Random
) -> LogContents:
    """Save entries, hard states and a snapshot; what a reader must then give."""
    first = wal.last_index + 1
    term = min(highest_term + source.randint(0, 1), MAX_UINT64)
    most = 2
    if first >= MAX_UINT64 - 8:
        # No entry can follow; votes can.
        error = outcome(lambda: wal.save(None, [Entry(term, MAX_UINT64)]))
        assert isinstance(error, InvalidEntryError)
        most = 0
    entries = list(found.entries)
    state = found.hard_state
    snapshots = list(found.snapshots)
    for _ in range(source.randint(1, 3)):
        index = wal.last_index + 1
        new = [
            Entry(term, index + n, source.choice((None, b"", b"saved", b"long" * 40)))
            for n in range(source.randint(0, most))
        ]
        commit = min(source.choice((0, first, index)), MAX_UINT64)
        state = HardState(term, source.choice((state.vote, 5)), commit)
        wal.save(state, new)
        if new:
            entries = [entry for entry in entries if entry.index < index] + new
        if source.random() < 0.3 and entries and entries[-1].index == wal.last_index:
            snapshot = SnapshotMetadata(wal.last_index, entries[-1].term, ConfState((1, 2)))
            wal.save_snapshot(snapshot)
            snapshots.append(snapshot)
    assert wal.hard_state == state or state == HardState()
    return found._replace(hard_state=wal.hard_state, entries=entries, snapshots=snapshots)
