"""Zeros written into a segment's reserved space, ahead of the records.

Space that was only reserved is an extent of the file system's that counts as unwritten. The first
write to a part of it changes that, and its sync waits for the journal of the file system besides
the data. Zeros that were written before have that behind them.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future
from typing import Literal, Protocol, get_args

from raftwal.background import Background
from raftwal.errors import InvalidSettingError
from raftwal.events import log
from raftwal.fs import File, FileSystem

Preallocation = Literal["zeros", "reserve"]

DEFAULT_PREALLOCATION: Preallocation = "zeros" if sys.platform.startswith("linux") else "reserve"

# Not more at once: ext4 keeps a larger write in one piece in memory, and every later sync of a
# part of it looks at all of it.
_ZEROS = bytes(1 << 16)
_PAGE_BYTES = 4096
_BYTES_AT_ONCE = 1 << 18
_BYTES_AT_ONCE_AMONG_LONGER_WRITES = 1 << 17
_BYTES_AT_ONCE_BESIDE_LONGER_WRITES = 1 << 15
_LONGER_WRITE_BYTES = 1 << 11
"""Of shorter writes so few meet one of zeros that they had better be few. Of longer ones more than
one in a hundred meets one anyway, and had better not wait long for it. In the next segment that is
as long as the disk takes; in the file that has the records, the file system's journal comes on
top."""
LEAD_BYTES = 1 << 21
"""How far ahead of the records zeros are written as fast as the disk takes them."""
FIRST_BYTES = 1 << 24
"""How much of a new log's first segment is zeros before there is a record in it."""

_REST = 400.0
"""How long to leave the disk alone beyond that, in multiples of the time that it was just used:
then far fewer saves than one in a hundred meet a write of zeros."""
_LOOK_SECONDS = 0.02
_NOWHERE = 1 << 63
_LARGE_WRITE_BYTES = 1 << 16
"""From here on the disk takes longer for the zeros than the file system's journal does."""


def check_preallocation(preallocation: Preallocation) -> None:
    """Raises `InvalidSettingError`."""
    if preallocation not in get_args(Preallocation):
        raise InvalidSettingError(
            f"preallocation must be one of {get_args(Preallocation)}, not {preallocation!r}"
        )


def write_first_zeros(file: File, segment_bytes: int) -> None:
    """Zeros at the beginning of a segment that nobody writes to yet.  Raises ``OSError``."""
    end = min(segment_bytes, FIRST_BYTES)
    for position in range(0, end, len(_ZEROS)):
        file.write(position, _ZEROS[: end - position])


class Written(Protocol):
    """What is known of the records that were written to a log."""

    offset: int
    average: float


class Progress:
    """How far the records of a log's last segment have got, and how large its writes are.

    Asked in other threads than the one that writes the records.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.average = 0.0
        """Of the bytes of a write: each counts for an eighth, and less with every one behind it."""
        self.elsewhere: Written | None = None
        """Who knows better, while somebody else writes them."""

    def note(self, offset: int, size: int) -> None:
        """Account for a write that ends at ``offset``."""
        self.offset = offset
        self.average += (size - self.average) / 8

    def now(self) -> Written:
        """What is known of both."""
        elsewhere = self.elsewhere
        return self if elsewhere is None else elsewhere

    @property
    def has_longer_writes(self) -> bool:
        """Whether so many of them meet one of zeros that these had better be short."""
        return self.now().average >= _LONGER_WRITE_BYTES

    @property
    def has_large_writes(self) -> bool:
        """Whether zeros ahead of them would cost more than they save."""
        return self.now().average >= _LARGE_WRITE_BYTES


class Zeroing:
    """Writes zeros, in the background, from the first page behind ``start`` to the file's end.

    What lies at ``frontier`` or beyond is its own until `stop`: who appends looks at it before
    each write. It moves up behind what was written, so an old value of it errs on the safe side.

    It has the file open once more, because on Linux a failed write-back is reported to each
    open file once: a sync here never takes an error from the sync that a save waits for.
    """

    def __init__(
        self,
        fs: FileSystem,
        path: str,
        start: int,
        progress: Progress,
        background: Background,
        is_beside_records: bool,
    ) -> None:
        self.frontier = start + -start % _PAGE_BYTES
        self._progress = progress
        self.failed = False
        self.is_beside_records = is_beside_records
        """Whether the segment is the one that records go to."""
        self._path = path
        self._background = background
        self._state = threading.Lock()
        self._is_running = False
        self._stop = threading.Event()
        self._file: File | None = None
        self._future: Future[None] | None = None
        try:
            # Here and now, as long as the path is this file's.
            self._file = fs.open(path)
        except OSError as error:
            self._give_up(error)
            return
        self._future = background.submit(self._run)

    @property
    def has_ended(self) -> bool:
        """Whether it writes nothing any more."""
        return self.frontier == _NOWHERE

    def end_soon(self) -> None:
        """Have it end, without a wait for what is under way."""
        self._stop.set()

    def stop(self) -> None:
        """When this returns nothing more is written: the file is the caller's alone.

        That takes as long as one write and one sync of a few pages, if they are under way.
        """
        with self._state:
            self._stop.set()
            is_running = self._is_running
        if self._future is not None and is_running:
            self._future.exception()
        self._close()

    def _run(self) -> None:
        # Never held across a call of the disk: a simulation has one thread.
        with self._state:
            if self._stop.is_set():
                return
            self._is_running = True
        try:
            if self._file is not None:
                self._write_zeros(self._file)
        except OSError as error:
            self._give_up(error)
        finally:
            self._close()

    def _write_zeros(self, file: File) -> None:
        end = file.size()
        hole = file.first_hole(self.frontier)
        self.frontier = position = hole + -hole % _PAGE_BYTES
        if not self.is_beside_records:
            self._rest(0, end)
        while position < end and self._wait_for_small_writes():
            started = time.perf_counter()
            first, some = position, min(end, position + self._bytes_at_once)
            while position < some:
                if self._stop.is_set():
                    return
                length = min(len(_ZEROS), some - position)
                file.write(position, _ZEROS if length == len(_ZEROS) else bytes(length))
                self.frontier = position = position + length
            if self.is_beside_records:
                # Else the sync of a save would have all of them to write.
                file.sync_data()
            else:
                file.write_back(first, position - first)
            if position < end:
                self._rest(time.perf_counter() - started, end)
        if not self.is_beside_records and not self._stop.is_set():
            file.sync_data()

    @property
    def _bytes_at_once(self) -> int:
        if not self._progress.has_longer_writes:
            return _BYTES_AT_ONCE
        if self.is_beside_records:
            return _BYTES_AT_ONCE_AMONG_LONGER_WRITES
        return _BYTES_AT_ONCE_BESIDE_LONGER_WRITES

    def _wait_for_small_writes(self) -> bool:
        """Whether they have come, or may.  The caller's executor is not kept busy with that."""
        while self._progress.has_large_writes:
            if (
                not self._background.has_own_threads
                or self._stop.is_set()
                or not self._background.rest(_LOOK_SECONDS, self._stop)
            ):
                return False
        return True

    def _rest(self, used: float, end: int) -> None:
        """Leave the disk alone, for as long as the records do not come close.

        Not until they do, where records go already, or on an executor that is lent.
        """
        left = _REST * used
        while self.frontier >= self._wanted(end):
            if left <= 0:
                if self.is_beside_records or not self._background.has_own_threads:
                    return
                left = _LOOK_SECONDS
            if self._stop.is_set() or not self._background.rest(
                min(left, _LOOK_SECONDS), self._stop
            ):
                return
            left -= _LOOK_SECONDS

    def _wanted(self, end: int) -> int:
        """How far zeros had better be, in a segment that ends there.

        Of the next segment they begin when an eighth of this one is full of records, and are all
        there when it is full: a log that has just begun has enough to do.
        """
        offset = self._progress.now().offset
        return offset + LEAD_BYTES if self.is_beside_records else (offset - end // 8) * 8 // 7

    def _give_up(self, error: OSError) -> None:
        """Nothing was promised on the zeros: without them a sync takes longer, that is all."""
        self.failed = True
        log.info("wal_zeros_not_written", path=self._path, error=str(error))

    def _close(self) -> None:
        self.frontier = _NOWHERE
        file, self._file = self._file, None
        if file is not None:
            file.close()
