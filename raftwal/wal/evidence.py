"""What the bytes say about a log that does not hold: a torn write, or something lost.

A write that a crash interrupted was never acknowledged.  It is the last one there is:
nothing is written before the sync of the write before it has returned.  So whatever
cannot belong to one write, and yet stands at or beyond the place that does not hold,
was written after that place had been made durable.

One write holds, in this order: hard states that moved only the commit index and
waited; then the entries of one save and its hard state, or one snapshot record.  (So
do etcd's: raft's MustSync.)  The entries follow on what was there or replace its end,
and no hard state commits more than there then is.
"""

from __future__ import annotations

from typing import NamedTuple

from raftwal.errors import RecordFormatError
from raftwal.model import HardState
from raftwal.wal.remains import Found, RecordsInsideRecordsError, runs_of_records
from raftwal.wal.segments import SECTOR_BYTES
from raftwal.wire.frames import ENTRY, HARD_STATE, RECORD_TYPES, SNAPSHOT
from raftwal.wire.messages import decode_entry, decode_hard_state, decode_snapshot_record

# A length field; type, checksum and data of a record; term and index of an entry, which are
# not zero; all in as few bytes as they take.
_SMALLEST_ENTRY_BYTES = 24


class LogSoFar(NamedTuple):
    """What was read before the place that does not hold."""

    last_index: int
    hard_state: HardState


class Remains(NamedTuple):
    """What stands beyond zeros, in words, and whether an interrupted write can have left it."""

    what: str
    can_be_torn: bool


def records_behind_zeros(data: bytes, offset: int, so_far: LogSoFar) -> Remains | None:
    """What speaks against the zero length field at ``offset`` being the end of the log.

    ``None`` where nothing does.  That is also so where the zeros begin inside a sector whose
    beginning is there, and one write explains what is beyond them: that sector was not
    lost, it never got this write.

    Where they begin with a sector, it may never have been written, or have been lost after
    it was acknowledged.  Records that fit each other, or one that commits or has a snapshot
    of what is missing, say that something was there.
    """
    later = later_write_beyond(data, offset, so_far)
    if later is not None:
        return Remains(later, can_be_torn=False)
    if _is_sector_from_before_the_write(data, offset):
        return None
    remains: Remains | None = None
    for run in runs_of_records(data, offset):
        position = run[0].position
        kind = run[0].record.type
        reached = _index_reached(run[0])
        what = f"the {RECORD_TYPES[kind]} record at byte {position} reaches index {reached}"
        most = so_far.last_index + _entries_that_fit(position - offset)
        # A snapshot may have been received, and be of any index.
        if kind == HARD_STATE and reached > most:
            return Remains(f"{what}, more than one write can explain", can_be_torn=False)
        if len(run) > 1:
            what = f"records that belong together follow at byte {position}"
        elif reached <= so_far.last_index:
            continue
        remains = remains or Remains(what, not _end_in_their_sector(data, offset))
    return remains


def later_write_beyond(
    data: bytes, start: int, so_far: LogSoFar, torn_type: int | None = None
) -> str | None:
    """What at or beyond ``start`` was written by a later write than what is missing
    before it, or ``None`` when one write, interrupted, can have left all of it.

    ``torn_type`` is the type of the record that does not hold, where it can be read.
    """
    write = _OneWrite(so_far, torn_type)
    unreadable = start
    try:
        for run in runs_of_records(data, start):
            if len(run) == 1:
                continue
            write.skip(run[0].position - unreadable)
            for found in run:
                if not write.takes(found, is_checked=found is not run[0]):
                    what = RECORD_TYPES[found.record.type]
                    return f"the {what} record at byte {found.position} was written later"
            unreadable = run[-1].position
    except RecordsInsideRecordsError as error:
        return f"what follows at byte {error.position} looks like records, one inside the other"
    return None


class _OneWrite:
    """Whether records, in the order in which they stand, can be of one write."""

    def __init__(self, so_far: LogSoFar, torn_type: int | None) -> None:
        self._last_index = so_far.last_index
        # The highest index that the log can have at this place.  What does not hold may
        # be an entry.
        self._most_reached = so_far.last_index + 1
        self._hard_state: HardState | None = so_far.hard_state
        self._has_entries = torn_type == ENTRY
        self._is_complete = torn_type == SNAPSHOT
        self._previous_entry: int | None = None
        self._follows_directly = False

    def skip(self, size: int) -> None:
        """Up to ``size`` bytes that cannot be read stand before the next record."""
        self._follows_directly = False
        self._most_reached += _entries_that_fit(size)

    def takes(self, found: Found, *, is_checked: bool) -> bool:
        """Whether the record can belong to the write, too.

        The first of a run is not checked: its checksum fits the next one, but that its
        data fits its checksum nobody knows.
        """
        if self._is_complete:
            return False
        kind = found.record.type
        payload = (found.record.data or b"") if is_checked else None
        try:
            if kind == ENTRY:
                fits = self._takes_entry(payload)
            elif kind == HARD_STATE:
                fits = self._takes_hard_state(payload)
            else:
                # Entries were synced before a snapshot was recorded, and headers are
                # never written behind anything.
                fits = kind == SNAPSHOT and not self._has_entries
                self._is_complete = True
        except RecordFormatError:
            return False
        return fits

    def _takes_entry(self, payload: bytes | None) -> bool:
        self._has_entries = True
        self._most_reached += 1
        if payload is None:
            return True
        index = decode_entry(payload).index
        if index > self._most_reached:
            return False
        self._most_reached = max(index, self._last_index)
        previous, self._previous_entry = self._previous_entry, index
        follows_directly, self._follows_directly = self._follows_directly, True
        if previous is None:
            return True
        return index == previous + 1 if follows_directly else index > previous

    def _takes_hard_state(self, payload: bytes | None) -> bool:
        before = self._hard_state
        after = self._hard_state = decode_hard_state(payload) if payload is not None else None
        # One that moves more than the commit index is synced at once; and one that waited
        # was saved when the log held no more than what was read.
        self._is_complete = self._has_entries or (
            after is not None
            and (
                after.commit > self._last_index or (before is not None and after[:2] != before[:2])
            )
        )
        fits = after is None or after.commit <= self._most_reached
        if not self._is_complete:
            # It waited, so there are no entries of this write before it.
            self._most_reached = self._last_index
        return fits


def _is_sector_from_before_the_write(data: bytes, offset: int) -> bool:
    """Whether the zeros at ``offset`` are those that a write never got to.

    A sector is there as a whole or not at all.  This one holds the end of the record before
    the zeros, so it was not lost; and the zeros end where a sector does, give or take those
    with which the next one may begin: the end of a record's data, and its padding.
    """
    if not any(data[offset - offset % SECTOR_BYTES : offset]):
        return False
    position = offset
    while position < len(data):
        block = data[position : position + SECTOR_BYTES]
        rest = block.lstrip(b"\0")
        if rest:
            first = position + len(block) - len(rest)
            return first // SECTOR_BYTES > offset // SECTOR_BYTES and first % SECTOR_BYTES < 16
        position += len(block)
    return True


def _end_in_their_sector(data: bytes, offset: int) -> bool:
    """Whether a part of the sector is there in which the zeros begin, behind them: no write
    leaves a sector like that.
    """
    return any(data[offset : offset - offset % SECTOR_BYTES + SECTOR_BYTES])


def _entries_that_fit(size: int) -> int:
    """How many entries can have been in so many bytes."""
    return size // _SMALLEST_ENTRY_BYTES


def _index_reached(found: Found) -> int:
    """The index that a hard state commits or a snapshot is of; 0 for anything else."""
    record = found.record
    try:
        if record.type == HARD_STATE:
            return decode_hard_state(record.data or b"").commit
        if record.type == SNAPSHOT:
            return decode_snapshot_record(record.data or b"").index
    except RecordFormatError:
        pass
    return 0
