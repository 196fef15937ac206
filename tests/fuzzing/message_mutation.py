"""Changes to a protobuf message, field by field: blind ones seldom get past the first tag."""

from __future__ import annotations

import random

BOUNDARIES = (
    *range(9),
    127,
    128,
    255,
    *((1 << bits) + n for bits in (31, 32, 56, 63) for n in (-1, 0, 1, 2)),
    (1 << 64) - 2,
    (1 << 64) - 1,
)

Field = tuple[int, "int | bytes"]
"""A key (number and wire type) and what follows it: a varint's value, or bytes."""

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)


def varint(n: int, source: random.Random | None = None) -> bytes:
    """``n``; with a ``source``, now and then in more bytes than it takes."""
    groups = bytearray()
    while n > 0x7F:
        groups.append(n & 0x7F | 0x80)
        n >>= 7
    groups.append(n)
    if source is not None and source.random() < 0.03:
        groups[-1] |= 0x80
        groups += bytes((0x80,)) * source.randint(0, 10 - len(groups)) if len(groups) < 10 else b""
        groups.append(source.choice((0, 0, 0, 1, 0x7F)))
    return bytes(groups)


def read_varint(data: bytes, at: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return None
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value & (1 << 64) - 1, at
    return None


def fields_of(data: bytes) -> list[Field] | None:
    """The fields one after the other, or ``None`` for bytes that are none."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        key = read_varint(data, at)
        if key is None or key[0] >> 32:
            return None
        kind, at = key[0] & 7, key[1]
        if kind in (VARINT, BYTES):
            number = read_varint(data, at)
            if number is None:
                return None
            value, at = number
            if kind == VARINT:
                fields.append((key[0], value))
                continue
            size = value
        else:
            size = {FIXED64: 8, FIXED32: 4, GROUP: 0, END_GROUP: 0}.get(kind, -1)
        if not 0 <= size <= len(data) - at:
            return None
        fields.append((key[0], data[at : at + size]))
        at += size
    return fields


def joined(fields: list[Field], source: random.Random | None = None) -> bytes:
    parts = []
    for key, value in fields:
        parts.append(varint(key, source))
        if isinstance(value, int):
            parts.append(varint(value, source))
        elif key & 7 == BYTES:
            parts += (varint(len(value), source), value)
        else:
            parts.append(value)
    return b"".join(parts)


def changed_number(source: random.Random, value: int) -> int:
    return source.choice(
        (
            value + 1,
            value + 1,
            value - 1,
            value ^ 1 << source.randrange(64),
            source.choice(BOUNDARIES),
            source.getrandbits(64),
        )
    ) & ((1 << 64) - 1)


def changed_bytes(source: random.Random, data: bytes) -> bytes:
    """Bytes overwritten, taken out, put in, repeated."""
    at = source.randint(0, len(data))
    length = source.choice((1, 1, 2, 3, 8, 16, 64))
    before, block, after = data[:at], data[at : at + length], data[at + length :]
    return source.choice(
        (
            before + source.randbytes(len(block)) + after,
            before
            + bytes((byte ^ 1 << source.randrange(8)) for byte in block[:1])
            + data[at + 1 :],
            before + after,
            before + block + block + after,
            before + source.randbytes(length) + data[at:],
            before + bytes(length) + data[at:],
            before,
        )
    )


def changed_message(source: random.Random, data: bytes, depth: int = 3) -> bytes:
    """A message with one or a few of its fields changed."""
    fields = fields_of(data)
    if fields is None or source.random() < 0.05:
        return changed_bytes(source, data)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        _change(source, fields, depth)
    return joined(fields, source)


def _change(source: random.Random, fields: list[Field], depth: int) -> None:
    if not fields or source.random() < 0.12:
        fields.insert(source.randint(0, len(fields)), new_field(source))
        return
    at = source.randrange(len(fields))
    key, value = fields[at]
    choice = source.random()
    if choice < 0.5:
        if isinstance(value, int):
            value = changed_number(source, value)
        elif depth and source.random() < 0.6:
            value = changed_message(source, value, depth - 1)
        else:
            value = changed_bytes(source, value)
        if key & 7 in (VARINT, BYTES):
            fields[at] = key, value
    elif choice < 0.62:
        del fields[at]
    elif choice < 0.74:
        fields.insert(source.randint(0, len(fields)), fields[at])
    elif choice < 0.84:
        other = source.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif choice < 0.92:
        fields[at] = (source.randint(1, 6) << 3 | key & 7, value)
    elif isinstance(value, int):
        # Packed, or simply of another kind.
        fields[at] = (key & ~7 | BYTES, varint(value) * source.randint(0, 3))
    else:
        fields[at] = (key & ~7, len(value))


def new_field(source: random.Random) -> Field:
    number = source.choice((1, 2, 3, 4, 5, 6, 7, 15, 16, (1 << 29) - 1)) << 3
    kind = source.choice((VARINT, VARINT, BYTES, BYTES, FIXED64, FIXED32, GROUP))
    if kind == VARINT:
        return number, source.choice(BOUNDARIES)
    if kind == BYTES:
        inner = source.choice((b"", b"\0", b"\x08\x01", b"\xff", b"\x0a\0", source.randbytes(9)))
        return number | BYTES, inner * source.choice((1, 1, 1, 3))
    if kind == GROUP:
        depth = source.choice((1, 2, 99, 101, 200))
        opening, closing = varint(number | GROUP), varint(number | END_GROUP)
        nested = opening * (depth - 1) + closing * depth
        return number | GROUP, nested
    return number | kind, source.randbytes(8 if kind == FIXED64 else 4)
