"""The record stream of a log: frames across segments, each checked against the chain.

Only the bytes are judged here; what the records mean is `raftwal.wal.reading`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from raftwal.errors import (
    CorruptionError,
    CrcMismatchError,
    LostRecordsError,
    ReadFailedError,
    RecordFormatError,
    RecordLengthError,
    SegmentHeaderError,
    TornTailError,
    TruncatedSegmentError,
    ZeroedDataError,
)
from raftwal.fs import FileSystem
from raftwal.model import EMPTY_HARD_STATE, HardState
from raftwal.wal.evidence import LogSoFar, later_write_beyond, records_behind_zeros
from raftwal.wal.segments import SECTOR_BYTES, SegmentName, is_zero
from raftwal.wire.byte_damage import changed_byte, stated_end
from raftwal.wire.entries import EntryRun, decode_entries
from raftwal.wire.frames import (
    CRC,
    LENGTH_FIELD_BYTES,
    METADATA,
    RECORD_TYPES,
    SNAPSHOT,
    Record,
    claimed_length,
    decode_length_field,
    decode_record,
    extend_crc,
)

# Some milliseconds: other threads get their turn between two runs.
_MOST_IN_A_RUN = 1 << 14
_HEADER = (CRC, METADATA)
_FIRST_HEADER = (CRC, METADATA, SNAPSHOT)


class Position(NamedTuple):
    """A byte in a segment file."""

    path: str
    offset: int


class RecordStream:
    """Reads every record of the given segments, in order.

    After the iteration, ``end`` is the end of the last whole record, ``crc`` the
    chain's value there, ``torn_tail`` the error that describes a torn tail (or
    ``None``), and ``end_is_clean`` whether nothing but zeros follows.

    Raises `CorruptionError` subclasses for anything else that does not check, and
    `ReadFailedError`.
    """

    def __init__(self, fs: FileSystem, directory: str, segments: list[SegmentName]) -> None:
        self._fs = fs
        self._directory = directory
        self._segments = segments
        self.crc = 0
        self.last_index = 0
        """Where the log ends by what was read so far, as the caller keeps it: evidence for
        what zeros in the log may have swallowed."""
        self.hard_state: HardState = EMPTY_HARD_STATE
        """The last hard state read so far, as the caller keeps it: evidence, too."""
        self.segment = ""
        """The name of the segment that is being read."""
        self.position = Position(directory, 0)
        """Where the record handed out last begins, or the first of a run."""
        self.end = Position(directory, 0)
        self.end_is_clean = True
        self.torn_tail: TornTailError | None = None
        self._header: tuple[int, ...] = _HEADER
        self._count = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._read(first_kept=None):
            assert isinstance(record, Record)  # there are runs only where they are asked for
            yield record

    def runs(self, first_kept: int) -> Iterator[Record | EntryRun]:
        """As the iteration, but with entries in runs, as many as stand in a row.

        Of their entries those from the index ``first_kept`` on are kept.
        """
        return self._read(first_kept)

    def _read(self, first_kept: int | None) -> Iterator[Record | EntryRun]:
        for number, segment in enumerate(self._segments):
            self.segment = str(segment)
            path = os.path.join(self._directory, self.segment)
            is_last = number == len(self._segments) - 1
            # Not two at a time.
            data = b""
            data = read_segment(self._fs, path)
            self._header = _FIRST_HEADER if segment.sequence == 0 else _HEADER
            self._count = 0
            self.end = Position(path, 0)
            error: CorruptionError | TornTailError | None
            while True:
                try:
                    yield from self._segment_records(path, data, number, is_last, first_kept)
                    error = self.torn_tail
                except CorruptionError as caught:
                    error = caught
                if error is None:
                    break
                # A file that is being appended to is not read all at one moment: one
                # page can be older than the next.  What is on disk for good stays.
                offset = self.end.offset
                again = read_segment(self._fs, path) if is_last else data
                if again[offset:] == data[offset:]:
                    if error is not self.torn_tail:
                        raise error
                    break
                data, self.torn_tail, self.end_is_clean = again, None, True

    def _segment_records(
        self, path: str, data: bytes, number: int, is_last: bool, first_kept: int | None
    ) -> Iterator[Record | EntryRun]:
        """The records from ``self.end`` on."""
        offset = self.end.offset
        size = len(data)
        header = self._header
        while True:
            self.end = Position(path, offset)
            run = self._run_at(path, data, offset, first_kept)
            if run is not None:
                offset = run.end
                yield run
                continue
            if size - offset < LENGTH_FIELD_BYTES:
                if any(data[offset:]):
                    self._ends_early(
                        path, data, offset, is_last, "the file ends inside a length field"
                    )
                    self._check_header(path)
                    return
                break
            start = offset + LENGTH_FIELD_BYTES
            claimed = claimed_length(data, offset)
            if start + claimed + (-claimed & 7) > size:
                what = (
                    f"a record of {claimed} bytes and its padding, of which the file has "
                    f"{size - start} bytes"
                )
                if is_last and stated_end(data, start, self.crc) not in (None, start + claimed):
                    raise RecordLengthError(
                        f"{what}; but the record that begins there is whole and shorter",
                        path=path,
                        offset=offset,
                    )
                self._ends_early(path, data, offset, is_last, what, claimed > size)
                self._check_header(path)
                return
            try:
                length, padding = decode_length_field(data, offset)
            except RecordFormatError as error:
                raise _placed(error, path, offset) from None
            if length == 0:
                self._check_zeros(path, data, offset, is_last)
                break
            record = self._checked_record(path, data, offset, start + length, is_last)
            if record is None:
                self._check_header(path)
                return
            if any(data[start + length : start + length + padding]):
                raise RecordFormatError("padding that is not zero", path=path, offset=offset)
            count = self._count
            if count < len(header) and record.type != header[count]:
                raise SegmentHeaderError(
                    f"record {count + 1} of the segment is of type {RECORD_TYPES[record.type]}, "
                    f"not {RECORD_TYPES[header[count]]}",
                    path=path,
                    offset=offset,
                )
            self.position = Position(path, offset)
            self._count += 1
            offset = start + length + padding
            self.end = Position(path, offset)
            yield record
        count = self._count
        if count < len(header) and (count or number == 0 or not is_last):
            # An empty last one, beside others, is let pass, as etcd does: nothing in it
            # is missed.
            raise ZeroedDataError(
                "the segment holds no header, only zeros" if size else "the segment is empty",
                path=path,
                offset=offset,
            )

    def _run_at(
        self, path: str, data: bytes, offset: int, first_kept: int | None
    ) -> EntryRun | None:
        if first_kept is None or self._count < len(self._header):
            return None
        run = decode_entries(data, offset, self.crc, first_kept, _MOST_IN_A_RUN)
        if run.total == 0:
            return None
        self.position = Position(path, offset)
        self._count += run.total
        self.crc = run.crc
        self.end = Position(path, run.end)
        return run

    def _checked_record(
        self, path: str, data: bytes, offset: int, end: int, is_last: bool
    ) -> Record | None:
        """The record at ``offset``, or ``None`` when it is a torn tail."""
        start = offset + LENGTH_FIELD_BYTES
        error: CorruptionError
        try:
            record = decode_record(data, start, end)
            if record.type == CRC:
                if self.crc not in (0, record.crc):
                    raise CrcMismatchError("the segment does not continue the one before it")
                self.crc = record.crc
                return record
            crc = self.crc if record.data is None else extend_crc(self.crc, record.data)
            if crc != record.crc:
                raise CrcMismatchError("a record's checksum does not match its data")
        except CorruptionError as caught:
            error = caught
        else:
            self.crc = crc
            return record
        if not (is_last and _has_zero_sector(data, start, end)):
            raise _placed(error, path, offset)
        if stated_end(data, start, self.crc) not in (None, end):
            # A wrong length takes in what follows, zeros and all.
            raise RecordLengthError(
                f"a record of {end - start} bytes; but the record that begins there is whole "
                "and of another length",
                path=path,
                offset=offset,
            )
        changed = changed_byte(self.crc, data, start, end)
        if changed is not None and not _is_in_zero_sector(data, changed, start, end):
            # Zeros that belong to the record are not what is wrong with it.
            raise CrcMismatchError(
                f"{error.what}; the one byte at {changed} would explain that",
                path=path,
                offset=offset,
            )
        self._tear(path, data, offset, end, "a record with a disk sector that was never written")
        return None

    def _ends_early(
        self,
        path: str,
        data: bytes,
        offset: int,
        is_last: bool,
        what: str,
        implausible: bool = False,
    ) -> None:
        if is_last:
            self._tear(path, data, offset, offset + LENGTH_FIELD_BYTES, what)
        elif implausible:
            raise RecordLengthError(what, path=path, offset=offset)
        else:
            raise TruncatedSegmentError(
                f"{what}, in a segment that is not the last", path=path, offset=offset
            )

    def _check_header(self, path: str) -> None:
        """A torn header is no torn tail: a segment gets its name once that is durable."""
        if self._count < len(self._header):
            raise SegmentHeaderError(
                "the segment ends inside its header", path=path, offset=self.end.offset
            )

    def _tear(self, path: str, data: bytes, offset: int, beyond: int, what: str) -> None:
        """What is at ``offset`` is a torn tail, unless what follows ``beyond`` is newer."""
        kind = data[offset + LENGTH_FIELD_BYTES : offset + LENGTH_FIELD_BYTES + 2]
        torn_type = kind[1] if kind[:1] == b"\x08" and len(kind) == 2 else None
        later = later_write_beyond(data, beyond, self._so_far(), torn_type)
        if later is not None:
            raise LostRecordsError(f"{what}, but {later}", path=path, offset=offset)
        self.end_is_clean = False
        self.torn_tail = TornTailError(f"torn tail: {what}", path=path, offset=offset)

    def _check_zeros(self, path: str, data: bytes, offset: int, is_last: bool) -> None:
        """Judge what follows a zero length field, which says that the log ends here."""
        if is_zero(data, offset):
            return
        self.end_is_clean = False
        if not is_last:
            raise ZeroedDataError(
                "zeros, with more data beyond them, in a segment that is not the last",
                path=path,
                offset=offset,
            )
        start = offset + LENGTH_FIELD_BYTES
        if start % SECTOR_BYTES and stated_end(data, start, self.crc) is not None:
            # In one sector with it: neither is there without the other.
            raise RecordLengthError(
                "a record of 0 bytes; but the record that begins there is whole",
                path=path,
                offset=offset,
            )
        remains = records_behind_zeros(data, offset, self._so_far())
        if remains is None:
            return
        if not remains.can_be_torn or self._count < len(self._header):
            # A segment gets its name once its header is durable.
            raise ZeroedDataError(
                f"zeros where records were: {remains.what}", path=path, offset=offset
            )
        self.torn_tail = TornTailError(
            f"torn tail: zeros at byte {offset}, and {remains.what}; an interrupted write "
            "leaves this; if the machine did not crash, a sector was lost",
            path=path,
            offset=offset,
            advice=f"{TornTailError.default_advice}. If the machine did not crash, keep the "
            "copy that it makes, empty this node's data directory and let it rejoin from its "
            "peers",
        )

    def _so_far(self) -> LogSoFar:
        return LogSoFar(self.last_index, self.hard_state)


def read_segment(fs: FileSystem, path: str) -> bytes:
    """The whole file.  Raises `ReadFailedError`."""
    try:
        file = fs.open_read_only(path)
        try:
            return file.read(0, file.size())
        finally:
            file.close()
    except OSError as error:
        raise ReadFailedError(f"cannot read the segment: {error.strerror}", path=path) from error


def _has_zero_sector(data: bytes, start: int, end: int) -> bool:
    """Whether a sector, clipped to the record at ``start:end``, is all zero."""
    while start < end:
        if _is_in_zero_sector(data, start, start, end):
            return True
        start += SECTOR_BYTES - start % SECTOR_BYTES
    return False


def _is_in_zero_sector(data: bytes, offset: int, start: int, end: int) -> bool:
    sector = offset - offset % SECTOR_BYTES
    return is_zero(data, max(start, sector), min(end, sector + SECTOR_BYTES))


def _placed(error: CorruptionError, path: str, offset: int) -> CorruptionError:
    return type(error)(error.what, path=path, offset=offset)
