"""The log: segments, the append side, the read side, repair."""

from raftwal.wal.checking import (
    RepairReport,
    VerifyReport,
    repair,
    valid_snapshots,
    verify,
)
from raftwal.wal.interpreting import LogContents
from raftwal.wal.log import WAL, wal_exists
from raftwal.wal.reading import WALReader
from raftwal.wal.segments import DEFAULT_SEGMENT_BYTES

__all__ = [
    "DEFAULT_SEGMENT_BYTES",
    "WAL",
    "LogContents",
    "RepairReport",
    "VerifyReport",
    "WALReader",
    "repair",
    "valid_snapshots",
    "verify",
    "wal_exists",
]
