"""Removing segments that were released and are no longer wanted."""

from __future__ import annotations

import os

from raftwal.events import log
from raftwal.fs import FileSystem
from raftwal.wal.segments import list_segments


def purge_segments(fs: FileSystem, directory: str, keep: int) -> int:
    """Remove the oldest segments while there are more than ``keep``; how many went.

    A segment that is locked is still needed, and so are all after it.

    Raises ``OSError``.
    """
    segments = list_segments(fs, directory)
    purged = 0
    for segment in segments[: max(0, len(segments) - keep)]:
        path = os.path.join(directory, str(segment))
        file = fs.open(path)
        try:
            if not file.try_lock():
                break
            fs.remove(path)
            # One by one: a crash that undid an older removal and not a newer one would
            # leave a gap.
            fs.sync_directory(directory)
        finally:
            file.close()
        purged += 1
        log.info("wal_purged", path=path)
    return purged
