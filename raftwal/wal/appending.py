"""The append side: frames into the tail segment, one write and one sync a save.

It has two halves. Records are queued, by one thread at a time; what was queued is taken, and then
written, by one thread at a time. The two may be at work together: see `raftwal.wal.group_commit`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import takewhile
from typing import NamedTuple

from raftwal.errors import ClosedError, WriteFailedError
from raftwal.events import log
from raftwal.fs import Descriptor, File, FileSystem, descriptor_of
from raftwal.metrics import WALMetrics
from raftwal.model import EMPTY_HARD_STATE, MAX_UINT64, HardState
from raftwal.wal.cut_rule import HandedOver
from raftwal.wal.preparation import SegmentPreparation
from raftwal.wal.segments import SegmentName
from raftwal.wal.zeroing import Preallocation, Progress
from raftwal.wire.entries import AnyEntry, encode_entries
from raftwal.wire.frames import CRC, HARD_STATE, METADATA, encode_frame, extend_crc
from raftwal.wire.messages import encode_hard_state

SLOW_SYNC_SECONDS = 1.0
JOINED_BYTES = 1 << 16
"""Frames of up to so many bytes are put together before they are written."""
FIRST_LEAD_BYTES = 1 << 18
"""How far behind the records that caught up with the zeros these begin anew."""


_Frames = list[bytes | bytearray]
_Write = tuple[_Frames, SegmentName | None, _Frames]
"""What goes out at once: frames; the segment that comes next, if it does; its first frames."""


class DirectEnd(NamedTuple):
    """Where a log ends in a file, for who writes to that by himself."""

    descriptor: Descriptor
    offset: int
    crc: int
    segment_bytes: int
    limit: int


class Appender:
    """The tail of a log that is open for appending.

    After the first failed write or sync every call raises `WriteFailedError`: what
    reached the disk is then unknown, and only a fresh read can tell.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        files: list[tuple[SegmentName, File]],
        *,
        offset: int,
        crc: int,
        metadata: bytes | None,
        segment_bytes: int,
        metrics: WALMetrics,
        executor: Executor | None,
        preallocation: Preallocation,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._files = files
        self._offset = offset
        self._crc = crc
        self._metadata = metadata
        self._segment_bytes = segment_bytes
        self._metrics = metrics
        self._sequence = files[-1][0].sequence
        self._pending: _Frames = []
        self._last_index = 0
        self._hard_state = EMPTY_HARD_STATE
        self._last_in_write: int | None = None
        self._state_of_write: HardState | None = None
        self._is_complete = False
        self._may_cut = False
        self._sealed: deque[_Write] = deque()
        self._taken: _Write | None = None
        self.sealed_writes = 0
        self.taken_writes = 0
        self._size: int | None = None
        self._handed_over = HandedOver(offset)
        self._failure: BaseException | None = None
        self.when_failed: Callable[[], None] | None = None
        self._closed = False
        descriptor = descriptor_of(self._tail)
        if descriptor is not None and not descriptor.syncs:
            # Zeros are for the syncs' sake.
            preallocation = "reserve"
        self.progress = Progress(offset)
        self._preparation = SegmentPreparation(
            fs, directory, segment_bytes, executor, preallocation, self.progress
        )
        self._lead = FIRST_LEAD_BYTES
        self._zeroing = self._preparation.write_zeros(self._tail.path, offset)
        metrics.segments.set(len(files))

    @property
    def failure(self) -> BaseException | None:
        """The error after which the log refuses every call, if there was one."""
        return self._failure

    def fail(self, error: BaseException) -> None:
        """The log refuses every further call, for this reason unless there is one already."""
        if self._failure is None:
            self._failure = error
            self._preparation.write_no_more_zeros()
            if self.when_failed is not None:
                self.when_failed()

    def check_usable(self) -> None:
        """Raises `ClosedError` or `WriteFailedError`."""
        if self._closed:
            raise ClosedError("the log is closed", path=self._directory)
        if self._failure is not None:
            raise self.refusal()

    def refusal(self) -> WriteFailedError:
        """What to raise after a failure."""
        error = WriteFailedError(
            f"the log refuses every call after a failure: {self._failure}", path=self._directory
        )
        error.__cause__ = self._failure
        return error

    def add(self, record_type: int, data: bytes | None) -> None:
        """Queue one record for the next write."""
        if data is not None:
            self._crc = extend_crc(self._crc, data)
        frame = encode_frame(record_type, data, self._crc)
        self._queue(frame)

    def add_save(
        self,
        entries: Sequence[AnyEntry],
        state: HardState | None,
        is_promise: bool,
        last_index: int,
        hard_state: HardState,
    ) -> None:
        """Queue a save, into the write that is open if the two can be one write.

        Saves that go out together are written as one: the entries of all of them, then the
        last hard state.  They are durable together, so nobody can miss the others; and a
        reader knows by it what can be of one write: see `raftwal.wal.evidence`.  So
        entries that do not go on where those of the write end, begin the next one.

        ``last_index`` and ``hard_state`` are those of the log from then on.
        """
        last = self._last_in_write
        if self._is_complete or (
            last is not None
            # What others add to a write does not make a segment much larger than one save can.
            and (
                self._handed_over.end >= self._segment_bytes
                or (entries and entries[0][1] != last + 1)
            )
        ):
            self.seal()
        if entries:
            frames, sizes, self._crc, total = encode_entries(entries, self._crc)
            self._pending += frames
            self._handed_over.append(sizes, total)
            self._last_in_write = entries[-1][1]
        if state is not None:
            if is_promise or self._state_of_write is not None or self._last_in_write is not None:
                self._state_of_write = state
            else:
                # It only moves the commit index, and waits for somebody else's sync.
                self.add(HARD_STATE, encode_hard_state(state))
        self._last_index, self._hard_state = last_index, hard_state
        self._may_cut = True

    def add_alone(self, record_type: int, data: bytes) -> None:
        """Queue a record that shares its write with those only that waited for it."""
        if self._is_complete or self._last_in_write is not None or self._state_of_write is not None:
            self.seal()
        self.add(record_type, data)
        self._is_complete = True
        self._may_cut = False

    def seal(self) -> None:
        """What is queued is one write; what is queued from here on is another."""
        self._sealed.append(self._end_write())

    def _end_write(self) -> _Write:
        if self._state_of_write is not None:
            self.add(HARD_STATE, encode_hard_state(self._state_of_write))
            self._state_of_write = None
        frames = self._pending
        segment = None
        header: _Frames = []
        self._pending = header
        if self._may_cut and self.is_full and self._last_index < MAX_UINT64:
            # Behind the highest index there is, a segment could not be named: this one grows.
            self._sequence += 1
            segment = SegmentName(self._sequence, self._last_index + 1)
            self._handed_over = HandedOver(0)
            self.add_header(self._hard_state)
            self._pending = []
        # As a sync does, in the model of etcd's writer.
        self._handed_over.flush()
        self._last_in_write = None
        self._is_complete = self._may_cut = False
        self.sealed_writes += 1
        return frames, segment, header

    @property
    def has_sealed(self) -> bool:
        """Whether there is a write that nobody has taken."""
        return bool(self._sealed)

    def add_crc(self) -> None:
        """Queue a record that states the chain's value, as each segment starts with."""
        frame = encode_frame(CRC, None, self._crc)
        self._queue(frame)

    def _queue(self, frame: bytes) -> None:
        self._pending.append(frame)
        self._handed_over.append([len(frame)], len(frame))

    def direct_end(self) -> DirectEnd | None:
        """Where the log ends, if all that was queued is written and there is room in the file
        behind it, of a disk that can be written to without this.
        """
        is_queued = (
            self._pending
            or self._is_complete
            or self._last_in_write is not None
            or self._state_of_write is not None
            or self._sealed
            or self._taken is not None
        )
        if is_queued or self._size is None or self._failure is not None or self._closed:
            return None
        descriptor = descriptor_of(self._tail)
        if descriptor is None:
            return None
        return DirectEnd(descriptor, self._offset, self._crc, self._segment_bytes, self.limit)

    @property
    def is_on_the_system(self) -> bool:
        """Whether the segment is a file of the system's own, and not of a disk in its place."""
        return descriptor_of(self._tail) is not None

    @property
    def limit(self) -> int:
        """How far may be written: the file's size, and where the zeros are that come up."""
        size = self._size or 0
        return size if self._zeroing is None else min(size, self._zeroing.frontier)

    def go_on_behind(
        self, offset: int, crc: int, last_index: int, hard_state: HardState, queued: bytes
    ) -> None:
        """Go on where the log ends since it went on elsewhere, with records that were ``queued``
        there.
        """
        self._offset = self.progress.offset = offset
        self._crc = crc
        self._last_index, self._hard_state = last_index, hard_state
        self._handed_over = HandedOver(offset)
        if queued:
            self._queue(queued)
            self._may_cut = True

    @property
    def is_full(self) -> bool:
        """Whether the segment has reached its size, by etcd's rule."""
        return self._handed_over.offset >= self._segment_bytes

    def take(self) -> None:
        """Have the first write that is sealed, or else what is queued, go out next.

        From here on the writing half has it, and records can be queued again.
        """
        self._taken = self._sealed.popleft() if self._sealed else self._end_write()
        self.taken_writes += 1

    def commit(self) -> None:
        """Write what was taken; when this returns, it is durable.

        Whatever interrupts it is as final as a failed sync: the offset would be at
        another place than the file's end.
        """
        if self._failure is not None:
            # A second sync could report success for lost data.
            raise self.refusal()
        try:
            taken = self._taken
            if taken is not None and taken[1] is not None:
                # The cut itself makes it durable.
                self.flush()
            else:
                self.sync()
        except BaseException as error:
            self.fail(error)
            raise

    def flush(self) -> None:
        """Hand what was taken to the system, without waiting for the disk unless it is cut."""
        if self._taken is not None:
            frames, segment, header = self._taken
            self._write(frames)
            if segment is not None:
                self._cut(segment, header)
            self._taken = None

    def _write(self, frames: _Frames) -> None:
        if not frames:
            return
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        end = self._offset + size
        if self._zeroing is not None and end > self._zeroing.frontier:
            self._have_zeros_begin_beyond(end)
        started = time.perf_counter()
        try:
            if self._size is None or end > self._size:
                self._make_room(end)
            if len(frames) == 1 or size > JOINED_BYTES:
                self._files[-1][1].write(self._offset, *frames)
            else:
                self._files[-1][1].write(self._offset, b"".join(frames))
        except OSError as error:
            raise self.failed("write", error) from error
        self._metrics.write_seconds.observe(time.perf_counter() - started)
        self._metrics.written_bytes.inc(size)
        self._offset = end
        self.progress.note(end, size)

    def _have_zeros_begin_beyond(self, end: int) -> None:
        """The records have caught up with the zeros, which must not get over them.

        Each time they get a longer lead, so that this happens only a few times a segment.
        """
        self._stop_zeros()
        if self.progress.has_large_writes:
            return
        self._zeroing = self._preparation.write_zeros(self._tail.path, end + self._lead)
        self._lead *= 2

    def _stop_zeros(self) -> None:
        if self._zeroing is not None:
            self._zeroing.stop()
            self._zeroing = None

    def _make_room(self, end: int) -> None:
        """Have the segment reach to ``end``, in zeros, durably, before data goes there.

        After a crash a file can have grown without its data, with anything in place of it:
        a write that was torn there would look like damage.
        """
        if self._size is None:
            self._size = self._tail.size()
        if end > self._size:
            size = max(end, self._segment_bytes)
            self._tail.allocate(size)
            self._tail.sync()
            self._size = size

    def sync(self) -> None:
        """Write what was taken; when this returns, all of it is durable."""
        self.flush()
        self._sync_data()

    def _sync_data(self) -> None:
        started = time.perf_counter()
        try:
            self._files[-1][1].sync_data()
        except OSError as error:
            raise self.failed("data sync", error) from error
        self.note_sync(time.perf_counter() - started)

    def note_sync(self, elapsed: float) -> None:
        """Report a sync that took so many seconds."""
        self._metrics.sync_seconds.observe(elapsed)
        if elapsed > SLOW_SYNC_SECONDS:
            log.warning("wal_slow_sync", path=self._tail.path, seconds=round(elapsed, 6))

    def _cut(self, segment: SegmentName, frames: _Frames) -> None:
        """Close the tail segment and go on in a new one, which begins with ``frames``.

        The old segment is whole and durable before the new one gets its name, and the
        new one's header is durable before that too: a crash at any point leaves a log
        that ends where it did, or one with an empty segment more.
        """
        self._stop_zeros()
        started = time.perf_counter()
        try:
            self._tail.truncate(self._offset)
            self._tail.sync()
            self.note_sync(time.perf_counter() - started)
            file, self._zeroing = self._preparation.take()
        except OSError as error:
            raise self.failed("cut", error) from error
        self._files.append((segment, file))
        self._offset = self.progress.offset = 0
        self._size = None
        self._lead = FIRST_LEAD_BYTES
        self._write(frames)
        self._sync_data()
        path = os.path.join(self._directory, str(segment))
        try:
            self._fs.rename(file.path, path)
            self._fs.sync_directory(self._directory)
        except OSError as error:
            raise self.failed("cut", error) from error
        file.path = path
        self._metrics.cuts.inc()
        self._metrics.segments.set(len(self._files))
        log.info("wal_cut", path=path, sequence=segment.sequence, index=segment.index)

    def add_header(self, hard_state: HardState) -> None:
        """Queue what every segment but the first starts with."""
        self.add_crc()
        self.add(METADATA, self._metadata)
        if hard_state != EMPTY_HARD_STATE:
            self.add(HARD_STATE, encode_hard_state(hard_state))

    def release_to(self, index: int) -> None:
        """Unlock the segments wholly below ``index``, but for the last of them."""
        # Up to the first that is not: after a replaced tail, names can go back down.
        below = sum(1 for _ in takewhile(lambda file: file[0].index < index, self._files))
        for _, file in self._files[: max(0, below - 1)]:
            file.close()
        del self._files[: max(0, below - 1)]
        self._metrics.segments.set(len(self._files))

    def close(self) -> None:
        """Sync, unless the log failed, and close.  Closing twice is harmless."""
        if self._closed:
            return
        try:
            self._stop_zeros()
            # Never after a failure: a second sync could report success for lost data.
            if self._failure is None:
                self.take()
                self.commit()
        finally:
            self._closed = True
            for _, file in self._files:
                file.close()
            self._preparation.close()

    @property
    def _tail(self) -> File:
        return self._files[-1][1]

    def failed(self, call: str, error: OSError) -> WriteFailedError:
        """The log refuses every further call, because of this one."""
        self.fail(error)
        log.error("wal_failed", path=self._tail.path, call=call, error=str(error))
        return WriteFailedError(
            f"{call} failed: {error.strerror or error}",
            path=self._tail.path,
            offset=self._offset,
        )
