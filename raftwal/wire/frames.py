"""Records as they stand in a segment: length field, record, padding, CRC chain.

::

    offset 0   8 bytes, little-endian: the length field
    offset 8   Record { int64 type = 1; uint32 crc = 2; bytes data = 3; }
               then zeros, so that the next length field starts on a multiple of 8

The low 56 bits of the length field are the record's length without padding; the top
byte is 0x80 + the number of padding bytes, or 0 when there are none.  A record's
``crc`` is the CRC-32C of the data of every record so far: each vouches for all
before it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import google_crc32c

from raftwal.errors import RecordFormatError
from raftwal.native import codec
from raftwal.wire.schema import PbRecord, parse
from raftwal.wire.varint import decode_varint, encode_varint

METADATA = 1
ENTRY = 2
HARD_STATE = 3
CRC = 4
SNAPSHOT = 5

RECORD_TYPES = {
    METADATA: "metadata",
    ENTRY: "entry",
    HARD_STATE: "hard state",
    CRC: "CRC",
    SNAPSHOT: "snapshot",
}

LENGTH_FIELD_BYTES = 8
_LENGTH_FIELD = struct.Struct("<Q")
_LENGTH_BITS = 56
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_PADDING = tuple(bytes(n) for n in range(8))


_extend = google_crc32c.extend if codec is None else codec.extend_crc


def extend_crc(crc: int, data: bytes) -> int:
    """The chain's next value: CRC-32C of what ``crc`` covers, followed by ``data``."""
    return int(_extend(crc, data))


def encode_frame(record_type: int, data: bytes | None, crc: int) -> bytes:
    """One framed record.  ``crc`` already covers ``data``."""
    if data is None:
        record = b"\x08%c\x10%b" % (record_type, encode_varint(crc))
    else:
        record = b"\x08%c\x10%b\x1a%b%b" % (
            record_type,
            encode_varint(crc),
            encode_varint(len(data)),
            data,
        )
    length = len(record)
    padding = -length & 7
    if padding:
        field = _LENGTH_FIELD.pack(length | (0x80 | padding) << _LENGTH_BITS)
        return field + record + _PADDING[padding]
    return _LENGTH_FIELD.pack(length) + record


def claimed_length(buffer: bytes | memoryview, offset: int) -> int:
    """The record length that the field at ``offset`` states, in bytes, unchecked."""
    return int(_LENGTH_FIELD.unpack_from(buffer, offset)[0]) & _LENGTH_MASK


class LengthField(NamedTuple):
    """A decoded length field, in bytes."""

    record: int
    padding: int


def decode_length_field(buffer: bytes | memoryview, offset: int) -> LengthField:
    """The length field at ``offset``; both lengths are 0 at the end of the log.

    Raises `RecordFormatError` when the padding that it states is not the one that
    its length calls for.
    """
    (field,) = _LENGTH_FIELD.unpack_from(buffer, offset)
    length = field & _LENGTH_MASK
    top = field >> _LENGTH_BITS
    padding = -length & 7
    if top != (0x80 | padding if padding else 0):
        raise RecordFormatError(f"a length field that states wrong padding ({field:#018x})")
    return LengthField(length, padding)


class Record(NamedTuple):
    """One record, unframed: ``crc`` as stated, not yet checked."""

    type: int
    crc: int
    data: bytes | None


def decode_record(buffer: bytes, start: int, end: int) -> Record:
    """The Record message in ``buffer[start:end]``.  Raises `RecordFormatError`."""
    try:
        if buffer[start] == 0x08 and buffer[start + 2] == 0x10:
            record_type = buffer[start + 1]
            crc, position = decode_varint(buffer, start + 3, end)
            if record_type <= SNAPSHOT and crc >> 32 == 0:
                if position == end:
                    return _checked(record_type, crc, None)
                if buffer[position] == 0x1A:
                    # protobuf takes no length of more than five bytes.
                    length, position = decode_varint(buffer, position + 1, min(end, position + 6))
                    if position + length == end:
                        return _checked(record_type, crc, buffer[position:end])
    except (ValueError, IndexError):
        pass
    message = parse(PbRecord, buffer[start:end])
    return _checked(message.type, message.crc, message.data if message.HasField("data") else None)


def _checked(record_type: int, crc: int, data: bytes | None) -> Record:
    if record_type not in RECORD_TYPES:
        raise RecordFormatError(f"a record of unknown type {record_type}")
    if record_type == CRC and data is not None:
        raise RecordFormatError("a CRC record that carries data")
    return Record(record_type, crc, data)
