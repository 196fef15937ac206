"""The read side: all that a log holds, read at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from raftwal.errors import CorruptionError, ReadFailedError
from raftwal.fs import DISK, FileSystem
from raftwal.model import Entry, SnapshotMetadata
from raftwal.wal.interpreting import Interpreter, LogContents, LogEnd, interpret
from raftwal.wal.records import RecordStream
from raftwal.wal.replaying import Replay
from raftwal.wal.segments import SegmentName, list_segments, segments_from


def read_log(
    fs: FileSystem, directory: str, segments: list[SegmentName], start: SnapshotMetadata | None
) -> tuple[LogContents, LogEnd]:
    """Read ``segments`` from the snapshot ``start``, or whole for ``None``.

    Raises the subclasses of `CorruptionError`, and `ReadFailedError`.
    """
    stream = RecordStream(fs, directory, segments)
    interpreter = Interpreter(stream, segments[0], start)
    deque(interpret(stream, interpreter), maxlen=0)
    return interpreter.contents(), interpreter.end()


def read_until_damage(
    fs: FileSystem,
    directory: str,
    segments: list[SegmentName],
    start: SnapshotMetadata | None = None,
    *,
    wants_data: Callable[[int], bool] = lambda index: True,
) -> tuple[LogContents, LogEnd, CorruptionError | ReadFailedError | None]:
    """As `read_log`, but what was read before the damage, and the error that says what it is.

    For someone who looks into a damaged log; a node must never go on from it.  Entries
    whose index is not among those that ``wants_data`` accepts come without their data.
    """
    stream = RecordStream(fs, directory, segments)
    interpreter = _Outliner(stream, segments[0], start, wants_data)
    error: CorruptionError | ReadFailedError | None = None
    try:
        deque(interpret(stream, interpreter), maxlen=0)
        interpreter.contents()
    except (CorruptionError, ReadFailedError) as caught:
        error = caught
    return interpreter.gathered(), interpreter.end(), error


class _Outliner(Interpreter):
    """Keeps the data of some entries only: the rest may be too much to hold."""

    def __init__(
        self,
        stream: RecordStream,
        first_segment: SegmentName,
        start: SnapshotMetadata | None,
        wants_data: Callable[[int], bool],
    ) -> None:
        super().__init__(stream, first_segment, start)
        self._wants_data = wants_data

    def _keep(self, entries: list[Entry]) -> None:
        super()._keep(
            [
                entry if self._wants_data(entry.index) else entry._replace(data=None)
                for entry in entries
            ]
        )


class WALReader:
    """A log open for reading: takes no lock, never writes.  See `raftwal.WAL.open_for_read`."""

    def __init__(
        self, directory: str, snapshot: SnapshotMetadata | None, fs: FileSystem = DISK
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._start = snapshot
        index = snapshot.index if snapshot is not None else None
        self._segments = segments_from(directory, list_segments(fs, directory), index)

    def read_all(self) -> LogContents:
        """Everything from the start snapshot up to the end, or to a torn tail.

        Raises the subclasses of `CorruptionError`, and `ReadFailedError`.
        """
        contents, _ = read_log(self._fs, self._directory, self._segments, self._start)
        return contents

    def replay(self) -> Replay:
        """The entries of `read_all`, one after another, in constant memory.

        Raises as `read_all` does.
        """
        return Replay(self._fs, self._directory, self._segments, self._start)

    def close(self) -> None:
        """Nothing is held open; here so that readers and writers close alike."""

    def __enter__(self) -> WALReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read_whole_log(fs: FileSystem, directory: str) -> tuple[LogContents, LogEnd]:
    """The log from its first segment on, wherever that starts."""
    segments = segments_from(directory, list_segments(fs, directory), None)
    return read_log(fs, directory, segments, None)
