"""Entries to framed records and back, many at once: the hot paths of a save and a start.

The native twin of both is in ``raftwal/native/codec.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c

from raftwal.model import Entry, EntryType
from raftwal.native import codec
from raftwal.wire.varint import decode_varint, encode_varint

_LENGTH_FIELD = struct.Struct("<Q")
_LENGTH_MASK = (1 << 56) - 1
_PADDING = tuple(bytes(n) for n in range(8))
_PADDING_TOP = tuple(0x80 | n if n else 0 for n in range(8))
_PADDING_BITS = tuple(top << 56 for top in _PADDING_TOP)
_ENTRY_TYPES = tuple(EntryType)


AnyEntry = tuple[int, int, bytes | None, int]
"""An `raftwal.model.Entry`, or a plain tuple with the same in it: term, index, data, type."""


Sizes = list[int] | bytes
"""How many bytes each frame has: numbers, or what the native twin knows, packed as 64-bit ones."""

Frames = tuple[Sequence[bytes | bytearray], Sizes, int, int]
"""Framed records, one behind the other: their bytes in pieces, their sizes, the chain's value
behind them, how many bytes they are.

A plain tuple, and sizes that are seldom looked at: both are made with every save.
"""


def encode_entries(entries: Sequence[AnyEntry], crc: int) -> Frames:
    """The entries' framed records, which follow on a record where the chain is at ``crc``.

    What `raftwal.wire.frames.encode_frame` makes of `raftwal.wire.messages.encode_entry`.
    """
    encoded: Frames | None = codec.encode_entries(entries, crc) if codec is not None else None
    return encode_entries_in_python(entries, crc) if encoded is None else encoded


def encode_entries_in_python(entries: Sequence[AnyEntry], crc: int) -> Frames:
    """As `encode_entries`: the reference.  One loop, because calls are most of the cost."""
    frames: list[bytes] = []
    extend, pack, varint, join = google_crc32c.extend, _LENGTH_FIELD.pack, encode_varint, b"".join
    last_term = last_type = last_length = -1
    lead = length_field = b""
    for term, index, data, entry_type in entries:
        if term != last_term or entry_type != last_type:
            lead = b"\x08%c\x10%b\x18" % (entry_type, varint(term))
            last_term, last_type = term, entry_type
        if data is None:
            payload = lead + varint(index)
        else:
            length = len(data)
            if length != last_length:
                length_field = b'"' + varint(length)
                last_length = length
            payload = join((lead, varint(index), length_field, data))
        crc = extend(crc, payload)
        size = len(payload)
        head = b"\x08\x02\x10%b\x1a%b" % (varint(crc), varint(size))
        size += len(head)
        padding = -size & 7
        frames.append(join((pack(size | _PADDING_BITS[padding]), head, payload, _PADDING[padding])))
    data = join(frames)
    return [data], [len(frame) for frame in frames], crc, len(data)


class EntryRun(NamedTuple):
    """Entries of a log that stand one behind the other, each following on the one before.

    ``entries`` are those that were to be kept, the last ones of the ``total`` that there
    are from ``first_index`` on; ``terms`` says from which index on there is which term.
    ``last`` is where the frame of the last one begins, ``end`` where what follows does,
    ``crc`` the chain's value there.
    """

    entries: list[Entry]
    total: int
    first_index: int
    terms: list[tuple[int, int]]
    last: int
    end: int
    crc: int


def decode_entries(
    buffer: bytes | memoryview, offset: int, crc: int, first_kept: int, most: int
) -> EntryRun:
    """The entries from ``offset`` on, no more than ``most``; the chain's value is ``crc`` there.

    Kept are those from the index ``first_kept`` on.  Stops before whatever is not a whole
    entry of the usual kind that follows on the one before: that is to be judged by
    `raftwal.wire.frames.decode_record` and whoever knows the log.
    """
    if codec is None:
        assert isinstance(buffer, bytes)
        return decode_entries_in_python(buffer, offset, crc, first_kept, most)
    return EntryRun._make(
        codec.decode_entries(buffer, offset, crc, first_kept, most, Entry, _ENTRY_TYPES)
    )


def decodes_in_place() -> bool:
    """Whether `decode_entries` takes memory that is used again, too."""
    return codec is not None


def decode_entries_in_python(  # noqa: PLR0912, PLR0915  # as it says
    buffer: bytes, offset: int, crc: int, first_kept: int, most: int
) -> EntryRun:
    """As `decode_entries`: the reference.  One loop, because calls are most of the cost."""
    entries: list[Entry] = []
    terms: list[tuple[int, int]] = []
    unpack, extend, varint = _LENGTH_FIELD.unpack_from, google_crc32c.extend, decode_varint
    count = first_index = last_index = last_term = 0
    last = offset
    size = len(buffer)
    while count < most and size - offset >= _LENGTH_FIELD.size:
        (field,) = unpack(buffer, offset)
        length = field & _LENGTH_MASK
        padding = -length & 7
        start = offset + _LENGTH_FIELD.size
        end = start + length
        if field >> 56 != _PADDING_TOP[padding] or end + padding > size:
            break
        try:
            if buffer[start] != 0x08 or buffer[start + 1] != 2 or buffer[start + 2] != 0x10:
                break
            stated, position = varint(buffer, start + 3, min(end, start + 8))
            if buffer[position] != 0x1A:
                break
            payload_bytes, position = varint(buffer, position + 1, min(end, position + 6))
            if position + payload_bytes != end:
                break
            chain = extend(crc, buffer[position:end])
            if chain != stated or any(buffer[end : end + padding]):
                break
            if buffer[position] != 0x08 or buffer[position + 2] != 0x10:
                break
            entry_type = _ENTRY_TYPES[buffer[position + 1]]
            term, position = varint(buffer, position + 3, end)
            if buffer[position] != 0x18:
                break
            index, position = varint(buffer, position + 1, end)
            data = None
            if position != end:
                if buffer[position] != 0x22:
                    break
                data_bytes, position = varint(buffer, position + 1, min(end, position + 6))
                if position + data_bytes != end:
                    break
                data = buffer[position:end]
        except (ValueError, IndexError):
            break
        if index == 0 or (count and (index != last_index + 1 or term < last_term)):
            break
        if not count:
            first_index = index
        if not count or term != last_term:
            terms.append((index, term))
        if index >= first_kept:
            entries.append(Entry(term, index, data, entry_type))
        last_index, last_term = index, term
        count += 1
        last, offset, crc = offset, end + padding, chain
    return EntryRun(entries, count, first_index, terms, last, offset, crc)
