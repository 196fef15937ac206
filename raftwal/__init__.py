"""The persistence layer for Raft nodes in Python.

A write-ahead log in etcd's on-disk format (`WAL`), a snapshotter (`Snapshotter`), both
in one data directory (`RaftStorage`), and an adapter that plugs them into PySyncObj
(`raftwal.pysyncobj`).
"""

from raftwal.aio import AsyncRaftStorage
from raftwal.errors import RaftwalError
from raftwal.identity import Identity
from raftwal.model import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    InitialState,
    Snapshot,
    SnapshotMetadata,
    must_sync,
)
from raftwal.recovery import Recovered
from raftwal.snapshots import Snapshotter
from raftwal.storage import RaftStorage
from raftwal.wal import (
    WAL,
    LogContents,
    RepairReport,
    Replay,
    VerifyReport,
    WALReader,
    repair,
    valid_snapshots,
    verify,
    wal_exists,
)

__version__ = "0.1.0"

__all__ = [
    "WAL",
    "AsyncRaftStorage",
    "ConfState",
    "Entry",
    "EntryType",
    "HardState",
    "Identity",
    "InitialState",
    "LogContents",
    "RaftStorage",
    "RaftwalError",
    "Recovered",
    "RepairReport",
    "Replay",
    "Snapshot",
    "SnapshotMetadata",
    "Snapshotter",
    "VerifyReport",
    "WALReader",
    "__version__",
    "must_sync",
    "repair",
    "valid_snapshots",
    "verify",
    "wal_exists",
]
