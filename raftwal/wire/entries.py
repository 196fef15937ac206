"""Entries to framed records, many at once: the hot path of a save."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import google_crc32c

from raftwal.wire.varint import encode_varint

_LENGTH_FIELD = struct.Struct("<Q")
_PADDING = tuple(bytes(n) for n in range(8))
_PADDING_BITS = tuple((0x80 | n) << 56 if n else 0 for n in range(8))


class Frames(NamedTuple):
    """Framed records, one behind the other: their bytes, the size of each in bytes, and
    the chain's value after the last.
    """

    data: bytes
    sizes: Sequence[int]
    crc: int


def encode_entries(entries: Iterable[tuple[int, int, bytes | None, int]], crc: int) -> Frames:
    """The entries' framed records, which follow on a record where the chain is at ``crc``.

    What `raftwal.wire.frames.encode_frame` makes of `raftwal.wire.messages.encode_entry`;
    the loop holds both, because calls are most of what they cost.
    """
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
    return Frames(join(frames), [len(frame) for frame in frames], crc)
