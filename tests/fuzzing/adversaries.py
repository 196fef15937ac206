"""Segments that somebody made up to cost a reader time or memory, of any size."""

from __future__ import annotations

import struct
from collections.abc import Callable

from directories import Frames

from fuzzing.log_model import ENTRY, SECTOR, SNAPSHOT
from fuzzing.message_mutation import varint
from fuzzing.segment_mutation import entry_payload


def snapshot_payload(index: int, term: int) -> bytes:
    return b"\x08%b\x10%b" % (varint(index), varint(term))


class Sound:
    """A segment under way, to be filled with sound records."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.frames = Frames().add_header()
        self._parts = [self.frames.data]
        self.length = len(self.frames.data)

    def add(self, record_type: int, payload: bytes) -> None:
        self.frames.data = b""
        self.frames.add(record_type, payload)
        self._parts.append(self.frames.data)
        self.length += len(self.frames.data)

    @property
    def has_room(self) -> bool:
        return self.length < self.size

    def bytes(self) -> bytes:
        return b"".join(self._parts)


def smallest_entries(size: int) -> bytes:
    """Each with a term of its own, so that the history of terms is as long as the log."""
    log = Sound(size)
    index = 0
    while log.has_room:
        index += 1
        log.add(ENTRY, b"\x10%b\x18%b" % (varint(index), varint(index)))
    return log.bytes()


def rewritten_entries(size: int) -> bytes:
    """The log is cut back to its beginning again and again."""
    log = Sound(size)
    while log.has_room:
        for index in range(1, 40):
            log.add(ENTRY, b"\x18%b" % varint(index))
    return log.bytes()


def smallest_snapshot_records(size: int) -> bytes:
    log = Sound(size)
    while log.has_room:
        log.add(SNAPSHOT, b"\x1a\0")
    return log.bytes()


def jumps_over_snapshots(size: int) -> bytes:
    """Snapshots first, and then entries, each behind another one of them."""
    log = Sound(size)
    count = 0
    while log.length < size // 2:
        count += 1
        log.add(SNAPSHOT, snapshot_payload(10 * count, 1))
    for number in range(1, count + 1):
        log.add(ENTRY, b"\x10\x01\x18%b" % varint(10 * number + 1))
    return log.bytes()


def huge_membership(size: int) -> bytes:
    log = Sound(size)
    voters = b"\x80\x7f" * (size // 2)
    members = b"\x0a%b%b" % (varint(len(voters)), voters)
    log.add(SNAPSHOT, b"\x1a%b%b" % (varint(len(members)), members))
    return log.bytes()


def unknown_fields(size: int) -> bytes:
    log = Sound(size)
    log.add(ENTRY, b"\x28\0" * (size // 2))
    return log.bytes()


def unknown_groups(size: int) -> bytes:
    log = Sound(size)
    log.add(ENTRY, b"\x2b\x2c" * (size // 2))
    return log.bytes()


def _behind_zeros(behind: bytes) -> bytes:
    """One entry, zeros up to a sector and over the next, and then ``behind``."""
    log = Sound(0)
    log.add(ENTRY, entry_payload(1, 1, b"x"))
    whole = log.bytes()
    return whole.ljust(2 * SECTOR, b"\0") + behind


def nested_claims(size: int) -> bytes:
    """At every sixteenth byte a record that claims to hold all that follows."""
    return _behind_zeros(
        b"".join(
            struct.pack("<Q", (size - 16 * number - 8) // 8 * 8) + b"\x08\x02\x10\0\x1a\x02\x18\x01"
            for number in range(size // 16)
        )
    )


def lone_records(size: int) -> bytes:
    """Records that nothing vouches for: none continues another's checksum."""
    frame = struct.pack("<Q", 8) + b"\x08\x02\x10\x07\x1a\x02\x18\x01"
    return _behind_zeros(frame * (size // len(frame)))


def commits_that_may_have_waited(size: int) -> bytes:
    """One long run, all of which one write may have left: no sign of a later one."""
    frame = struct.pack("<Q", 6 | 0x82 << 56) + b"\x08\x03\x10\0\x1a\0\0\0"
    return _behind_zeros(frame * (size // len(frame)))


def torn_with_many_zero_sectors(size: int) -> bytes:
    """One record whose checksum does not fit, every second sector of it zero."""
    content = (bytes(SECTOR) + b"x" * SECTOR) * (size // SECTOR // 2)
    log = Sound(0)
    log.add(ENTRY, entry_payload(1, 1, content))
    whole = bytearray(log.bytes())
    whole[-9] ^= 0x5A
    whole[-11] ^= 0x33
    return bytes(whole)


def torn_at_once(size: int) -> bytes:
    """A length field that runs past the end of the file, and no zero for the rest of it."""
    log = Sound(0)
    return log.bytes() + struct.pack("<Q", 1 << 40) + b"\x08\x02\x10\x01" * (size // 4)


def lengths_everywhere(size: int) -> bytes:
    """Behind zeros, what may be a length field and may be the first bytes of a record."""
    return _behind_zeros(struct.pack("<Q", 8) * (size // 8))


ALL: tuple[Callable[[int], bytes], ...] = (
    smallest_entries,
    rewritten_entries,
    smallest_snapshot_records,
    jumps_over_snapshots,
    huge_membership,
    unknown_fields,
    unknown_groups,
    nested_claims,
    lone_records,
    commits_that_may_have_waited,
    torn_with_many_zero_sectors,
    torn_at_once,
    lengths_everywhere,
)
