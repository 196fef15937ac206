"""``raftwal dump --records``: every record in file order, as it stands in its segment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from raftwal.cli.directory import Directory
from raftwal.cli.dump import Range, describe_metadata, print_problems_as_json
from raftwal.cli.output import (
    PREVIEW_BYTES,
    Column,
    base64_of,
    entry_facts,
    membership,
    preview,
    print_json,
    print_table,
    snapshot_facts,
)
from raftwal.cli.survey import survey
from raftwal.errors import CorruptionError, RaftwalError, ReadFailedError, RecordFormatError
from raftwal.fs import DISK
from raftwal.model import Entry, HardState, SnapshotMetadata
from raftwal.wal.records import RecordStream
from raftwal.wire.frames import ENTRY, HARD_STATE, METADATA, RECORD_TYPES, SNAPSHOT, Record
from raftwal.wire.messages import decode_entry, decode_hard_state, decode_snapshot_record

_Payload = Entry | HardState | SnapshotMetadata | None


class PlacedRecord(NamedTuple):
    """A record and where it begins.  ``broken`` says why its payload does not parse."""

    segment: str
    offset: int
    record: Record
    payload: _Payload
    broken: str | None


def dump_records(
    directory: Directory, wanted: Range, *, from_snapshot: int | None, as_json: bool
) -> list[RaftwalError]:
    """Print each record up to the end or the damage; returns what is wrong with the log.

    One segment at a time is in memory.
    """
    result = survey(directory, from_snapshot=from_snapshot)
    stream = RecordStream(DISK, directory.log, result.segments)
    shown = (
        placed
        for placed in _placed(stream)
        if not isinstance(placed.payload, Entry) or wanted.holds(placed.payload.index)
    )
    if as_json:
        for placed in shown:
            print_json("record", _facts(placed))
        print_problems_as_json(result.problems)
        return result.problems
    print_table(
        (
            Column("SEGMENT", 37),
            Column("OFFSET", 8, is_number=True),
            Column("TYPE", max(map(len, RECORD_TYPES.values()))),
            Column("CRC", 8),
            Column("BYTES", 8, is_number=True),
            Column("HOLDS"),
        ),
        (
            (
                placed.segment,
                placed.offset,
                RECORD_TYPES[placed.record.type],
                f"{placed.record.crc:08x}",
                len(placed.record.data or b""),
                _in_words(placed),
            )
            for placed in shown
        ),
    )
    if result.contents.torn_tail is not None:
        print()
        print(f"{result.contents.torn_tail.what}, {result.contents.torn_tail.where}")
    return result.problems


def _placed(stream: RecordStream) -> Iterator[PlacedRecord]:
    try:
        for record in stream:
            path, offset = stream.position
            payload: _Payload = None
            broken = None
            try:
                payload = _decode(record)
            except RecordFormatError as error:
                broken = error.what
            if isinstance(payload, (Entry, SnapshotMetadata)):
                stream.last_index = max(stream.last_index, payload.index)
            yield PlacedRecord(os.path.basename(path), offset, record, payload, broken)
    except (CorruptionError, ReadFailedError):
        # The survey met the same and reports it, after the records before it.
        return


def _decode(record: Record) -> _Payload:
    data = record.data or b""
    if record.type == ENTRY:
        return decode_entry(data)
    if record.type == HARD_STATE:
        return decode_hard_state(data)
    if record.type == SNAPSHOT:
        return decode_snapshot_record(data)
    return None


def _facts(placed: PlacedRecord) -> dict[str, Any]:
    record, payload = placed.record, placed.payload
    facts: dict[str, Any] = {
        "segment": placed.segment,
        "offset": placed.offset,
        "type": RECORD_TYPES[record.type].replace(" ", "_").lower(),
        "crc": record.crc,
        "length": len(record.data or b""),
    }
    if isinstance(payload, Entry):
        facts["entry"] = entry_facts(payload)
    elif isinstance(payload, HardState):
        facts["hard_state"] = payload._asdict()
    elif isinstance(payload, SnapshotMetadata):
        facts["snapshot"] = snapshot_facts(payload)
    else:
        facts["data"] = base64_of(record.data)
    if placed.broken is not None:
        facts["reason"] = placed.broken
    return facts


def _in_words(placed: PlacedRecord) -> str:
    record, payload = placed.record, placed.payload
    if placed.broken is not None:
        return f"does not parse: {placed.broken}"
    if isinstance(payload, Entry):
        shown = preview(payload.data, PREVIEW_BYTES)
        return f"index {payload.index}, term {payload.term}, {payload.type.name.lower()}: {shown}"
    if isinstance(payload, HardState):
        return f"term {payload.term}, vote {payload.vote}, commit {payload.commit}"
    if isinstance(payload, SnapshotMetadata):
        members = membership(payload.conf_state)
        suffix = "" if members == "-" else f", {members}"
        return f"index {payload.index}, term {payload.term}{suffix}"
    return describe_metadata(record.data) if record.type == METADATA else ""
