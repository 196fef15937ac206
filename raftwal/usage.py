"""What a data directory takes of the disk."""

from __future__ import annotations

import functools
import math
import os
from typing import NamedTuple

from raftwal.metrics import StorageMetrics
from raftwal.recovery import SNAPSHOT_DIRECTORY, WAL_DIRECTORY

_BLOCK_BYTES = 512
"""The unit of ``st_blocks`` (stat(3type))."""


class DiskUsage(NamedTuple):
    """Files, and the bytes that the file system set aside for them: a segment counts as a
    whole from the moment it is preallocated.
    """

    log_files: int
    log_bytes: int
    snapshot_files: int
    snapshot_bytes: int


def disk_usage(data_dir: str | os.PathLike[str]) -> DiskUsage:
    """What the log and the snapshots take, with all that lies beside them: copies of
    damaged files, files that are being written.

    A directory that is not there takes nothing.  Raises ``OSError`` when it cannot be read.
    """
    return DiskUsage(
        *_of_directory(os.path.join(data_dir, WAL_DIRECTORY)),
        *_of_directory(os.path.join(data_dir, SNAPSHOT_DIRECTORY)),
    )


def report_usage(data_dir: str, metrics: StorageMetrics) -> None:
    """Have the gauges of disk usage worked out at each scrape."""
    for directory, gauge in (
        (WAL_DIRECTORY, metrics.log_bytes),
        (SNAPSHOT_DIRECTORY, metrics.snapshot_bytes),
    ):
        path = os.path.join(data_dir, directory)
        gauge.set_function(functools.partial(_bytes_of_directory, path))


def _bytes_of_directory(path: str) -> float:
    try:
        return _of_directory(path)[1]
    except OSError:
        # A scrape must not fail for it.
        return math.nan


def _of_directory(path: str) -> tuple[int, int]:
    files = size = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # purged, or renamed, meanwhile
                files += 1
                size += status.st_blocks * _BLOCK_BYTES
    except FileNotFoundError:
        pass
    return files, size
