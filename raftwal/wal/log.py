"""`WAL`: create, open, save, cut, release, close."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from raftwal.errors import (
    ClosedError,
    NotReadYetError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.fs import DISK, File, FileSystem
from raftwal.metrics import NO_WAL_METRICS, WALMetrics
from raftwal.model import (
    EMPTY_HARD_STATE,
    START_OF_LOG,
    Entry,
    HardState,
    SnapshotMetadata,
)
from raftwal.wal.admission import check_settings
from raftwal.wal.admitted import Admitted
from raftwal.wal.admitting import Admission, Gate
from raftwal.wal.appending import Appender
from raftwal.wal.creation import create_log, lock_segments
from raftwal.wal.direct import direct_saves
from raftwal.wal.group_commit import GroupCommit
from raftwal.wal.interpreting import LogContents, LogEnd
from raftwal.wal.reading import WALReader, read_log
from raftwal.wal.replaying import Replay
from raftwal.wal.segments import (
    DEFAULT_SEGMENT_BYTES,
    SegmentName,
    is_wal_directory,
    list_segments,
    segments_from,
)
from raftwal.wal.zeroing import DEFAULT_PREALLOCATION, Preallocation, check_preallocation

if TYPE_CHECKING:
    from raftwal.native._codec import Tail


class WAL:
    """A write-ahead log in etcd's on-disk format, open for appending.

    Made by `WAL.create` or `WAL.open`; `WAL.open_for_read` gives a reader.  A log that
    was opened must be read to its end with `read_all` before the first save.

    Threads may share it from then on: saves take effect in the order in which they are
    called, and those that wait for the disk at the same time share one write and one sync.

    After a failed write or sync every further call raises `WriteFailedError`.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        files: list[tuple[SegmentName, File]],
        start: SnapshotMetadata,
        segment_bytes: int,
        metrics: WALMetrics,
        executor: Executor | None,
        preallocation: Preallocation,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._files = files
        self._start = start
        self._segment_bytes = segment_bytes
        self._metrics = metrics
        self._executor = executor
        self._preallocation: Preallocation = preallocation
        self._appender: Appender | None = None
        self._reading: tuple[LogContents, LogEnd] | None = None
        self._group: GroupCommit | None = None
        self._opening_failure: OSError | None = None
        self._tail: Tail | None = None
        self._admission: Admission | None = None
        self._closed = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        metadata: bytes | None = None,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        fs: FileSystem = DISK,
        metrics: WALMetrics = NO_WAL_METRICS,
        executor: Executor | None = None,
        preallocation: Preallocation = DEFAULT_PREALLOCATION,
    ) -> WAL:
        """Make a new log in the directory ``path`` and open it for appending.

        Atomic: it is made in ``<path>.tmp``, synced, then renamed; a crash leaves
        either no log or a whole one.  ``metadata`` is kept in every segment.
        ``segment_bytes`` is the size at which a segment is cut.  ``preallocation`` says how
        a segment gets its space ahead of need: ``"zeros"`` has it written in the
        background, so that the sync of a save has data to write and nothing else;
        ``"reserve"``, as in etcd, has the file system set it aside.

        Raises ``FileExistsError`` when ``path`` exists and is not an empty directory,
        `InvalidSettingError`, `ReadFailedError` and `WriteFailedError`.
        """
        # Absolute: the application may change its directory while the log is open.
        directory = os.path.abspath(path)
        check_settings(segment_bytes, metadata)
        check_preallocation(preallocation)
        made = create_log(fs, directory, metadata, segment_bytes, preallocation)
        files = [(made.name, made.file)]
        wal = cls(
            fs, directory, files, START_OF_LOG, segment_bytes, metrics, executor, preallocation
        )
        wal._start_appending(Admitted(), metadata, made.offset, made.crc)
        log.info("wal_created", path=directory, segment_bytes=segment_bytes)
        return wal

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        snapshot: SnapshotMetadata | None = None,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        fs: FileSystem = DISK,
        metrics: WALMetrics = NO_WAL_METRICS,
        executor: Executor | None = None,
        preallocation: Preallocation = DEFAULT_PREALLOCATION,
    ) -> WAL:
        """Open a log for appending, from ``snapshot`` (index and term) or the beginning.

        Takes the exclusive lock of every segment from there on; writes nothing yet.

        Raises `NotAWalError`, `MissingSegmentError`, `LockedError`, `ReadFailedError`.
        """
        directory = os.path.abspath(path)
        check_settings(segment_bytes, None)
        check_preallocation(preallocation)
        start = START_OF_LOG if snapshot is None else snapshot
        segments = segments_from(directory, list_segments(fs, directory), start.index)
        files = lock_segments(fs, directory, segments)
        return cls(fs, directory, files, start, segment_bytes, metrics, executor, preallocation)

    @staticmethod
    def open_for_read(
        path: str | os.PathLike[str],
        snapshot: SnapshotMetadata | None = None,
        *,
        fs: FileSystem = DISK,
    ) -> WALReader:
        """Open a log for reading, from ``snapshot`` or the beginning: no lock, no writes.

        Raises `NotAWalError`, `MissingSegmentError`, `ReadFailedError`.
        """
        return WALReader(os.path.abspath(path), START_OF_LOG if snapshot is None else snapshot, fs)

    def read_all(self) -> LogContents:
        """Everything from the start snapshot on; the log is then ready for appending.

        Whatever an unfinished write left beyond the end is zeroed, so that it can never
        be taken for a record, and all that was read is made durable: a node that was
        killed may have left it to the system, and now builds its promises on it.

        Raises the subclasses of `CorruptionError`, `TornTailError` (see
        `raftwal.repair`), `ReadFailedError`, `WriteFailedError`, and `ClosedError`
        when the log was read before.
        """
        contents = self.inspect()
        assert self._reading is not None  # `inspect` made it
        _, end = self._reading
        # The caller's alone from here on: it may be as large as the log.
        self._reading = None
        self._go_on(contents, end, len(contents.entries))
        return contents

    def replay(self) -> Replay:
        """As `read_all`, but the entries one after another, in constant memory.

        The log is then ready for appending; what is appended is not among the entries.

        Raises as `read_all` does.
        """
        self._check_unread()
        segments = [segment for segment, _ in self._files]
        replay = Replay(self._fs, self._directory, segments, self._start)
        self._go_on(replay.contents, replay.end, len(replay))
        return replay

    def _go_on(self, contents: LogContents, end: LogEnd, entries: int) -> None:
        if contents.torn_tail is not None:
            raise contents.torn_tail
        self._settle(end)
        admitted = Admitted(contents.hard_state, end.last_index, end.terms)
        appender = self._start_appending(admitted, contents.metadata, end.position.offset, end.crc)
        if end.position.offset == 0:
            appender.add_header(contents.hard_state)
        log.info(
            "wal_opened",
            path=self._directory,
            segments=len(self._files),
            entries=entries,
            last_index=end.last_index,
            term=contents.hard_state.term,
            commit=contents.hard_state.commit,
        )

    def _check_unread(self) -> None:
        if self._closed:
            raise ClosedError("the log is closed", path=self._directory)
        self._check_opening()
        if self._appender is not None:
            raise ClosedError("the log was read already", path=self._directory)

    def inspect(self) -> LogContents:
        """What `read_all` is going to give, before anything is written.

        A torn tail is told in it, not raised.  The log is read once, however often this and
        `read_all` are called.

        Raises the subclasses of `CorruptionError`, `ReadFailedError`, and `ClosedError` when
        `read_all` was called before.
        """
        self._check_unread()
        if self._reading is None:
            segments = [segment for segment, _ in self._files]
            self._reading = read_log(self._fs, self._directory, segments, self._start)
        return self._reading[0]

    def _settle(self, end: LogEnd) -> None:
        _, tail = self._files[-1]
        try:
            if not end.is_clean:
                size = tail.size()
                tail.truncate(end.position.offset)
                tail.allocate(size)
            tail.sync()
            self._fs.sync_directory(self._directory)
            self._fs.sync_directory(os.path.dirname(os.path.abspath(self._directory)))
        except OSError as error:
            self._opening_failure = error
            raise WriteFailedError(
                f"cannot make the log durable that was read: {error.strerror or error}",
                path=tail.path,
                offset=end.position.offset,
            ) from error
        if not end.is_clean:
            log.info("wal_remains_cleared", path=tail.path, offset=end.position.offset)

    def _check_opening(self) -> None:
        if self._opening_failure is not None:
            raise WriteFailedError(
                f"the log refuses every call after a failure: {self._opening_failure}",
                path=self._directory,
            ) from self._opening_failure

    def _start_appending(
        self, admitted: Admitted, metadata: bytes | None, offset: int, crc: int
    ) -> Appender:
        appender = self._appender = Appender(
            self._fs,
            self._directory,
            self._files,
            offset=offset,
            crc=crc,
            metadata=metadata,
            segment_bytes=self._segment_bytes,
            metrics=self._metrics,
            executor=self._executor,
            preallocation=self._preallocation,
        )
        direct = direct_saves(appender, admitted, self._metrics)
        self._tail = None if direct is None else direct.tail
        self._admission = Admission(appender, admitted, direct, self._metrics)
        self._group = GroupCommit(appender, direct, self._executor)
        return appender

    @property
    def hard_state(self) -> HardState:
        """The last hard state saved or read."""
        return EMPTY_HARD_STATE if self._admission is None else self._admission.hard_state

    @property
    def last_index(self) -> int:
        """The index of the last entry saved or read, or of a newer snapshot."""
        return 0 if self._admission is None else self._admission.last_index

    @property
    def failure(self) -> BaseException | None:
        """The error after which the log refuses every call, if there was one."""
        return self._appender.failure if self._appender is not None else self._opening_failure

    def check_usable(self) -> None:
        """Raises `ClosedError`, `NotReadYetError` or `WriteFailedError`, as a save would."""
        self._ready()

    def save(self, hard_state: HardState | None, entries: Iterable[Entry] = ()) -> None:
        """Append entries, then the hard state; durable when this returns.

        Entries follow on each other; the first follows on the last one saved or
        replaces an earlier one, and then everything after that is gone.  An empty or
        ``None`` hard state saves entries alone.  As in etcd, a save that only moves
        the commit index is not synced: its record goes out with the next that is.

        Raises `InvalidEntryError` before anything is written, `WriteFailedError` when
        a write or sync fails or has failed, `ClosedError`, `NotReadYetError`.
        """
        tail = self._tail
        if tail is not None:
            written = tail.save(hard_state, entries)
            if written is True:
                return
            if written is not False:
                self._grouped().told(written)
                return
        if not isinstance(entries, Sequence):
            entries = list(entries)
        self._grouped().save(self._admitting().save, hard_state, entries, None)

    def submit(
        self,
        hard_state: HardState | None,
        entries: Iterable[Entry] = (),
        callback: Callable[[Future[None]], object] | None = None,
    ) -> Future[None]:
        """As `save`, without the wait: the future is done when the save is durable.

        A save that only moves the commit index is done when those before it are.  The
        futures are done, and the callbacks called with them, in the order of the calls, in
        a thread of their own.  A future cannot be cancelled, and fails with
        `WriteFailedError`.  Who numbers entries holds a lock of its own around that and
        this call, and waits outside.

        Raises as `save` does, but for failures that are yet to come.
        """
        if not isinstance(entries, Sequence):
            entries = list(entries)
        return self._grouped().submit(callback, self._admitting().save, hard_state, entries, None)

    def save_next(self, number: Callable[[int], Sequence[Entry]]) -> Sequence[Entry]:
        """`save` entries that ``number`` makes, given the index of the first: they go on
        where the log ends, whoever else saves.  Returns them, durable.

        ``number`` is called while no other save can be: it must not call the log, nor
        take long.  Raises as `save` does, and what ``number`` raises.
        """
        return self.save_next_through(None, number)

    def save_next_through(
        self, gate: Gate | None, make: Callable[[int], Sequence[Entry]]
    ) -> Sequence[Entry]:
        """`save_next`, likewise."""
        made: list[Sequence[Entry]] = []
        self._grouped().save(self._admitting().save_made, make, made, gate)
        return made[0]

    def save_through(
        self, gate: Gate, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        """`save` for who keeps an account of the log beside it, which ``gate`` checks."""
        self._grouped().save(self._admitting().save, hard_state, entries, gate)

    def submit_through(
        self,
        gate: Gate,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        callback: Callable[[Future[None]], object] | None,
    ) -> Future[None]:
        """`submit`, likewise."""
        return self._grouped().submit(callback, self._admitting().save, hard_state, entries, gate)

    def alone(self) -> AbstractContextManager[None]:
        """While in this context, the thread has the log for itself; others wait to save."""
        return self._grouped().alone()

    def when_failed(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, in whatever thread, when the log has failed."""
        self._ready().when_failed = call

    def save_snapshot(self, snapshot: SnapshotMetadata) -> None:
        """Record that there is a snapshot; durable when this returns.

        Raises as `save` does.
        """
        self._grouped().save(self._admitting().snapshot, snapshot)

    def flush(self) -> None:
        """Hand records that wait for the next sync to the system, without a sync."""
        with self._grouped().alone():
            appender = self._ready()
            appender.take()
            try:
                appender.flush()
            except BaseException as error:
                appender.fail(error)
                raise

    def sync(self) -> None:
        """Make everything saved so far durable."""
        self._grouped().save(self._admitting().sync)

    def release_to(self, index: int) -> None:
        """Unlock the segments that hold nothing above ``index``, but for the last of them.

        They may then be removed: see `raftwal.wal.purging`.
        """
        with self._grouped().alone():
            self._ready().release_to(index)

    def reopen(self, snapshot: SnapshotMetadata | None = None) -> WAL:
        """Close this log and open it again from ``snapshot``, with the same settings.

        The one returned is to be read first.  Raises as `close` and `open` do.
        """
        self.close()
        return WAL.open(
            self._directory,
            snapshot,
            segment_bytes=self._segment_bytes,
            fs=self._fs,
            metrics=self._metrics,
            executor=self._executor,
            preallocation=self._preallocation,
        )

    def close(self) -> None:
        """Sync and close.  After a failure nothing is synced again.  Idempotent."""
        if self._closed:
            return
        if self._group is None or self._appender is None:
            self._closed = True
            for _, file in self._files:
                file.close()
        else:
            with self._group.alone():
                was_closed, self._closed = self._closed, True
                if not was_closed:
                    self._appender.close()
            self._group.close()
        log.info("wal_closed", path=self._directory)

    def __enter__(self) -> WAL:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _grouped(self) -> GroupCommit:
        group = self._group
        if group is None:
            self._ready()
            raise AssertionError("a log that is ready has it")
        return group

    def _admitting(self) -> Admission:
        admission = self._admission
        if admission is None:
            self._ready()
            raise AssertionError("a log that is ready has it")
        return admission

    def _ready(self) -> Appender:
        if self._closed:
            raise ClosedError("the log is closed", path=self._directory)
        appender = self._appender
        if appender is None:
            self._check_opening()
            raise NotReadYetError("the log was not read yet", path=self._directory)
        appender.check_usable()
        return appender


def wal_exists(path: str | os.PathLike[str], *, fs: FileSystem = DISK) -> bool:
    """Whether ``path`` is a directory with at least one segment in it."""
    return is_wal_directory(fs, os.fspath(path))
