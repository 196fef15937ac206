"""What a log's bytes say, by docs/format.md alone: slow, plain, and apart from raftwal's reader.

Only the declarations of the messages are shared with it.  The model stops at the first place
that does not hold.  Whether that place is a torn write or lost data it does not judge: there
raftwal may also refuse (docs/guarantees.md, "Torn tail or lost data").
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from raftwal import ConfState, Entry, EntryType, HardState, SnapshotMetadata
from raftwal.wire import schema

METADATA, ENTRY, HARD_STATE, CRC, SNAPSHOT = range(1, 6)
SECTOR = 512


def message(message_class: Any, data: bytes) -> Any:
    """The message, or ``None`` for bytes that are not one, unknown fields included."""
    parsed = message_class()
    try:
        parsed.ParseFromString(data)
    except DecodeError:
        return None
    return None if _has_unknown_fields(parsed) else parsed


def _has_unknown_fields(parsed: Any) -> bool:
    nested = [value for field, value in parsed.ListFields() if field.message_type is not None]
    return len(UnknownFieldSet(parsed)) > 0 or any(map(_has_unknown_fields, nested))


def entry(data: bytes) -> Entry | None:
    parsed = message(schema.PbEntry, data)
    if parsed is None or parsed.Type not in (0, 1, 2):
        return None
    content = parsed.Data if parsed.HasField("Data") else None
    return Entry(parsed.Term, parsed.Index, content, EntryType(parsed.Type))


def hard_state(data: bytes) -> HardState | None:
    parsed = message(schema.PbHardState, data)
    return None if parsed is None else HardState(parsed.term, parsed.vote, parsed.commit)


def conf_state(parsed: Any) -> ConfState:
    lists = (parsed.voters, parsed.learners, parsed.voters_outgoing, parsed.learners_next)
    return ConfState(*map(tuple, lists), parsed.auto_leave)


def snapshot_record(data: bytes) -> SnapshotMetadata | None:
    parsed = message(schema.PbSnapshotRecord, data)
    if parsed is None:
        return None
    members = conf_state(parsed.conf_state) if parsed.HasField("conf_state") else None
    return SnapshotMetadata(parsed.index, parsed.term, members)


class Record(NamedTuple):
    segment: int
    offset: int
    type: int
    data: bytes | None


class Stop(NamedTuple):
    """Where following the records ended: in which segment, at which byte, and why.

    ``why`` is "end" (nothing but zeros, or nothing), "remains" (zeros and then something),
    "torn" (as an interrupted write can leave it) or "damage".
    """

    segment: int
    offset: int
    why: str


class Chain(NamedTuple):
    """The records that follow each other from the start, and the checksum at their end."""

    records: list[Record]
    stop: Stop
    crc: int


def record_of(data: bytes) -> tuple[int, int, bytes | None] | None:
    """Type, checksum and data of a Record message, or ``None``."""
    parsed = message(schema.PbRecord, data)
    if parsed is None or not METADATA <= parsed.type <= SNAPSHOT:
        return None
    content = parsed.data if parsed.HasField("data") else None
    if parsed.type == CRC and content is not None:
        return None
    return parsed.type, parsed.crc, content


def follow(segments: list[tuple[int, bytes]]) -> Chain:
    """The records of ``segments``, each a sequence number and a file's bytes, up to the first
    place that does not hold."""
    records: list[Record] = []
    crc = 0
    stop = Stop(0, 0, "end")
    for number, (sequence, data) in enumerate(segments):
        is_last = number == len(segments) - 1
        header = (CRC, METADATA, SNAPSHOT) if sequence == 0 else (CRC, METADATA)
        count = 0
        offset = 0
        why = ""
        while not why:
            why, end, found = _frame(data, offset, crc)
            if why == "short":
                why = "torn" if is_last else "damage"
            elif why == "unsound":
                why = "torn" if is_last and _has_zero_sector(data, offset + 8, end) else "damage"
            elif why == "remains" and not is_last:
                why = "damage"
            elif found is not None:
                if count < len(header) and found[0] != header[count]:
                    why = "damage"
                    continue
                records.append(Record(number, offset, found[0], found[2]))
                crc = found[1]
                count += 1
                offset = end
        is_left_empty = count == 0 and is_last and number > 0 and why in ("end", "remains")
        if count < len(header) and not is_left_empty:
            why = "damage"
        stop = Stop(number, offset, why)
        if why != "end":
            break
    return Chain(records, stop, crc)


def _frame(
    data: bytes, offset: int, crc: int
) -> tuple[str, int, tuple[int, int, bytes | None] | None]:
    """What stands at ``offset``: why it is no sound record, its end, and the record."""
    left = len(data) - offset
    if left < 8:
        return ("short" if any(data[offset:]) else "end"), offset, None
    (field,) = struct.unpack_from("<Q", data, offset)
    length, top = field & (1 << 56) - 1, field >> 56
    padding = -length % 8
    end = offset + 8 + length
    if field == 0:
        return ("remains" if any(data[offset:]) else "end"), offset, None
    if end + padding > len(data):
        return "short", offset, None
    if length == 0 or top != (0x80 + padding if padding else 0):
        return "damage", offset, None
    found = record_of(data[offset + 8 : end])
    if found is None or not _continues(crc, found):
        return "unsound", end, None
    has_zeros = not any(data[end : end + padding])
    return ("" if has_zeros else "damage"), end + padding, found if has_zeros else None


def _continues(crc: int, record: tuple[int, int, bytes | None]) -> bool:
    record_type, stated, content = record
    if record_type == CRC:
        return crc in (0, stated)
    return stated == google_crc32c.extend(crc, content or b"")


def _has_zero_sector(data: bytes, start: int, end: int) -> bool:
    first = start - start % SECTOR
    return any(
        not any(data[max(start, at) : min(end, at + SECTOR)]) for at in range(first, end, SECTOR)
    )


class Reading(NamedTuple):
    """What a log says from a snapshot on, or whole."""

    metadata: bytes | None
    hard_state: HardState
    entries: list[Entry]
    snapshots: list[SnapshotMetadata]
    last_written: int
    highest_term: int


class Refusal(NamedTuple):
    """The record that contradicts what is before it; ``None`` where none does, but one is
    missing."""

    record: Record | None
    why: str


def interpret(chain: Chain, first_sequence: int, start: SnapshotMetadata | None) -> Any:
    """A `Reading`, or a `Refusal` at the first record that cannot be.

    ``start`` is the snapshot to read from, or ``None`` to read the log whole.
    """
    meaning = _Meaning(first_sequence, start)
    for record in chain.records:
        why = meaning.add(record)
        if why:
            return Refusal(record, why)
    if start is not None and not meaning.start_found:
        return Refusal(None, "no snapshot to start from")
    return meaning.reading()


class _Meaning:
    def __init__(self, first_sequence: int, start: SnapshotMetadata | None) -> None:
        self.start = start
        self.start_found = False
        self.metadata: list[bytes | None] = []
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.snapshots: list[SnapshotMetadata] = []
        self.base = start.index if start is not None else 0 if first_sequence == 0 else None
        self.last_written = start.index if start is not None else 0
        # (index, term) of every entry and snapshot that is part of the history.
        self.terms: list[tuple[int, int]] = []
        self.last_in_history = self.end_of_history = 0
        self.replacing_term = 0
        self.highest_term = 0

    def reading(self) -> Reading:
        metadata = self.metadata[0] if self.metadata else None
        return Reading(
            metadata,
            self.hard_state,
            self.entries,
            self.snapshots,
            self.last_written,
            max(self.highest_term, self.hard_state.term),
        )

    def add(self, record: Record) -> str:
        data = record.data or b""
        if record.type == METADATA:
            self.metadata.append(record.data)
            return "" if record.data == self.metadata[0] else "metadata"
        if record.type == ENTRY:
            found = entry(data)
            return "format" if found is None else self.add_entry(found)
        if record.type == HARD_STATE:
            state = hard_state(data)
            return "format" if state is None else self.add_hard_state(state)
        if record.type == SNAPSHOT:
            snapshot = snapshot_record(data)
            return "format" if snapshot is None else self.add_snapshot(snapshot)
        return ""

    def add_entry(self, new: Entry) -> str:
        index = new.index
        if index == 0:
            return ""
        if new.term < self.term_at(index - 1):
            return "entry term"
        self.note(index, new.term)
        self.last_written = index
        next_index = (self.base or 0) + len(self.entries) + 1
        if self.base is None or (
            # Read whole, a log goes on behind a snapshot that was received.
            self.start is None
            and index > next_index
            and index - 1 in [snapshot.index for snapshot in self.snapshots]
        ):
            self.base, self.entries, next_index = index - 1, [], index
        if index <= self.base:
            return ""
        if index > next_index:
            return "gap"
        self.entries[index - self.base - 1 :] = [new]
        return ""

    def add_hard_state(self, state: HardState) -> str:
        # A cut repeats the last one, whatever was saved since.
        if state != self.hard_state:
            if state.term < max(self.hard_state.term, self.replacing_term):
                return "hard state term"
            self.hard_state = state
        return ""

    def add_snapshot(self, snapshot: SnapshotMetadata) -> str:
        self.snapshots.append(snapshot)
        index, term = snapshot.index, snapshot.term
        end = self.end_of_history
        if index > end or term < self.term_at(index):
            self.note(index, term)
        self.end_of_history = max(end, index)
        if self.start is not None and index == self.start.index:
            if term != self.start.term:
                return "snapshot term"
            self.start_found = True
        return ""

    def term_at(self, index: int) -> int:
        """That of the last one at or before ``index``."""
        return next((term for at, term in reversed(self.terms) if at <= index), 0)

    def note(self, index: int, term: int) -> None:
        self.highest_term = max(self.highest_term, term)
        if index <= self.last_in_history:
            self.replacing_term = max(self.replacing_term, term)
        while self.terms and self.terms[-1][0] >= index:
            self.terms.pop()
        self.terms.append((index, term))
        self.last_in_history = self.end_of_history = index
