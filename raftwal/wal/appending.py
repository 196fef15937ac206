"""The append side: frames into the tail segment, one write and one sync a save."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import takewhile

from raftwal.errors import ClosedError, WriteFailedError
from raftwal.events import log
from raftwal.fs import File, FileSystem
from raftwal.metrics import WALMetrics
from raftwal.model import EMPTY_HARD_STATE, HardState
from raftwal.wal.cut_rule import HandedOver
from raftwal.wal.preparation import SegmentPreparation
from raftwal.wal.segments import SegmentName
from raftwal.wal.zeroing import Preallocation
from raftwal.wire.entries import AnyEntry, encode_entries
from raftwal.wire.frames import CRC, HARD_STATE, METADATA, encode_frame, extend_crc
from raftwal.wire.messages import encode_hard_state

SLOW_SYNC_SECONDS = 1.0
FIRST_LEAD_BYTES = 1 << 18


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
        self._pending: list[bytes | bytearray] = []
        self._size: int | None = None
        self._handed_over = HandedOver(offset)
        self._failure: BaseException | None = None
        self._closed = False
        self._preparation = SegmentPreparation(
            fs, directory, segment_bytes, executor, preallocation
        )
        self._lead = FIRST_LEAD_BYTES
        self._zeroing = self._preparation.write_zeros(self._tail.path, offset)
        metrics.segments.set(len(files))

    @property
    def failure(self) -> BaseException | None:
        """The error after which the log refuses every call, if there was one."""
        return self._failure

    @contextlib.contextmanager
    def final_if_it_fails(self) -> Iterator[None]:
        """Whatever interrupts a write or its bookkeeping is as final as a failed sync.

        An interrupt between the two would leave the checksum chain, or the offset, at
        another place than the file.
        """
        try:
            yield
        except BaseException as error:
            if self._failure is None:
                self._failure = error
            raise

    def check_usable(self) -> None:
        """Raises `ClosedError` or `WriteFailedError`."""
        if self._closed:
            raise ClosedError("the log is closed", path=self._directory)
        if self._failure is not None:
            raise WriteFailedError(
                f"the log refuses every call after a failure: {self._failure}",
                path=self._directory,
            ) from self._failure

    def add(self, record_type: int, data: bytes | None) -> None:
        """Queue one record for the next write."""
        if data is not None:
            self._crc = extend_crc(self._crc, data)
        frame = encode_frame(record_type, data, self._crc)
        self._queue(frame, (len(frame),))

    def add_entries(self, entries: Sequence[AnyEntry]) -> None:
        """Queue entries for the next write."""
        data, sizes, self._crc = encode_entries(entries, self._crc)
        self._queue(data, sizes)

    def add_crc(self) -> None:
        """Queue a record that states the chain's value, as each segment starts with."""
        frame = encode_frame(CRC, None, self._crc)
        self._queue(frame, (len(frame),))

    def _queue(self, frames: bytes | bytearray, sizes: Sequence[int]) -> None:
        self._pending.append(frames)
        self._handed_over.append(sizes, len(frames))

    @property
    def is_full(self) -> bool:
        """Whether the segment has reached its size, by etcd's rule."""
        return self._handed_over.offset >= self._segment_bytes

    def flush(self) -> None:
        """Hand what is queued to the system, without waiting for the disk."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        end = self._offset + len(data)
        if self._zeroing is not None and end > self._zeroing.frontier:
            self._have_zeros_begin_beyond(end)
        started = time.perf_counter()
        try:
            self._make_room(end)
            self._tail.write(self._offset, data)
        except OSError as error:
            raise self._fail("write", error) from error
        self._metrics.write_seconds.observe(time.perf_counter() - started)
        self._metrics.written_bytes.inc(len(data))
        self._offset += len(data)
        self._pending.clear()
        self._handed_over.flush()

    def _have_zeros_begin_beyond(self, end: int) -> None:
        """The records have caught up with the zeros, which must not get over them.

        Each time they get a longer lead, so that this happens only a few times a segment.
        """
        self._stop_zeros()
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
        """Write what is queued; when this returns, all of it is durable."""
        self.flush()
        started = time.perf_counter()
        try:
            self._tail.sync_data()
        except OSError as error:
            raise self._fail("data sync", error) from error
        self._note_sync(started)

    def _note_sync(self, started: float) -> None:
        elapsed = time.perf_counter() - started
        self._metrics.sync_seconds.observe(elapsed)
        if elapsed > SLOW_SYNC_SECONDS:
            log.warning("wal_slow_sync", path=self._tail.path, seconds=round(elapsed, 6))

    def cut(self, last_index: int, hard_state: HardState) -> None:
        """Close the tail segment and go on in a new one.

        The old segment is whole and durable before the new one gets its name, and the
        new one's header is durable before that too: a crash at any point leaves a log
        that ends where it did, or one with an empty segment more.
        """
        self.flush()
        self._stop_zeros()
        started = time.perf_counter()
        try:
            self._tail.truncate(self._offset)
            self._tail.sync()
            self._note_sync(started)
            file, self._zeroing = self._preparation.take()
        except OSError as error:
            raise self._fail("cut", error) from error
        previous, _ = self._files[-1]
        segment = SegmentName(previous.sequence + 1, last_index + 1)
        self._files.append((segment, file))
        self._offset = 0
        self._size = None
        self._lead = FIRST_LEAD_BYTES
        self._handed_over = HandedOver(0)
        self.add_header(hard_state)
        self.sync()
        path = os.path.join(self._directory, str(segment))
        try:
            self._fs.rename(file.path, path)
            self._fs.sync_directory(self._directory)
        except OSError as error:
            raise self._fail("cut", error) from error
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
                with self.final_if_it_fails():
                    self.sync()
        finally:
            self._closed = True
            for _, file in self._files:
                file.close()
            self._preparation.close()

    @property
    def _tail(self) -> File:
        return self._files[-1][1]

    def _fail(self, call: str, error: OSError) -> WriteFailedError:
        self._failure = error
        self._preparation.write_no_more_zeros()
        log.error("wal_failed", path=self._tail.path, call=call, error=str(error))
        return WriteFailedError(
            f"{call} failed: {error.strerror or error}",
            path=self._tail.path,
            offset=self._offset,
        )
