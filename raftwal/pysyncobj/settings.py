"""How a node keeps its log and snapshots: `StorageSettings`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from raftwal.fs import DISK, FileSystem
from raftwal.wal.segments import DEFAULT_SEGMENT_BYTES
from raftwal.wal.zeroing import DEFAULT_PREALLOCATION, Preallocation

StorageFailureHook = Callable[[BaseException], None]


class StorageSettings(NamedTuple):
    """How a node keeps its log and snapshots; see `RaftStorage.open`.

    ``cluster_name`` is kept beside the node's id in the log: a directory of another
    cluster is refused.  ``on_storage_failure`` is called once, with the error, in the
    thread that ticks, when the storage has failed and the node has stopped taking
    part; exit the process in it, or let the node stand still.  ``snapshot_compression`` is
    gzip's level, 0 (none) to 9 (small, and slow).  ``preallocation`` says whether space ahead
    of the log is filled with zeros, or only set aside.  ``executor`` runs what
    happens in the background (preparing segments, writing snapshots), and
    ``save_executor`` the calls that save and sync, which wait for what the other runs;
    threads of the node's own by default.
    """

    cluster_name: str = ""
    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    keep_segments: int = 5
    keep_snapshots: int = 5
    registry: CollectorRegistry | None = None
    metrics_namespace: str = "raftwal"
    on_storage_failure: StorageFailureHook | None = None
    snapshot_compression: int = 1
    fs: FileSystem = DISK
    executor: Executor | None = None
    save_executor: Executor | None = None
    preallocation: Preallocation = DEFAULT_PREALLOCATION
