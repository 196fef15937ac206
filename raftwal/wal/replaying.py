"""A log's entries one after another, in memory that does not grow with their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from raftwal.errors import TornTailError
from raftwal.fs import FileSystem
from raftwal.model import MAX_UINT64, Entry, HardState, SnapshotMetadata
from raftwal.wal.interpreting import Interpreter, LogContents, interpret
from raftwal.wal.records import RecordStream
from raftwal.wal.segments import SegmentName


class Replay:
    """The entries that follow on a start snapshot, as an iterable; made by ``replay()``.

    The log is read when this is made, to the end, and every record is checked: what is
    wrong with it is raised there, before any entry is given, and which entries a later
    one replaced is known from then on.  Each iteration reads the log once more and gives
    the others.  Memory: one segment's bytes, and a few numbers for each place where the
    log was cut back.

    Entries that do not follow on the start snapshot (`LogContents.stale_entries`) are not
    among them.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        segments: list[SegmentName],
        start: SnapshotMetadata | None,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._segments = segments
        self._start = start
        stream = RecordStream(fs, directory, segments)
        outline = _Outline(stream, segments[0], start)
        deque(interpret(stream, outline), maxlen=0)
        self.contents: LogContents = outline.contents()
        """As `read_all` gives them, but for the entries."""
        self._length = outline.length
        self._takes = outline.takes
        # What is appended from now on is not part of it.
        self._cuts = [*outline.cuts, (outline.takes, outline.length)]
        self.end = outline.end()
        """Where appending goes on."""

    @property
    def metadata(self) -> bytes | None:
        """What the log was created with."""
        return self.contents.metadata

    @property
    def hard_state(self) -> HardState:
        """The last one saved; empty when there was none."""
        return self.contents.hard_state

    @property
    def snapshots(self) -> list[SnapshotMetadata]:
        """The snapshot records from the start on."""
        return self.contents.snapshots

    @property
    def valid_snapshots(self) -> list[SnapshotMetadata]:
        """Those that the log vouches for: not above its commit index."""
        return self.contents.valid_snapshots

    @property
    def torn_tail(self) -> TornTailError | None:
        """Describes a torn tail that the log ends with, or is ``None``."""
        return self.contents.torn_tail

    def __len__(self) -> int:
        """How many entries an iteration gives."""
        return self._length - self.contents.stale_entries

    def __iter__(self) -> Iterator[Entry]:
        """Reads the log again.  Raises `CorruptionError` and `ReadFailedError`, should it
        have changed meanwhile; what was appended meanwhile is not given.
        """
        stream = RecordStream(self._fs, self._directory, self._segments)
        survivors = _Survivors(
            stream,
            self._segments[0],
            self._start,
            deque(self._cuts),
            self.contents.stale_entries,
        )
        if not self._takes:
            return
        for _ in interpret(stream, survivors):
            yield from survivors.entries_so_far()
            if survivors.takes == self._takes:
                break


class _Outline(Interpreter):
    """Keeps no entry, but where the log was cut back."""

    def __init__(
        self, stream: RecordStream, first_segment: SegmentName, start: SnapshotMetadata | None
    ) -> None:
        super().__init__(stream, first_segment, start)
        self.takes = 0
        """How often entries were taken: the records and runs of them."""
        self.cuts: list[tuple[int, int]] = []
        """Before which of them the log was cut back, and to how many entries: both rise,
        since a later cut to fewer makes the ones before it needless."""

    @property
    def first_kept(self) -> int:
        return MAX_UINT64

    def _take(self, kept: list[Entry], first: int, last: int, terms: list[tuple[int, int]]) -> None:
        super()._take([], first, last, terms)
        self.takes += 1

    def _cut_to(self, length: int) -> None:
        super()._cut_to(length)
        while self.cuts and self.cuts[-1][1] >= length:
            self.cuts.pop()
        self.cuts.append((self.takes, length))


class _Survivors(Interpreter):
    """Keeps the entries that no later one replaced, until they are asked for."""

    def __init__(
        self,
        stream: RecordStream,
        first_segment: SegmentName,
        start: SnapshotMetadata | None,
        cuts: deque[tuple[int, int]],
        stale_entries: int,
    ) -> None:
        super().__init__(stream, first_segment, start)
        self._cuts = cuts
        self._first = stale_entries
        self.takes = 0

    def entries_so_far(self) -> list[Entry]:
        """Those since the last call."""
        entries, self.entries = self.entries, []
        return entries

    def _take(self, kept: list[Entry], first: int, last: int, terms: list[tuple[int, int]]) -> None:
        while self._cuts and self._cuts[0][0] <= self.takes:
            self._cuts.popleft()
        super()._take(kept, first, last, terms)
        self.takes += 1

    def _cut_to(self, length: int) -> None:
        # What is cut off was not kept.
        self._length = length

    def _keep(self, entries: list[Entry]) -> None:
        end = self._length
        begin = end - len(entries)
        stands = self._cuts[0][1]
        self.entries += entries[max(0, self._first - begin) : max(0, stands - begin)]
