"""Protobuf's variable-length integers (base 128, least significant group first)."""

from __future__ import annotations

_ONE_BYTE = tuple(bytes((n,)) for n in range(128))


def encode_varint(n: int) -> bytes:
    """``n`` (0 to 2**64 - 1) as 1 to 10 bytes.  Raises ``ValueError`` for others."""
    if 0 <= n < 0x80:
        return _ONE_BYTE[n]
    if n < 0x4000:
        return bytes((n & 0x7F | 0x80, n >> 7))
    if 0 <= n < 0x200000:
        return bytes((n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14))
    if 0 <= n < 0x10000000:
        return bytes((n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14 & 0x7F | 0x80, n >> 21))
    if 0 <= n < 0x800000000:
        return bytes(
            (
                n & 0x7F | 0x80,
                n >> 7 & 0x7F | 0x80,
                n >> 14 & 0x7F | 0x80,
                n >> 21 & 0x7F | 0x80,
                n >> 28,
            )
        )
    if n >> 64:
        raise ValueError(f"{n} does not fit 64 bits")
    groups = bytearray()
    while n > 0x7F:
        groups.append(n & 0x7F | 0x80)
        n >>= 7
    groups.append(n)
    return bytes(groups)


def decode_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The value at ``position`` and the position after it.

    Raises ``ValueError`` when it runs past ``end`` or does not fit 64 bits.
    """
    shift = 0
    value = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
        if shift > 63:
            break
    raise ValueError("a varint that does not end")
