"""Prometheus metrics, made against whatever registry the caller chooses.

Names begin with a namespace, ``raftwal`` by default; the namespace ``etcd`` gives the
names that etcd itself exports, so dashboards and alerts made for etcd work unchanged.
Every series carries a ``node`` label, so that several nodes in one process, on one
registry, do not collide.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

# Powers of two through 1 ms, from 7.8 microseconds to 16.4 seconds: among them are all
# of etcd's own bounds (1 ms to 8.192 s), so queries for one of those still find it.
LATENCY_BUCKETS = tuple(0.001 * 2.0**n for n in range(-7, 15))


class _Observer(Protocol):
    def observe(self, amount: float) -> None: ...


class _Counter(Protocol):
    def inc(self, amount: float = 1) -> None: ...


class _Gauge(Protocol):
    def set(self, value: float) -> None: ...


class _ScrapedGauge(Protocol):
    def set_function(self, f: Callable[[], float]) -> None: ...


class _Nothing:
    """Takes the place of a metric that nobody asked for."""

    def observe(self, amount: float) -> None: ...

    def inc(self, amount: float = 1) -> None: ...

    def set(self, value: float) -> None: ...

    def set_function(self, f: Callable[[], float]) -> None: ...


_NOTHING = _Nothing()


class WALMetrics(NamedTuple):
    """What the log reports."""

    sync_seconds: _Observer = _NOTHING
    write_seconds: _Observer = _NOTHING
    written_bytes: _Counter = _NOTHING
    entries: _Counter = _NOTHING
    cuts: _Counter = _NOTHING
    segments: _Gauge = _NOTHING
    last_index: _Gauge = _NOTHING
    commit_index: _Gauge = _NOTHING
    term: _Gauge = _NOTHING


class SnapshotMetrics(NamedTuple):
    """What the snapshotter reports."""

    save_seconds: _Observer = _NOTHING
    sync_seconds: _Observer = _NOTHING
    saved: _Counter = _NOTHING
    database_save_seconds: _Observer = _NOTHING
    database_sync_seconds: _Observer = _NOTHING


class StorageMetrics(NamedTuple):
    """What one data directory reports."""

    wal: WALMetrics = WALMetrics()
    snapshots: SnapshotMetrics = SnapshotMetrics()
    repairs: _Counter = _NOTHING
    purged_segments: _Counter = _NOTHING
    purged_snapshots: _Counter = _NOTHING
    snapshot_index: _Gauge = _NOTHING
    snapshot_time: _Gauge = _NOTHING
    failed: _Gauge = _NOTHING
    log_bytes: _ScrapedGauge = _NOTHING
    snapshot_bytes: _ScrapedGauge = _NOTHING
    memory_entries: _ScrapedGauge = _NOTHING
    memory_bytes: _ScrapedGauge = _NOTHING


NO_WAL_METRICS = WALMetrics()
NO_SNAPSHOT_METRICS = SnapshotMetrics()


class _Spec(NamedTuple):
    kind: type
    name: str
    etcd_name: str
    help: str


# Where etcd has a metric of the same meaning, its name (without "etcd_") stands second.
SPECS: dict[str, _Spec] = {
    "wal_sync_seconds": _Spec(
        Histogram,
        "wal_fsync_duration_seconds",
        "disk_wal_fsync_duration_seconds",
        "Time of one data sync of the log, in seconds.",
    ),
    "wal_write_seconds": _Spec(
        Histogram,
        "wal_write_duration_seconds",
        "disk_wal_write_duration_seconds",
        "Time of one write to the log, without its sync, in seconds.",
    ),
    "wal_written_bytes": _Spec(
        Counter, "wal_written_bytes", "disk_wal_write_bytes", "Bytes written to the log."
    ),
    "wal_entries": _Spec(Counter, "wal_entries", "disk_wal_entries", "Entries saved to the log."),
    "wal_cuts": _Spec(Counter, "wal_cuts", "disk_wal_cuts", "Segments cut."),
    "wal_segments": _Spec(
        Gauge, "wal_segments", "disk_wal_segments", "Segments that the log holds locked."
    ),
    "wal_last_index": _Spec(
        Gauge, "last_index", "server_last_index", "Index of the last entry in the log."
    ),
    "wal_commit_index": _Spec(
        Gauge,
        "commit_index",
        "server_proposals_committed_total",
        "Commit index in the last hard state saved.",
    ),
    "wal_term": _Spec(Gauge, "term", "server_term", "Term in the last hard state saved."),
    "snapshot_save_seconds": _Spec(
        Histogram,
        "snapshot_save_duration_seconds",
        "debugging_snap_save_total_duration_seconds",
        "Time to save one snapshot file, in seconds.",
    ),
    "snapshot_sync_seconds": _Spec(
        Histogram,
        "snapshot_fsync_duration_seconds",
        "snap_fsync_duration_seconds",
        "Time of the sync of one snapshot file, in seconds.",
    ),
    "snapshot_database_save_seconds": _Spec(
        Histogram,
        "snapshot_database_save_duration_seconds",
        "snap_db_save_total_duration_seconds",
        "Time to save one snapshot's database file, in seconds.",
    ),
    "snapshot_database_sync_seconds": _Spec(
        Histogram,
        "snapshot_database_fsync_duration_seconds",
        "snap_db_fsync_duration_seconds",
        "Time of the sync of one snapshot's database file, in seconds.",
    ),
    "snapshots_saved": _Spec(Counter, "snapshots_saved", "snap_saved", "Snapshots saved."),
    "repairs": _Spec(Counter, "wal_repairs", "disk_wal_repairs", "Torn tails repaired."),
    "purged_segments": _Spec(
        Counter, "wal_purged_segments", "disk_wal_purged_segments", "Segments purged."
    ),
    "purged_snapshots": _Spec(Counter, "purged_snapshots", "snap_purged", "Snapshot files purged."),
    "snapshot_index": _Spec(
        Gauge, "snapshot_index", "server_snapshot_index", "Index of the newest snapshot."
    ),
    "snapshot_time": _Spec(
        Gauge,
        "snapshot_timestamp_seconds",
        "server_snapshot_timestamp_seconds",
        "Unix time at which the newest snapshot was saved; 0 before the first.",
    ),
    "snapshot_age": _Spec(
        Gauge,
        "snapshot_age_seconds",
        "server_snapshot_age_seconds",
        "Seconds since the newest snapshot was saved; 0 before the first.",
    ),
    "log_bytes": _Spec(
        Gauge,
        "wal_disk_bytes",
        "disk_wal_disk_bytes",
        "Bytes of disk that the log's directory takes.",
    ),
    "snapshot_bytes": _Spec(
        Gauge,
        "snapshot_disk_bytes",
        "snap_disk_bytes",
        "Bytes of disk that the snapshots' directory takes.",
    ),
    "memory_entries": _Spec(
        Gauge,
        "log_memory_entries",
        "server_log_memory_entries",
        "Entries that the node holds in memory.",
    ),
    "memory_bytes": _Spec(
        Gauge,
        "log_memory_bytes",
        "server_log_memory_bytes",
        "Bytes of the data of the entries that the node holds in memory.",
    ),
    "failed": _Spec(
        Gauge,
        "storage_failed",
        "server_storage_failed",
        "1 once a write or sync has failed and the storage refuses every call.",
    ),
}


class _SnapshotTime:
    """Sets the time of the newest snapshot; its age is worked out at each scrape."""

    def __init__(self, timestamp: Gauge, age: Gauge) -> None:
        self._timestamp = timestamp
        self._saved_at = 0.0
        age.set_function(self._age)

    def set(self, value: float) -> None:
        self._saved_at = value
        self._timestamp.set(value)

    def _age(self) -> float:
        return max(0.0, time.time() - self._saved_at) if self._saved_at else 0.0


_families: weakref.WeakKeyDictionary[CollectorRegistry, dict[str, dict[str, Any]]] = (
    weakref.WeakKeyDictionary()
)
_families_lock = threading.Lock()


def _families_of(registry: CollectorRegistry, namespace: str) -> dict[str, Any]:
    """The metric families of a registry, made once: a second node shares them."""
    with _families_lock:
        by_namespace = _families.setdefault(registry, {})
        if namespace not in by_namespace:
            by_namespace[namespace] = {
                key: _make_family(spec, registry, namespace) for key, spec in SPECS.items()
            }
        return by_namespace[namespace]


def _make_family(spec: _Spec, registry: CollectorRegistry, namespace: str) -> Any:
    name = spec.etcd_name if namespace == "etcd" else spec.name
    settings: dict[str, Any] = {"buckets": LATENCY_BUCKETS} if spec.kind is Histogram else {}
    return spec.kind(name, spec.help, ["node"], namespace=namespace, registry=registry, **settings)


def storage_metrics(
    node: str,
    *,
    registry: CollectorRegistry | None = None,
    namespace: str = "raftwal",
) -> StorageMetrics:
    """The metrics of one node, labelled with its name.

    ``registry`` is prometheus_client's default one when not given.
    """
    families = _families_of(REGISTRY if registry is None else registry, namespace)
    of = {key: family.labels(node=node) for key, family in families.items()}
    return StorageMetrics(
        wal=WALMetrics(
            sync_seconds=of["wal_sync_seconds"],
            write_seconds=of["wal_write_seconds"],
            written_bytes=of["wal_written_bytes"],
            entries=of["wal_entries"],
            cuts=of["wal_cuts"],
            segments=of["wal_segments"],
            last_index=of["wal_last_index"],
            commit_index=of["wal_commit_index"],
            term=of["wal_term"],
        ),
        snapshots=SnapshotMetrics(
            save_seconds=of["snapshot_save_seconds"],
            sync_seconds=of["snapshot_sync_seconds"],
            saved=of["snapshots_saved"],
            database_save_seconds=of["snapshot_database_save_seconds"],
            database_sync_seconds=of["snapshot_database_sync_seconds"],
        ),
        repairs=of["repairs"],
        purged_segments=of["purged_segments"],
        purged_snapshots=of["purged_snapshots"],
        snapshot_index=of["snapshot_index"],
        snapshot_time=_SnapshotTime(of["snapshot_time"], of["snapshot_age"]),
        failed=of["failed"],
        log_bytes=of["log_bytes"],
        snapshot_bytes=of["snapshot_bytes"],
        memory_entries=of["memory_entries"],
        memory_bytes=of["memory_bytes"],
    )
