"""Changes to a segment, record by record, with the checksum chain mended after them or not.

A blind change to a segment only ever shows that the checksum is looked at.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import google_crc32c

from fuzzing import log_model
from fuzzing.log_model import CRC, ENTRY, HARD_STATE, METADATA, SECTOR, SNAPSHOT
from fuzzing.message_mutation import (
    BOUNDARIES,
    Field,
    changed_bytes,
    changed_message,
    changed_number,
    fields_of,
    joined,
    new_field,
    varint,
)


class Piece:
    """A record that is to be written, or bytes in its place.

    ``fields`` are those of the Record message where it is laid out otherwise, its checksum
    left out; ``field`` overrides the length field.
    """

    def __init__(self, record_type: int, data: bytes | None, crc: int = 0) -> None:
        self.type = record_type
        self.data = data
        self.crc = crc
        self.is_chained = True
        self.fields: list[Field] | None = None
        self.layout: random.Random | None = None
        self.field: int | None = None
        self.padding: bytes | None = None

    def copy(self) -> Piece:
        other = Piece(self.type, self.data, self.crc)
        other.__dict__.update(self.__dict__)
        return other


def pieces_of(data: bytes) -> tuple[list[Piece], bytes]:
    """The records at the front of ``data``, checked or not, and the rest."""
    pieces = []
    at = 0
    while len(data) - at >= 8:
        (field,) = struct.unpack_from("<Q", data, at)
        length = field & (1 << 56) - 1
        end = at + 8 + length
        found = log_model.record_of(data[at + 8 : end]) if end <= len(data) else None
        if length == 0 or found is None:
            break
        pieces.append(Piece(found[0], found[2], found[1]))
        at = end + -length % 8
    return pieces, data[at:]


def framed(pieces: Sequence[Piece]) -> bytes:
    parts = []
    crc = 0
    for piece in pieces:
        if not piece.is_chained:
            crc = piece.crc
        elif piece.type != CRC:
            crc = google_crc32c.extend(crc, piece.data or b"")
        elif crc == 0:
            crc = piece.crc
        if piece.fields is not None:
            fields = [(key, crc if key == 16 else value) for key, value in piece.fields]
            message = joined(fields, piece.layout)
        else:
            message = b"\x08%b\x10%b" % (varint(piece.type), varint(crc))
            if piece.data is not None:
                message += b"\x1a%b%b" % (varint(len(piece.data)), piece.data)
        padding = -len(message) % 8
        field = len(message) | (0x80 | padding) << 56 if padding else len(message)
        parts.append(struct.pack("<Q", field if piece.field is None else piece.field))
        parts.append(message)
        parts.append(bytes(padding) if piece.padding is None else piece.padding)
    return b"".join(parts)


def entry_payload(term: int, index: int, data: bytes | None) -> bytes:
    payload = b"\x08\0\x10%b\x18%b" % (varint(term), varint(index))
    return payload if data is None else b'%b"%b%b' % (payload, varint(len(data)), data)


class SegmentMutation:
    """One change after the other to a segment, drawn from ``source``."""

    def __init__(self, source: random.Random, others: Sequence[bytes], most_bytes: int) -> None:
        self._source = source
        self._others = others
        self._most_bytes = most_bytes
        self._first = 0

    def __call__(self, data: bytes) -> bytes:
        source = self._source
        pieces, rest = pieces_of(data)
        if source.random() < 0.9:
            # Without its header a segment is refused at once, whatever is behind it.
            self._first = 3 if source.random() < 0.9 else 0
            for _ in range(source.choice((1, 1, 1, 2, 2, 3, 5, 8))):
                gentle = source.random() < 0.7
                source.choice(self._GENTLE if gentle else self._ROUGH)(self, pieces)
        if source.random() < 0.08:
            # The chain breaks here.
            for piece in pieces[source.randint(0, len(pieces)) :]:
                piece.is_chained = False
        data = framed(pieces) + rest
        if source.random() < 0.4:
            for _ in range(source.choice((1, 1, 2, 3))):
                data = source.choice(self._BYTE_CHANGES)(self, data)
        return data[: self._most_bytes]

    def _place(self, pieces: list[Piece]) -> int:
        return self._source.randint(min(self._first, len(pieces)), len(pieces))

    def _any(self, pieces: list[Piece]) -> Piece:
        at = self._place(pieces)
        return pieces[at] if at < len(pieces) else Piece(ENTRY, None)

    def _drop(self, pieces: list[Piece]) -> None:
        at = self._place(pieces)
        del pieces[at : at + 1]

    def _repeat(self, pieces: list[Piece]) -> None:
        at = self._place(pieces)
        pieces[at:at] = [piece.copy() for piece in pieces[at : at + self._source.randint(1, 4)]]

    def _swap(self, pieces: list[Piece]) -> None:
        one, other = self._place(pieces), self._place(pieces)
        if max(one, other) < len(pieces):
            pieces[one], pieces[other] = pieces[other], pieces[one]

    def _change_payload(self, pieces: list[Piece]) -> None:
        piece = self._any(pieces)
        piece.data = changed_message(self._source, piece.data or b"")

    def _change_number(self, pieces: list[Piece]) -> None:
        """Another term, index, vote or commit index; what it was, or near it, mostly."""
        piece = self._any(pieces)
        fields = fields_of(piece.data or b"") or []
        numbers = [at for at, (key, _) in enumerate(fields) if key in (8, 16, 24)]
        if piece.type == ENTRY:
            numbers = numbers[1:]
        if numbers:
            at = self._source.choice(numbers)
            key, value = fields[at]
            near = max(0, value + self._source.choice((1, 1, 1, -1, 2, 5)))
            far = changed_number(self._source, value)
            fields[at] = key, near if self._source.random() < 0.8 else far
            piece.data = joined(fields)

    def _change_type(self, pieces: list[Piece]) -> None:
        piece = self._any(pieces)
        piece.type = self._source.choice((0, 1, 2, 3, 4, 5, 5, 6, 9, 127, 128, 1 << 32 | ENTRY))

    def _change_data(self, pieces: list[Piece]) -> None:
        self._any(pieces).data = self._source.choice((None, b"", b"\0", bytes(600), b"\x18\x01"))

    def _change_message(self, pieces: list[Piece]) -> None:
        """The Record message laid out otherwise: its meaning may stay the same."""
        source = self._source
        piece = self._any(pieces)
        fields: list[Field] = [(8, piece.type), (16, 0)]
        if piece.data is not None:
            fields.append((26, piece.data))
        change = source.randrange(4)
        if change == 0:
            source.shuffle(fields)
        elif change == 1:
            fields.insert(source.randint(0, len(fields)), new_field(source))
        elif change == 2:
            fields.insert(0, source.choice(fields))
        piece.fields = fields
        piece.layout = random.Random(source.getrandbits(32))

    def _crc_behind(self, pieces: list[Piece]) -> int:
        crc = 0
        for piece in pieces:
            if piece.type == CRC:
                crc = crc or piece.crc
            else:
                crc = google_crc32c.extend(crc, piece.data or b"")
        return crc

    def _change_crc(self, pieces: list[Piece]) -> None:
        piece = self._any(pieces)
        piece.crc = changed_number(self._source, piece.crc) & 0xFFFFFFFF
        piece.is_chained = False

    def _change_length_field(self, pieces: list[Piece]) -> None:
        source = self._source
        piece = self._any(pieces)
        piece.field = source.choice(
            (
                source.choice(BOUNDARIES),
                source.randrange(1 << 12),
                1 << source.randrange(64),
                (0x80 | source.randrange(8)) << 56 | source.randrange(64),
            )
        )

    def _change_padding(self, pieces: list[Piece]) -> None:
        self._any(pieces).padding = self._source.randbytes(self._source.randrange(9))

    def _insert(self, pieces: list[Piece]) -> None:
        """A record that may well follow: the next entry, a later hard state, a snapshot."""
        source = self._source
        at = source.choice((len(pieces), self._place(pieces)))
        term, index = 1, 0
        for piece in pieces[:at]:
            found = log_model.entry(piece.data or b"") if piece.type == ENTRY else None
            if found is not None:
                term, index = found.term, found.index
        term += source.choice((0, 0, 0, 1, -1))
        index += source.choice((1, 1, 1, 1, 2, 0, -1))
        term, index = max(term, 0), max(index, 0)
        kind = source.choice((ENTRY, ENTRY, ENTRY, HARD_STATE, HARD_STATE, SNAPSHOT, METADATA, CRC))
        if kind == ENTRY:
            size = source.choice((0, 1, 30, 300, 600, 1100))
            content = source.choice((None, bytes(size), b"x" * size, source.randbytes(size)))
            payload: bytes | None = entry_payload(term, index, content)
        elif kind == HARD_STATE:
            commit = source.choice((0, index, max(0, index - 1), index + 1))
            payload = b"\x08%b\x10%b\x18%b" % (varint(term), varint(7), varint(commit))
        elif kind == SNAPSHOT:
            payload = b"\x08%b\x10%b" % (varint(index), varint(term))
            payload += source.choice((b"", b"\x1a\0", b"\x1a\x04\x08\x01\x28\0"))
        else:
            payload = pieces[1].data if kind == METADATA and len(pieces) > 1 else None
        crc = self._crc_behind(pieces[:at]) if kind == CRC else 0
        pieces.insert(at, Piece(kind, payload, crc))

    def _splice(self, pieces: list[Piece]) -> None:
        others, _ = pieces_of(self._source.choice(self._others))
        at = self._place(pieces)
        first = self._source.randint(0, len(others))
        pieces[at:] = others[first:]

    def _align(self, pieces: list[Piece]) -> None:
        """An entry grows until what follows it begins with a sector."""
        numbers = [n for n, piece in enumerate(pieces) if piece.type == ENTRY and piece.data]
        if not numbers:
            return
        number = self._source.choice(numbers)
        found = log_model.entry(pieces[number].data or b"")
        if found is None:
            return
        fill = self._source.choice((b"a", b"a", b"\0"))
        for size in range(SECTOR + 32):
            pieces[number].data = entry_payload(found.term, found.index, fill * size)
            if len(framed(pieces[: number + 1])) % SECTOR == 0:
                break

    _GENTLE = (
        _drop,
        _repeat,
        _swap,
        _change_number,
        _change_number,
        _change_number,
        _insert,
        _insert,
        _insert,
        _insert,
        _align,
    )
    _ROUGH = (
        _change_payload,
        _change_payload,
        _change_type,
        _change_data,
        _change_message,
        _change_message,
        _change_crc,
        _change_length_field,
        _change_padding,
        _splice,
    )

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._source.randint(0, len(data))]

    def _add_zeros(self, data: bytes) -> bytes:
        return data + bytes(self._source.choice((1, 7, 8, 16, SECTOR, 2 * SECTOR)))

    def _fill_sector_with_zeros(self, data: bytes) -> bytes:
        return data + bytes(-len(data) % SECTOR)

    def _zero_sector(self, data: bytes) -> bytes:
        at = self._source.randint(0, len(data)) // SECTOR * SECTOR
        return (data[:at] + bytes(SECTOR) + data[at + SECTOR :])[: max(len(data), at)]

    def _zero_block(self, data: bytes) -> bytes:
        at = self._source.randint(0, len(data)) // 8 * 8
        length = self._source.choice((8, 8, 16, 64, 256))
        return (data[:at] + bytes(length) + data[at + length :])[: len(data)]

    def _change(self, data: bytes) -> bytes:
        return changed_bytes(self._source, data)

    def _add_remains(self, data: bytes) -> bytes:
        """Records of some log, not tied to this one, or anything, behind zeros."""
        source = self._source
        remains, _ = pieces_of(source.choice((data, source.choice(self._others))))
        first = source.randint(0, len(remains))
        last = min(len(remains), first + source.choice((1, 1, 2, 3, 9)))
        behind = framed(remains[:last])[len(framed(remains[:first])) :]
        if source.random() < 0.2:
            behind = source.randbytes(source.randrange(64))
        to_sector = -len(data) % SECTOR
        gap = source.choice((to_sector, to_sector, to_sector + SECTOR, 8, 3, 0))
        return data + bytes(gap) + behind

    def _nest_claims(self, data: bytes) -> bytes:
        """At every eighth byte a length field, and each claims to hold all that follows."""
        source = self._source
        at = source.randint(0, len(data)) // 8 * 8
        count = source.choice((2, 3, 8, 40, 100))
        size = 16 * count
        claims = b"".join(
            struct.pack("<Q", (size - 16 * n - 8) | source.choice((0, 0x80, 0x84)) << 56)
            + source.choice((b"\x08\x02\x10\0\x1a\x02\x18\x01", b"\x08\x02\x10\x01\x1a\xff\x01\0"))
            for n in range(count)
        )
        return data[:at] + claims + data[at:] if source.random() < 0.5 else data[:at] + claims

    def _claim_much(self, data: bytes) -> bytes:
        length = self._source.choice((1 << 20, 1 << 31, 1 << 40, (1 << 56) - 8, (1 << 56) - 1))
        return (
            data + struct.pack("<Q", length) + self._source.randbytes(self._source.choice((0, 9)))
        )

    _BYTE_CHANGES = (
        _truncate,
        _truncate,
        _add_zeros,
        _fill_sector_with_zeros,
        _zero_sector,
        _zero_sector,
        _zero_block,
        _change,
        _change,
        _add_remains,
        _add_remains,
        _nest_claims,
        _claim_much,
    )
