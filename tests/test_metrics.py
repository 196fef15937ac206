"""The metrics and the log events: what an operator sees of a node."""

import itertools
import time

import pytest
from directories import FIRST_SEGMENT, entries
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs
from watched_disk import WatchedDisk

import raftwal
from raftwal import WAL, ConfState, HardState, RaftStorage, Snapshot, SnapshotMetadata
from raftwal.errors import WriteFailedError
from raftwal.metrics import LATENCY_BUCKETS, storage_metrics
from raftwal.wal import appending


@pytest.fixture
def registry():
    return CollectorRegistry()


def open_storage(path, registry, **settings):
    return RaftStorage.open(path, **{"registry": registry, "segment_bytes": 4096, **settings})


def snapshot(index):
    return Snapshot(SnapshotMetadata(index, 1, ConfState((7,))), b"state")


def test_a_node_counts_what_it_does(tmp_path, registry):
    def value(name, **labels):
        return registry.get_sample_value(f"raftwal_{name}", {"node": "a", **labels})

    with open_storage(tmp_path, registry, node="a") as storage:
        assert value("wal_fsync_duration_seconds_count") == 0
        assert value("snapshot_age_seconds") == 0
        storage.save(HardState(3, 7, 0), entries(1, 5, term=3))
        storage.save(HardState(3, 7, 4))
        storage.save(None, entries(6, 6, term=3))
        assert value("wal_fsync_duration_seconds_count") == 2
        assert value("wal_write_duration_seconds_count") == 2
        assert value("wal_entries_total") == 6
        assert (value("term"), value("commit_index"), value("last_index")) == (3, 4, 6)
        used = len((tmp_path / "wal" / FIRST_SEGMENT).read_bytes().rstrip(b"\0"))
        assert used - 100 < value("wal_written_bytes_total") < used
        before = time.time()
        storage.save_snapshot(Snapshot(SnapshotMetadata(4, 3), b"state"))
        assert value("snapshot_index") == 4
        assert value("snapshots_saved_total") == 1
        assert value("snapshot_fsync_duration_seconds_count") == 1
        assert value("snapshot_save_duration_seconds_count") == 1
        assert before <= value("snapshot_timestamp_seconds") <= time.time()
        assert 0 <= value("snapshot_age_seconds") < 60
        assert value("storage_failed") == 0
        assert value("wal_segments") == 1


def test_gauges_are_right_from_the_start_after_recovery(tmp_path):
    with open_storage(tmp_path, CollectorRegistry()) as storage:
        storage.save(HardState(3, 7, 4), entries(1, 5, term=3))
        storage.save_snapshot(Snapshot(SnapshotMetadata(4, 3), b"state"))
    registry = CollectorRegistry()
    with open_storage(tmp_path, registry, node="a"):
        found = [
            registry.get_sample_value(f"raftwal_{name}", {"node": "a"})
            for name in ("term", "commit_index", "last_index", "snapshot_index")
        ]
        assert found == [3, 4, 5, 4]


def test_two_nodes_on_one_registry(tmp_path, registry):
    with (
        open_storage(tmp_path / "a", registry, node="a") as a,
        open_storage(tmp_path / "b", registry, node="b") as b,
    ):
        a.save(None, entries(1, 3))
        b.save(None, entries(1, 1))
        total = "raftwal_wal_entries_total"
        assert registry.get_sample_value(total, {"node": "a"}) == 3
        assert registry.get_sample_value(total, {"node": "b"}) == 1


def test_node_that_is_opened_again_goes_on_counting(tmp_path, registry):
    for _ in range(2):
        with open_storage(tmp_path / "a", registry, node="a") as storage:
            storage.save(None, entries(storage.last_index + 1, storage.last_index + 1))
    assert registry.get_sample_value("raftwal_wal_entries_total", {"node": "a"}) == 2


def test_the_names_of_etcd(tmp_path, registry):
    """Dashboards and alerts made for etcd find what they look for."""
    with open_storage(tmp_path, registry, node="a", namespace="etcd") as storage:
        storage.save(HardState(1, 7, 1), entries(1, 1))
        storage.save_snapshot(snapshot(1))
        text = generate_latest(registry).decode()
    for name in (
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_disk_wal_write_bytes_total",
        "etcd_disk_wal_write_duration_seconds_count",
        "etcd_snap_fsync_duration_seconds_bucket",
        "etcd_debugging_snap_save_total_duration_seconds_sum",
        "etcd_server_proposals_committed_total",
    ):
        assert f'\n{name}{{node="a"' in text or f"\n{name}{{le=" in text, name
    assert "raftwal_" not in text


def test_both_namespaces_on_one_registry(registry):
    storage_metrics("a", registry=registry)
    storage_metrics("a", registry=registry, namespace="etcd")
    text = generate_latest(registry).decode()
    assert "raftwal_wal_fsync_duration_seconds" in text
    assert "etcd_disk_wal_fsync_duration_seconds" in text


def test_buckets_resolve_ten_microseconds_to_ten_seconds():
    """Fast disks and dying ones; and every bound that etcd itself has is among them."""
    assert LATENCY_BUCKETS[0] <= 10e-6
    assert LATENCY_BUCKETS[-1] >= 10
    steps = itertools.pairwise(LATENCY_BUCKETS)
    assert all(lower < upper <= 2 * lower for lower, upper in steps)
    assert {0.001 * 2**n for n in range(14)} <= set(LATENCY_BUCKETS)


def test_failure_shows(tmp_path, registry):
    disk = WatchedDisk()
    storage = open_storage(tmp_path, registry, node="a", fs=disk)

    def fail(call, path, arguments):
        if call == "sync_data":
            raise OSError(5, "broken", path)

    disk.before = fail
    with capture_logs() as events, pytest.raises(WriteFailedError):
        storage.save(None, entries(1, 1))
    storage.close()
    assert registry.get_sample_value("raftwal_storage_failed", {"node": "a"}) == 1
    (event,) = of_kind(events, "wal_failed")
    assert event["log_level"] == "error"
    assert event["path"].endswith(FIRST_SEGMENT)


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]


def test_events_of_a_logs_life(tmp_path):
    """Created, cut, opened, closed: numbers as fields, not inside a sentence."""
    log = tmp_path / "log"
    with capture_logs() as events:
        with WAL.create(log, segment_bytes=512) as wal:
            for entry in entries(1, 8, size=150):
                wal.save(HardState(2, 7, 0), [entry])
        with WAL.open(log, segment_bytes=512) as wal:
            wal.read_all()
    (created,) = of_kind(events, "wal_created")
    assert (created["path"], created["segment_bytes"]) == (str(log), 512)
    cut = of_kind(events, "wal_cut")[0]
    assert cut["sequence"] == 1
    assert cut["index"] > 1
    assert cut["path"] == str(log / f"{1:016x}-{cut['index']:016x}.wal")
    (opened,) = of_kind(events, "wal_opened")
    assert (opened["entries"], opened["last_index"], opened["term"], opened["commit"]) == (
        8,
        8,
        2,
        0,
    )
    assert opened["segments"] == len(list(log.iterdir()))
    assert of_kind(events, "wal_closed")[0]["path"] == str(log)


def test_events_of_a_storages_life(tmp_path, registry):
    """Created, a snapshot saved, purged, repaired, recovered."""
    with capture_logs() as events:
        with open_storage(tmp_path, registry, segment_bytes=512, keep_segments=1) as storage:
            for entry in entries(1, 20, size=100):
                storage.save(HardState(1, 7, entry.index), [entry])
            storage.save_snapshot(snapshot(20))
            storage.save(None, entries(21, 21))
        last = max((tmp_path / "wal").iterdir())
        torn = last.read_bytes().rstrip(b"\0")[:-3]
        last.write_bytes(torn)
        open_storage(tmp_path, registry, node="a").close()
    assert of_kind(events, "storage_created")[0]["seconds"] >= 0
    (saved,) = of_kind(events, "snapshot_saved")
    assert (saved["index"], saved["term"]) == (20, 1)
    assert saved["bytes"] > 5
    assert len(of_kind(events, "wal_purged")) >= 1
    (repaired,) = of_kind(events, "wal_repaired")
    assert repaired["path"] == str(last)
    assert repaired["offset"] == len(torn) - repaired["removed_bytes"]
    assert repaired["log_level"] == "warning"
    assert repaired["set_aside"] == f"{last}.broken"
    (recovered,) = of_kind(events, "storage_recovered")
    assert recovered["repaired"] is True
    assert recovered["term"] == 1
    assert recovered["seconds"] >= 0
    assert registry.get_sample_value("raftwal_wal_repairs_total", {"node": "a"}) == 1


def test_slow_sync_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(appending, "SLOW_SYNC_SECONDS", 0.0)
    with capture_logs() as events, WAL.create(tmp_path / "log", segment_bytes=4096) as wal:
        wal.save(None, entries(1, 1))
    event = of_kind(events, "wal_slow_sync")[0]
    assert event["log_level"] == "warning"
    assert event["seconds"] > 0
    assert event["path"].endswith(FIRST_SEGMENT)


def test_usual_syncs_are_not_reported(tmp_path):
    with capture_logs() as events, WAL.create(tmp_path / "log", segment_bytes=4096) as wal:
        wal.save(None, entries(1, 1))
    assert not of_kind(events, "wal_slow_sync")


def test_without_a_registry_a_log_counts_nothing(tmp_path):
    """`WAL` by itself touches no global registry."""
    with WAL.create(tmp_path / "log", segment_bytes=4096) as wal:
        wal.save(None, entries(1, 1))
    assert raftwal.verify(tmp_path / "log").entries == 1
