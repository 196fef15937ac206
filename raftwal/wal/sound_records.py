"""The records of a segment as long as nothing about them is to be judged, a window at a time.

Nearly always that is all of them, up to the zeros at the end, and the segment need not be
held.  Where this stops, `raftwal.wal.records` looks at the whole segment, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raftwal.errors import RecordFormatError
from raftwal.fs import File, read_into
from raftwal.wal.segments import is_zero
from raftwal.wire.entries import EntryRun, decode_entries, decodes_in_place
from raftwal.wire.frames import (
    CRC,
    LENGTH_FIELD_BYTES,
    Record,
    claimed_length,
    decode_length_field,
    decode_record,
    extend_crc,
)

WINDOW_BYTES = 1 << 20
# Some milliseconds: other threads get their turn between two runs.
_MOST_IN_A_RUN = 1 << 14


class Sound(NamedTuple):
    """A record, or a run of entries, from ``start`` to ``end`` in the segment; the chain's
    value behind it is ``crc``.
    """

    found: Record | EntryRun
    start: int
    end: int
    crc: int


class SoundRecords:
    """Reads the sound records at the beginning of a segment, where the chain is at ``crc``.

    ``header`` has the types of the records that it has to begin with.  With ``first_kept``,
    entries come in runs; kept are those from that index on.
    """

    def __init__(self, file: File, header: Sequence[int], crc: int, first_kept: int | None) -> None:
        self._file = file
        self._header = header
        self._crc = crc
        self._first_kept = first_kept
        self._size = file.size()
        self._memory = memoryview(b"")
        self._window: bytes | memoryview = b""
        self._window_start = 0
        self._offset = 0
        self._count = 0
        self.reach_the_end = False
        """Whether nothing but zeros follows on them: then there is nothing to judge."""

    def __iter__(self) -> Iterator[Sound]:
        """Raises ``OSError`` when the file cannot be read."""
        while True:
            sound = self._next_run() or self._next_record()
            if sound is not None:
                self._offset, self._crc = sound.end, sound.crc
                yield sound
            elif not self._has_more():
                break
        if self._count >= len(self._header):
            self.reach_the_end = self._is_zero_from_here()

    def _next_run(self) -> Sound | None:
        if self._first_kept is None or self._count < len(self._header):
            return None
        at = self._offset - self._window_start
        run = decode_entries(self._window, at, self._crc, self._first_kept, _MOST_IN_A_RUN)
        if run.total == 0:
            return None
        self._count += run.total
        return Sound(run, self._offset, self._window_start + run.end, run.crc)

    def _next_record(self) -> Sound | None:
        window = self._window
        at = self._offset - self._window_start
        start = at + LENGTH_FIELD_BYTES
        if start > len(window):
            return None
        try:
            length, padding = decode_length_field(window, at)
            end = start + length + padding
            if length == 0 or end > len(window) or any(window[end - padding : end]):
                return None
            record = decode_record(bytes(window[start : start + length]), 0, length)
        except RecordFormatError:
            return None
        count = self._count
        if count < len(self._header) and record.type != self._header[count]:
            return None
        crc = self._crc if record.data is None else extend_crc(self._crc, record.data)
        if crc != record.crc and (record.type != CRC or crc != 0):
            return None
        self._count += 1
        return Sound(record, self._offset, self._window_start + end, record.crc)

    def _has_more(self) -> bool:
        """Move the window to begin here, and as far as the record here claims to reach;
        whether it holds anything that it did not hold before.
        """
        wanted = WINDOW_BYTES
        at = self._offset - self._window_start
        if len(self._window) - at >= LENGTH_FIELD_BYTES:
            wanted = max(wanted, claimed_length(self._window, at) + LENGTH_FIELD_BYTES + 7)
        known_end = self._window_start + len(self._window)
        end = min(self._size, self._offset + wanted)
        if end <= known_end:
            return False
        self._window = self._read(self._offset, end - self._offset)
        self._window_start = self._offset
        return self._window_start + len(self._window) > known_end

    def _read(self, offset: int, length: int) -> bytes | memoryview:
        """In the memory of the window before: touching new memory takes longer than reading."""
        # Not two at a time.
        self._window = b""
        if not decodes_in_place():
            return self._file.read(offset, length)
        if length > len(self._memory):
            self._memory = memoryview(b"")
            self._memory = memoryview(bytearray(length))
        return self._memory[: read_into(self._file, offset, self._memory[:length])]

    def _is_zero_from_here(self) -> bool:
        return all(self._is_zero(start, end) for start, end in self._written_from_here())

    def _is_zero(self, offset: int, end: int) -> bool:
        while offset < end:
            window = self._read(offset, min(WINDOW_BYTES, end - offset))
            if not window or not is_zero(window, 0):
                return False
            offset += len(window)
        return True

    def _written_from_here(self) -> list[tuple[int, int]]:
        """The parts that may be anything but zeros: most of a segment's reserved space was never
        written to.

        All of them before the first is read: Linux takes what it has read ahead for written.
        """
        parts = []
        offset = self._offset
        while (start := self._file.next_data(offset)) < self._size:
            hole = self._file.first_hole(start)
            offset = min(hole, self._size) if hole > start else self._size
            parts.append((start, offset))
        return parts
