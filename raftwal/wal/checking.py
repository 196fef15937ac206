"""Checking and mending a log that nobody has open: verify, repair, valid_snapshots."""

from __future__ import annotations

import os
from typing import NamedTuple

from raftwal.errors import LockedError, TornTailError, WriteFailedError
from raftwal.events import log
from raftwal.fs import DISK, File, FileSystem, copy_file
from raftwal.model import START_OF_LOG, HardState, SnapshotMetadata
from raftwal.wal.replaying import Replay
from raftwal.wal.segments import list_segments, segments_from


class VerifyReport(NamedTuple):
    """What a check found: every record is sound up to the end, or to ``torn_tail``."""

    segments: int
    entries: int
    hard_state: HardState
    snapshots: list[SnapshotMetadata]
    torn_tail: TornTailError | None


class RepairReport(NamedTuple):
    """What a repair did.

    ``removed_bytes`` were cut from ``segment`` at ``offset`` after the whole file was
    copied to ``set_aside``; ``reason`` says what was found there.  All are empty when the
    log ended cleanly.
    """

    repaired: bool
    segment: str = ""
    offset: int = 0
    removed_bytes: int = 0
    set_aside: str = ""
    reason: str = ""


def verify(
    path: str | os.PathLike[str],
    snapshot: SnapshotMetadata | None = None,
    *,
    fs: FileSystem = DISK,
) -> VerifyReport:
    """Read the log from ``snapshot``, or its beginning, and check every record.

    Reads only, and takes no lock.  A torn tail is reported, not raised.  The log of a
    node that was sent a snapshot by a peer may begin with that: it is sound, although
    no node can start from its beginning.

    Raises the subclasses of `CorruptionError`, `NotAWalError`, `ReadFailedError`.
    """
    index = START_OF_LOG.index if snapshot is None else snapshot.index
    directory = os.fspath(path)
    segments = segments_from(directory, list_segments(fs, directory), index)
    # Entries themselves are of no use here, and may be more than memory holds.
    replay = Replay(fs, directory, segments, snapshot)
    return VerifyReport(
        len(segments),
        len(replay) + replay.contents.stale_entries,
        replay.hard_state,
        replay.valid_snapshots,
        replay.torn_tail,
    )


def valid_snapshots(
    path: str | os.PathLike[str], *, fs: FileSystem = DISK
) -> list[SnapshotMetadata]:
    """The snapshots that the log vouches for, oldest first: recorded, and not above the
    commit index.

    Raises as `verify` does.
    """
    return _read_from(fs, os.fspath(path), None).valid_snapshots


def repair(
    path: str | os.PathLike[str],
    snapshot: SnapshotMetadata | None = None,
    *,
    fs: FileSystem = DISK,
) -> RepairReport:
    """Cut off a torn tail, after setting the whole segment aside as ``<name>.broken``.

    The log is checked from its first segment before anything is touched, or from the one
    that a start from ``snapshot`` begins in.  Does nothing to a log that ends cleanly.

    Raises the subclasses of `CorruptionError` for damage that is not a torn tail,
    `LockedError`, `NotAWalError`, `ReadFailedError`, `WriteFailedError`.
    """
    directory = os.fspath(path)
    if _read_from(fs, directory, snapshot).torn_tail is None:
        return RepairReport(repaired=False)
    segment = os.path.join(directory, str(list_segments(fs, directory)[-1]))
    try:
        return _cut_torn_tail(fs, segment, snapshot)
    except LockedError:
        raise
    except OSError as error:
        raise WriteFailedError(
            f"cannot repair the segment: {error.strerror or error}", path=segment
        ) from error


def _read_from(fs: FileSystem, directory: str, snapshot: SnapshotMetadata | None) -> Replay:
    index = None if snapshot is None else snapshot.index
    segments = segments_from(directory, list_segments(fs, directory), index)
    return Replay(fs, directory, segments, snapshot)


def _cut_torn_tail(fs: FileSystem, segment: str, snapshot: SnapshotMetadata | None) -> RepairReport:
    directory = os.path.dirname(segment)
    file: File = fs.open(segment)
    try:
        if not file.try_lock():
            raise LockedError("the log is open in another writer", path=segment)
        # Once more under the lock: a live writer may have finished the record since.
        replay = _read_from(fs, directory, snapshot)
        torn_tail = replay.torn_tail
        if torn_tail is None:
            return RepairReport(repaired=False)
        offset = replay.end.position.offset
        size = file.size()
        set_aside = _free_name(fs, segment)
        # The copy is durable before the original is touched.
        copy_file(fs, segment, set_aside)
        file.truncate(offset)
        file.sync()
    finally:
        file.close()
    log.warning(
        "wal_repaired",
        path=segment,
        offset=offset,
        removed_bytes=size - offset,
        set_aside=set_aside,
        reason=torn_tail.what,
    )
    return RepairReport(True, segment, offset, size - offset, set_aside, torn_tail.what)


def _free_name(fs: FileSystem, segment: str) -> str:
    """A name for the copy that no earlier repair has used."""
    name = f"{segment}.broken"
    number = 1
    while fs.exists(name):
        name = f"{segment}.{number}.broken"
        number += 1
    return name
