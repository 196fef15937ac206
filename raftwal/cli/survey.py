"""Everything that can be told about a directory without changing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from raftwal.cli.directory import Directory
from raftwal.errors import (
    CommitBeyondLogError,
    CorruptionError,
    MissingSegmentError,
    RaftwalError,
    ReadFailedError,
    SnapshotAheadOfLogError,
    SnapshotFileError,
    SnapshotNotFoundError,
)
from raftwal.fs import DISK
from raftwal.model import SnapshotMetadata
from raftwal.snapshots import SnapshotName, Snapshotter
from raftwal.wal.interpreting import LogContents
from raftwal.wal.reading import read_until_damage
from raftwal.wal.records import RecordStream
from raftwal.wal.segments import SegmentName, segments_from
from raftwal.wire.frames import SNAPSHOT
from raftwal.wire.messages import decode_snapshot_record

WHOLE = "whole"
BROKEN = "broken"


class SnapshotFile(NamedTuple):
    """One file in ``snap/``; ``error`` says why it is broken, or could not be read."""

    name: SnapshotName
    path: str
    size: int
    error: SnapshotFileError | ReadFailedError | None

    @property
    def state(self) -> str:
        """`WHOLE` or `BROKEN`."""
        return WHOLE if self.error is None else BROKEN


class Survey(NamedTuple):
    """``problems`` are in the order found; none means that all of it is sound.

    ``contents`` is what was read before the first of them.  ``snapshot_files`` is
    ``None`` when only a log was pointed at.
    """

    segments: list[SegmentName]
    contents: LogContents
    snapshot_files: list[SnapshotFile] | None
    problems: list[RaftwalError]

    def snapshot_file(self, snapshot: SnapshotMetadata) -> SnapshotFile | None:
        """The file of a snapshot that the log records, if there is one."""
        wanted = (snapshot.term, snapshot.index)
        return next((file for file in self.snapshot_files or () if file.name == wanted), None)

    def vouches_for(self, name: SnapshotName) -> bool:
        """Whether the log records this snapshot at or below its commit index."""
        return any(
            (snapshot.term, snapshot.index) == name for snapshot in self.contents.valid_snapshots
        )


def survey(
    directory: Directory,
    *,
    from_snapshot: int | None = None,
    wants_data: Callable[[int], bool] = lambda index: False,
) -> Survey:
    """Read the log, whole or as a node that starts from a snapshot does, and each snapshot.

    Holds the data of those entries only whose index ``wants_data`` accepts.

    Raises `NotAWalError` and `SnapshotNotFoundError` when the log does not reach back
    to, or has no record of, the snapshot with index ``from_snapshot``.
    """
    segments = directory.segments
    missing: MissingSegmentError | None = None
    try:
        segments = segments_from(directory.log, segments, from_snapshot)
    except MissingSegmentError as caught:
        if from_snapshot is not None:
            raise
        missing = caught
        segments = _before_gap(segments)
    start = None if from_snapshot is None else _recorded(directory.log, segments, from_snapshot)
    contents, _, error = read_until_damage(
        DISK, directory.log, segments, start, wants_data=wants_data
    )
    # Those before a start snapshot that contradicts them are no part of the log.
    contents = contents._replace(
        entries=contents.entries[contents.stale_entries :], stale_entries=0
    )
    files = None if directory.snapshots is None else _check_files(directory.snapshots)
    problems: list[RaftwalError] = [] if error is None else [error]
    if missing is not None:
        # Without what follows, the end of what was read says nothing.
        contents = contents._replace(torn_tail=None)
        problems.append(missing)
    if contents.torn_tail is not None:
        problems.append(contents.torn_tail)
    problems.extend(file.error for file in files or () if file.error is not None)
    result = Survey(segments, contents, files, problems)
    if error is None and missing is None:
        problems.extend(_contradictions(directory, result, start))
    return result


def _before_gap(segments: list[SegmentName]) -> list[SegmentName]:
    first = segments[0].sequence
    return [s for number, s in enumerate(segments) if s.sequence == first + number]


def _recorded(log: str, segments: list[SegmentName], index: int) -> SnapshotMetadata:
    """The last record of a snapshot with this index."""
    stream = RecordStream(DISK, log, segments)
    found = None
    try:
        for record in stream:
            if record.type == SNAPSHOT:
                snapshot = decode_snapshot_record(record.data or b"")
                stream.last_index = max(stream.last_index, snapshot.index)
                found = snapshot if snapshot.index == index else found
    except (CorruptionError, ReadFailedError):
        # The reading proper meets it again, and says what it is.
        pass
    if found is None:
        raise SnapshotNotFoundError(f"the log has no record of a snapshot {index}", path=log)
    return found


def _check_files(snapshotter: Snapshotter) -> list[SnapshotFile]:
    files = []
    for name in snapshotter.names():
        path = snapshotter.path_of(name)
        error: SnapshotFileError | ReadFailedError | None = None
        size = 0
        try:
            size = os.stat(path).st_size
            snapshotter.open(name).close()
        except (SnapshotFileError, ReadFailedError) as caught:
            error = caught
        except OSError as caught:
            error = ReadFailedError(f"cannot read the snapshot: {caught.strerror}", path=path)
        files.append(SnapshotFile(name, path, size, error))
    return files


def _contradictions(
    directory: Directory, result: Survey, start: SnapshotMetadata | None
) -> list[CorruptionError]:
    """Where log and snapshots, each sound in itself, do not make one node's state."""
    contents = result.contents
    files_count = result.snapshot_files is not None and start is None
    reached = 0
    for snapshot in contents.snapshots:
        file = result.snapshot_file(snapshot)
        if not files_count or (file is not None and file.error is None):
            reached = max(reached, snapshot.index)
    if contents.entries:
        reached = max(reached, contents.entries[-1].index)
    problems: list[CorruptionError] = []
    commit = contents.hard_state.commit
    if commit > reached:
        problems.append(
            CommitBeyondLogError(
                f"the log commits index {commit} but ends at {reached}",
                path=directory.log,
                index=commit,
            )
        )
    first = result.segments[0]
    if files_count and first.index > 0:
        usable = (
            file
            for file in result.snapshot_files or ()
            if file.error is None
            and file.name.index >= first.index
            and result.vouches_for(file.name)
        )
        if next(usable, None) is None:
            problems.append(
                SnapshotAheadOfLogError(
                    f"the log starts at index {first.index}, and no snapshot from there on is "
                    "whole and vouched for",
                    path=directory.log,
                    advice="Put the missing snapshot file back; otherwise empty this node's "
                    "data directory and let it rejoin from its peers",
                )
            )
    return problems
