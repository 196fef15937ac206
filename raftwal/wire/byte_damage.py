"""Which single byte of a record is wrong, when no more than one is.

A CRC is linear: what one changed byte does to it depends only on the change and on how
far from the end the byte is.  So the difference between the stated checksum and the
computed one can be followed back through the data until it fits into one byte.
"""

from __future__ import annotations

from raftwal.wire.frames import decode_record, extend_crc
from raftwal.wire.varint import decode_varint, encode_varint

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed
# A checksum has 2**32 values, and chance finds one that fits, too: no more often than this.
_CHANCE = 1 / 1000
_MOST_BYTES = int(2**32 * _CHANCE / 255)
_MOST_BYTES_FOR_ONE_BIT = int(2**32 * _CHANCE / 8)


def _table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [entry >> 1 ^ (_POLYNOMIAL if entry & 1 else 0) for entry in table]
    return table


_FORWARD = _table()
# Every entry has another top byte, so a step of one byte can be taken back.
_BACK = {entry >> 24: (number, entry) for number, entry in enumerate(_FORWARD)}


def changed_byte(before: int, buffer: bytes, start: int, end: int) -> int | None:
    """The offset in ``buffer`` of the one byte that keeps ``buffer[start:end]`` from being
    a record that continues the checksum ``before``, or ``None``.

    ``None`` as well for a record so large that chance would find one too often: above
    16 KiB a single flipped bit is still found, above 512 KiB nothing.
    """
    return _changed_in_head(before, buffer, start, end) or _changed_in_data(
        before, buffer, start, end
    )


def _changed_in_head(before: int, buffer: bytes, start: int, end: int) -> int | None:
    """The byte among those before the data, checksum included."""
    for crc_bytes in range(1, 6):
        for length_bytes in range(1, 6):
            head_bytes = 2 + 1 + crc_bytes + 1 + length_bytes
            data_start = start + head_bytes
            if data_start > end or len(encode_varint(end - data_start)) != length_bytes:
                continue
            crc = encode_varint(extend_crc(before, buffer[data_start:end]))
            if len(crc) != crc_bytes:
                continue
            # The type is of no consequence to the checksum: any will do.
            kind = buffer[start + 1 : start + 2]
            head = b"\x08" + kind + b"\x10" + crc + b"\x1a" + encode_varint(end - data_start)
            found = buffer[start:data_start]
            changed = [at for at in range(head_bytes) if head[at] != found[at]]
            if len(changed) == 1:
                return start + changed[0]
            if not changed:
                return start + 1
    return None


def _changed_in_data(before: int, buffer: bytes, start: int, end: int) -> int | None:
    try:
        record = decode_record(buffer, start, end)
    except ValueError:
        return None
    data = record.data
    if data is None or len(data) > _MOST_BYTES_FOR_ONE_BIT:
        return None
    difference = extend_crc(before, data) ^ record.crc
    is_short = len(data) <= _MOST_BYTES
    for position in range(len(data) - 1, -1, -1):
        number, entry = _BACK[difference >> 24]
        difference = ((difference ^ entry) << 8 | number) & 0xFFFFFFFF
        if difference < 256 and (is_short or difference & (difference - 1) == 0):
            return end - len(data) + position
    return None


def stated_end(buffer: bytes, start: int, before: int) -> int | None:
    """Where the record at ``start`` ends by its own fields, if it continues ``before``.

    ``None`` when it does not: then nothing says that a record begins there.
    """
    try:
        if buffer[start] != 0x08 or buffer[start + 2] != 0x10:
            return None
        crc, position = decode_varint(buffer, start + 3, len(buffer))
        if buffer[position] != 0x1A:
            return None
        length, position = decode_varint(buffer, position + 1, len(buffer))
    except (ValueError, IndexError):
        return None
    end = position + length
    if end > len(buffer) or extend_crc(before, buffer[position:end]) != crc:
        return None
    return end
