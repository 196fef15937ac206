"""What the operator pointed at: a data directory, or the log in it."""

from __future__ import annotations

import os
from typing import NamedTuple

from raftwal.errors import NotAWalError, SnapshotAheadOfLogError
from raftwal.fs import DISK
from raftwal.recovery import SNAPSHOT_DIRECTORY, WAL_DIRECTORY
from raftwal.snapshots import Snapshotter
from raftwal.wal.segments import SegmentName, is_wal_directory, list_segments

# etcd keeps wal/ and snap/ one level down in its own data directory.
_ETCD_MEMBER_DIRECTORY = "member"


class Directory(NamedTuple):
    """``snapshots`` is ``None`` when only a log was pointed at."""

    log: str
    snapshots: Snapshotter | None
    segments: list[SegmentName]


def find_directory(path: str) -> Directory:
    """The log, and the snapshots beside it, that ``path`` names.

    Raises `NotAWalError`, `SnapshotAheadOfLogError`, `ReadFailedError`, ``OSError``.
    """
    try:
        # Tells "not there" from "not allowed", which a listing that is empty does not.
        os.stat(path)
    except FileNotFoundError:
        raise NotAWalError("there is no log: no such directory", path=path) from None
    if not DISK.is_directory(path):
        raise NotAWalError("there is no log: this is not a directory", path=path)
    for data_directory in (path, os.path.join(path, _ETCD_MEMBER_DIRECTORY)):
        log = os.path.join(data_directory, WAL_DIRECTORY)
        snapshots = Snapshotter(os.path.join(data_directory, SNAPSHOT_DIRECTORY))
        if DISK.is_directory(log):
            if not is_wal_directory(DISK, log):
                _check_no_snapshots(snapshots, data_directory)
            return Directory(log, snapshots, list_segments(DISK, log))
        _check_no_snapshots(snapshots, data_directory)
    return Directory(path, None, list_segments(DISK, path))


def _check_no_snapshots(snapshots: Snapshotter, data_directory: str) -> None:
    if snapshots.names():
        raise SnapshotAheadOfLogError(
            "there are snapshots, but no log that goes with them", path=data_directory
        )
