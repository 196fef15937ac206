"""Where the fields of a protobuf message stand, for one too large to be parsed or held.

protobuf's runtimes want a message whole in memory, and none of 2 GiB or more.  Here only the
keys and lengths are read.  What is accepted is what `raftwal.wire.schema.parse` accepts, and
lengths beyond protobuf's own bound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from raftwal.errors import RecordFormatError
from raftwal.wire.varint import decode_varint, encode_varint

Read = Callable[[int, int], bytes]
"""``read(offset, length)``: that many bytes, fewer only at the end."""

_LENGTH = 2
"""The wire type of a field that begins with its length; that of a number is 0."""
_MOST_KEY_BYTES = 5
_MOST_VALUE_BYTES = 10
_MOST_HEAD_BYTES = _MOST_KEY_BYTES + _MOST_VALUE_BYTES
_WINDOW_BYTES = 1 << 12


class Field(NamedTuple):
    """One field: its key, where it begins, and where its content is; a number's is ``value``."""

    key: int
    start: int
    content: int
    end: int
    value: int


def fields_of(read: Read, start: int, end: int, keys: Collection[int]) -> Iterator[Field]:
    """The fields of the message in ``[start, end)``, in their order.

    Raises `RecordFormatError` where it is none, or one with a key that is not in ``keys``.
    """
    window, base = b"", start
    position = start
    while position < end:
        if position + _MOST_HEAD_BYTES > base + len(window) < end:
            base = position
            window = read(base, min(_WINDOW_BYTES, end - base))
            if not window:
                raise RecordFormatError("a message that ends too early")
        at = position - base
        limit = min(len(window), end - base)
        try:
            key, at = decode_varint(window, at, min(limit, at + _MOST_KEY_BYTES))
            if key not in keys:
                raise RecordFormatError("unknown fields")
            if key & 7 == _LENGTH:
                value, content = decode_varint(window, at, limit)
            else:
                value, content = _number(window, at, min(limit, at + _MOST_VALUE_BYTES))
        except RecordFormatError:
            raise
        except ValueError as error:
            raise RecordFormatError("a field without an end") from error
        if key & 7 == _LENGTH:
            # protobuf takes no length of more than five bytes; larger ones need them.
            if content - at > max(5, len(encode_varint(value))):
                raise RecordFormatError("a length that is too long")
            field = Field(key, position, base + content, base + content + value, value)
        else:
            field = Field(key, position, base + at, base + content, value)
        if field.end > end:
            raise RecordFormatError("a field that ends beyond its message")
        yield field
        position = field.end


class Split(NamedTuple):
    """A message taken apart: where one field's content is, and all the others as they stand."""

    start: int
    end: int
    others: bytes


def split(read: Read, start: int, end: int, key: int, keys: Collection[int]) -> Split:
    """The message in ``[start, end)`` without the field ``key``, and where that is.

    Of several, protobuf takes the last; without one the content is empty.  What the others
    say is for protobuf to parse: they are held.

    Raises as `fields_of` does.
    """
    found = (start, start)
    others: list[tuple[int, int]] = []
    for field in fields_of(read, start, end, keys):
        if field.key == key:
            found = (field.content, field.end)
        elif others and others[-1][1] == field.start:
            # Many small ones are read at once.
            others[-1] = (others[-1][0], field.end)
        else:
            others.append((field.start, field.end))
    return Split(*found, b"".join(read(at, until - at) for at, until in others))


def _number(window: bytes, position: int, end: int) -> tuple[int, int]:
    """As `decode_varint`, but without what is beyond 64 bits: protobuf drops that."""
    value = 0
    for at in range(position, end):
        value |= (window[at] & 0x7F) << 7 * (at - position)
        if window[at] < 0x80:
            return value & (1 << 64) - 1, at + 1
    raise ValueError("a varint that does not end")
