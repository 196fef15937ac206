"""The records that can still be made out beyond a place where a log does not hold.

Where reading stopped, the checksum chain stopped too, so no record beyond it can be
checked against what came before.  But two in a row can be checked against each other:
a run of them is as good as certain.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from raftwal.errors import RecordFormatError
from raftwal.wal.segments import first_data
from raftwal.wire.frames import (
    CRC,
    LENGTH_FIELD_BYTES,
    Record,
    decode_length_field,
    decode_record,
    extend_crc,
)

_ALIGNMENT = 8
# Bytes that somebody made up can claim one long record at every eighth byte.  Past this
# many times the file's own size, in bytes looked into, they are no trace of a crash.
_PATIENCE = 4


class RecordsInsideRecordsError(Exception):
    """``position``: what follows there claims to be records, one inside the other."""

    def __init__(self, position: int) -> None:
        self.position = position
        super().__init__(position)


class Found(NamedTuple):
    """A record, and the byte at which its length field begins."""

    position: int
    record: Record


def runs_of_records(data: bytes, start: int) -> Iterator[list[Found]]:
    """The records at or beyond ``start``, in order, in runs.

    In a run each record directly follows the one before it and continues its checksum;
    a run of one is a record that nothing vouches for.

    Raises `RecordsInsideRecordsError` when looking any further would take too long.
    """
    looked_into = 0
    inside = start
    for position, length in _where_a_record_may_begin(data, first_data(data, start)):
        if position < inside:
            continue
        looked_into += length
        if looked_into > _PATIENCE * len(data):
            raise RecordsInsideRecordsError(position)
        found = _record_at(data, position)
        if found is None:
            continue
        record, inside = found
        run = [Found(position, record)]
        while (following := _record_at(data, inside)) is not None:
            if not _continues(run[-1].record, following[0]):
                break
            run.append(Found(inside, following[0]))
            inside = following[1]
        yield run


def _where_a_record_may_begin(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The multiples of 8 from ``start`` on at which a length field fits, and the length."""
    start -= start % _ALIGNMENT
    size = len(data)
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
            yield position, length


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
