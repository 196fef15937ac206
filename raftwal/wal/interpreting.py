"""What the records of a log mean: from their stream to a hard state, entries and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftwal.errors import (
    CorruptionError,
    EntryGapError,
    EntryTermError,
    HardStateOrderError,
    MetadataConflictError,
    RecordFormatError,
    SnapshotMismatchError,
    SnapshotNotFoundError,
    TornTailError,
)
from raftwal.model import EMPTY_HARD_STATE, Entry, HardState, SnapshotMetadata
from raftwal.wal.records import Position, RecordStream
from raftwal.wal.segments import SegmentName
from raftwal.wal.terms import TermHistory
from raftwal.wire.entries import EntryRun
from raftwal.wire.frames import ENTRY, HARD_STATE, METADATA, SNAPSHOT
from raftwal.wire.messages import decode_entry, decode_hard_state, decode_snapshot_record


class LogContents(NamedTuple):
    """What a log holds from its start snapshot on.

    ``metadata`` is what the log was created with; ``hard_state`` the last one saved
    (empty when there was none); ``entries`` follow on the start snapshot, or on the
    first entry of the log when it was read whole; ``snapshots`` are the snapshot
    records passed on the way; ``torn_tail`` describes a torn tail that reading stopped
    in front of, or is ``None``.  ``stale_entries`` counts those at the front of
    ``entries`` that do not follow on the start snapshot: the log held another term at its
    index when its record came, or an entry up to there was written anew behind them, which
    cut them off.  etcd's ``ReadAll`` gives those, too; a node must not go on with them.
    ``snapshot_segments`` names, for each of ``snapshots``, the segment that its record is in.
    """

    metadata: bytes | None
    hard_state: HardState
    entries: list[Entry]
    snapshots: list[SnapshotMetadata]
    torn_tail: TornTailError | None
    stale_entries: int
    snapshot_segments: list[str]

    @property
    def valid_snapshots(self) -> list[SnapshotMetadata]:
        """The snapshots that the log vouches for: not above its commit index."""
        commit = self.hard_state.commit
        return [snapshot for snapshot in self.snapshots if snapshot.index <= commit]


class LogEnd(NamedTuple):
    """Where appending goes on: the end of the last whole record, and the chain there.

    ``last_index`` is that of the last entry written, or of the start snapshot.
    """

    position: Position
    crc: int
    is_clean: bool
    last_index: int
    terms: TermHistory


class Interpreter:
    """The rules of the format for what follows what."""

    def __init__(
        self, stream: RecordStream, first_segment: SegmentName, start: SnapshotMetadata | None
    ) -> None:
        self._stream = stream
        self._start = start
        self._metadata: bytes | None = None
        self._metadata_seen = False
        self._hard_state = EMPTY_HARD_STATE
        self.entries: list[Entry] = []
        self._length = 0
        self._snapshots: list[SnapshotMetadata] = []
        self._snapshot_indexes: set[int] = set()
        self._snapshot_segments: list[str] = []
        self._start_found = False
        self._term_logged_at_start: int | None = None
        self._stale_entries = 0
        self._terms = TermHistory()
        self._last_written_index = start.index if start is not None else 0
        # An index below which nothing was read yet: that of the start snapshot, or
        # unknown until the first entry when the log is read whole.
        self._base: int | None = start.index if start is not None else None
        if first_segment.sequence == 0:
            self._base = self._base or 0
        self._snapshot_reached = self._base or 0
        # A segment is named after the entry that follows those before it.
        stream.last_index = max(self._base or 0, first_segment.index - 1)

    def placed(
        self, error: type[CorruptionError], what: str, index: int | None = None
    ) -> CorruptionError:
        """An error about the record at hand, to be raised."""
        path, offset = self._stream.position
        return error(what, path=path, offset=offset, index=index)

    def metadata_record(self, data: bytes | None) -> None:
        """Take a metadata record.  Raises `MetadataConflictError`."""
        if self._metadata_seen and data != self._metadata:
            raise self.placed(MetadataConflictError, "metadata that differs from what came before")
        self._metadata = data
        self._metadata_seen = True

    @property
    def first_kept(self) -> int:
        """The index of the first entry whose data is of any use here."""
        return 0 if self._start is None else self._start.index + 1

    def entry_record(self, data: bytes | None) -> None:
        """Take an entry.  Raises `RecordFormatError`, and as `entry_run` does."""
        entry = decode_entry(data or b"")
        if entry.index == 0:
            # Nothing stands at index 0; etcd writes such entries in its tests, and skips them.
            return
        self._take([entry], entry.index, entry.index, [(entry.index, entry.term)])

    def entry_run(self, run: EntryRun) -> None:
        """Take entries that follow on each other.  Raises `EntryTermError`, `EntryGapError`."""
        self._take(run.entries, run.first_index, run.first_index + run.total - 1, run.terms)

    def _take(self, kept: list[Entry], first: int, last: int, terms: list[tuple[int, int]]) -> None:
        """Entries from index ``first`` to ``last``, of which the last ones are ``kept``."""
        lowest = self._terms.at(first - 1)
        term = terms[0][1]
        if term < lowest:
            raise self.placed(
                EntryTermError, f"an entry of term {term} follows one of term {lowest}", first
            )
        self._terms.write_run(terms, last)
        self._last_written_index = last
        if self._base is None or self._jumps_over_snapshot(first):
            self._base = first - 1
            self._cut_to(0)
        if first <= self._base:
            # Covered by the start snapshot.  Remember whether the log agrees with it.
            if last >= self._base:
                self._term_logged_at_start = self._terms.at(self._base)
            # Rewritten after what follows on the snapshot was read: that was cut off then.
            self._stale_entries = self._length
            if last <= self._base:
                return
            first = self._base + 1
        position = first - self._base - 1
        if position < self._length:
            # An index that was written before: the log was cut back to here.
            self._cut_to(position)
            self._stale_entries = min(self._stale_entries, position)
        elif position > self._length:
            raise self.placed(
                EntryGapError,
                f"entry {first} follows entry {self._base + self._length}: entries are missing",
                first,
            )
        self._length += last - first + 1
        # A run can begin with entries that the start snapshot covers.
        self._keep(kept[first - kept[0].index :] if kept and kept[0].index < first else kept)
        self._stream.last_index = max(last, self._snapshot_reached)

    def _cut_to(self, length: int) -> None:
        """Of the entries read so far, the first ``length`` still stand."""
        self._length = length
        del self.entries[length:]

    def _keep(self, entries: list[Entry]) -> None:
        self.entries += entries

    def _jumps_over_snapshot(self, index: int) -> bool:
        """Whether the entries before ``index`` are in a snapshot received from a peer.

        Only a log that is read whole can be read across such a jump.
        """
        if self._start is not None or self._base is None:
            return False
        is_gap = index > self._base + self._length + 1
        return is_gap and index - 1 in self._snapshot_indexes

    def hard_state_record(self, data: bytes | None) -> None:
        """Take a hard state.  Raises `RecordFormatError`, `HardStateOrderError`."""
        state = decode_hard_state(data or b"")
        if state == self._hard_state:
            # A cut repeats it, and entries of a later term may have been saved since.
            return
        lowest = max(self._hard_state.term, self._terms.replacing_term)
        if state.term < lowest:
            raise self.placed(
                HardStateOrderError, f"a hard state of term {state.term} after term {lowest}"
            )
        self._hard_state = self._stream.hard_state = state

    def snapshot_record(self, data: bytes | None) -> None:
        """Take a snapshot record.  Raises `RecordFormatError`, `SnapshotMismatchError`."""
        snapshot = decode_snapshot_record(data or b"")
        self._snapshots.append(snapshot)
        self._snapshot_indexes.add(snapshot.index)
        self._snapshot_segments.append(self._stream.segment)
        self._terms.write_snapshot(snapshot.index, snapshot.term)
        self._snapshot_reached = max(self._snapshot_reached, snapshot.index)
        self._stream.last_index = max(self._stream.last_index, snapshot.index)
        start = self._start
        if start is None or snapshot.index != start.index:
            return
        if snapshot.term != start.term:
            raise self.placed(
                SnapshotMismatchError,
                f"the log has this snapshot with term {snapshot.term}, not {start.term}",
                start.index,
            )
        self._start_found = True
        logged = self._term_logged_at_start
        if logged is not None and logged != snapshot.term:
            self._stale_entries = self._length

    @property
    def length(self) -> int:
        """How many entries there are after the start, as far as was read."""
        return self._length

    def contents(self) -> LogContents:
        """What the log holds.  Raises `SnapshotNotFoundError`."""
        if self._start is not None and not self._start_found:
            raise SnapshotNotFoundError(
                "the log has no record of the snapshot to start from",
                path=self._stream.end.path,
                index=self._start.index,
            )
        return self.gathered()

    def gathered(self) -> LogContents:
        """What was read so far, whether or not the start snapshot was among it."""
        return LogContents(
            self._metadata,
            self._hard_state,
            self.entries,
            self._snapshots,
            self._stream.torn_tail,
            self._stale_entries,
            self._snapshot_segments,
        )

    def end(self) -> LogEnd:
        """Where appending goes on."""
        stream = self._stream
        return LogEnd(
            stream.end,
            stream.crc,
            stream.end_is_clean,
            # A received snapshot is ahead of the entries before its record.
            max(self._last_written_index, 0 if self._start is None else self._start.index),
            self._terms,
        )


def interpret(stream: RecordStream, interpreter: Interpreter) -> Iterator[None]:
    """Give the interpreter one record, or one run of entries, in each step.

    Raises the subclasses of `CorruptionError`, and `ReadFailedError`.
    """
    handlers: dict[int, Callable[[bytes | None], None]] = {
        METADATA: interpreter.metadata_record,
        ENTRY: interpreter.entry_record,
        HARD_STATE: interpreter.hard_state_record,
        SNAPSHOT: interpreter.snapshot_record,
    }
    for record in stream.runs(interpreter.first_kept):
        if isinstance(record, EntryRun):
            interpreter.entry_run(record)
        elif (handler := handlers.get(record.type)) is not None:
            try:
                handler(record.data)
            except RecordFormatError as error:
                raise interpreter.placed(RecordFormatError, error.what) from error
        yield
