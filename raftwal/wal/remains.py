"""What lies beyond a zero length field: the remains of a write, or records cut off.

A zero length ends the log.  Past it there may be anything that an unfinished write
left; but a sector that was lost after it had been acknowledged can look the same when
a record happened to begin with it.  Two kinds of record betray that: two in a row of
which the second continues the first one's checksum, and one that commits, or has a
snapshot of, an entry that the log does not have.
"""

from __future__ import annotations

import struct

from raftwal.errors import RecordFormatError
from raftwal.wal.segments import first_data
from raftwal.wire.frames import (
    CRC,
    HARD_STATE,
    LENGTH_FIELD_BYTES,
    SNAPSHOT,
    Record,
    decode_length_field,
    decode_record,
    extend_crc,
)
from raftwal.wire.messages import decode_hard_state, decode_snapshot_record

_ALIGNMENT = 8
# Bytes that somebody made up can claim one long record at every eighth byte.  Past this
# many times the file's own size, in bytes looked into, they are no trace of a crash.
_PATIENCE = 4


def find_lost_records(data: bytes, offset: int, last_index: int) -> str | None:
    """Why the zeros at ``offset`` cannot be the end of the log, or ``None`` if they can.

    ``last_index`` is the last entry before the zeros.
    """
    looked_into = 0
    inside = 0
    for position, length in _where_a_record_may_begin(data, first_data(data, offset)):
        if position < inside:
            continue
        looked_into += length
        if looked_into > _PATIENCE * len(data):
            return f"what follows at byte {position} looks like records, one inside the other"
        found = _record_at(data, position)
        if found is None:
            continue
        record, inside = found
        reached = _index_reached(record)
        if reached is not None and reached > last_index:
            return f"a record at byte {position} commits index {reached}"
        following = _record_at(data, inside)
        if following is not None and _continues(record, following[0]):
            return f"records that belong together follow at byte {position}"
    return None


def _where_a_record_may_begin(data: bytes, start: int) -> list[tuple[int, int]]:
    """The multiples of 8 from ``start`` on at which a length field fits, and the length."""
    start -= start % _ALIGNMENT
    size = len(data)
    positions = []
    whole = size - (size - start) % _ALIGNMENT
    for number, (field,) in enumerate(struct.iter_unpack("<Q", memoryview(data)[start:whole])):
        if field == 0:
            continue
        position = start + number * _ALIGNMENT
        length = field & 0xFFFFFFFFFFFFFF
        # The first field of a Record is its type, tag 1.
        if (
            position + LENGTH_FIELD_BYTES + length <= size
            and length > 1
            and data[position + LENGTH_FIELD_BYTES] == 0x08
        ):
            positions.append((position, length))
    return positions


def _record_at(data: bytes, position: int) -> tuple[Record, int] | None:
    if len(data) - position < LENGTH_FIELD_BYTES:
        return None
    try:
        length, padding = decode_length_field(data, position)
        end = position + LENGTH_FIELD_BYTES + length
        if length == 0 or end + padding > len(data) or any(data[end : end + padding]):
            return None
        return decode_record(data, position + LENGTH_FIELD_BYTES, end), end + padding
    except RecordFormatError:
        return None


def _continues(record: Record, following: Record) -> bool:
    if following.type == CRC or following.data is None:
        return False
    return extend_crc(record.crc, following.data) == following.crc


def _index_reached(record: Record) -> int | None:
    try:
        if record.type == HARD_STATE:
            return decode_hard_state(record.data or b"").commit
        if record.type == SNAPSHOT:
            return decode_snapshot_record(record.data or b"").index
    except RecordFormatError:
        pass
    return None
