"""What a node takes of memory and disk is bounded, and told."""

from __future__ import annotations

import os
import tracemalloc

from clusters import cluster
from prometheus_client import CollectorRegistry

from raftwal import RaftStorage
from raftwal.model import Entry, HardState, Snapshot, SnapshotMetadata
from raftwal.testing import InlineExecutor
from raftwal.usage import DiskUsage, disk_usage


def test_nothing_is_taken_by_a_directory_that_is_not_there(tmp_path):
    assert disk_usage(tmp_path / "none") == DiskUsage(0, 0, 0, 0)


def test_a_segment_counts_as_a_whole_and_what_lies_beside_it_counts(tmp_path):
    with RaftStorage.open(tmp_path / "data", segment_bytes=1 << 20) as storage:
        storage.save(HardState(1, 1, 1), [Entry(1, 1, b"x")])
        storage.save_snapshot(Snapshot(SnapshotMetadata(1, 1), b"state"))
    (tmp_path / "data" / "wal" / "old.wal.broken").write_bytes(b"b" * 5000)
    usage = disk_usage(tmp_path / "data")
    assert usage.log_bytes >= (1 << 20) + 5000
    assert usage.log_files == len(os.listdir(tmp_path / "data" / "wal"))
    assert usage.snapshot_files == 1
    assert 0 < usage.snapshot_bytes <= 1 << 16


def test_the_metrics_tell_what_is_taken_at_the_scrape(tmp_path):
    registry = CollectorRegistry()

    def value(name):
        return registry.get_sample_value(f"raftwal_{name}", {"node": "n"})

    # The next segment is there by then: between two looks at the directory nothing changes it.
    settings = {"segment_bytes": 1 << 20, "registry": registry, "executor": InlineExecutor()}
    with RaftStorage.open(tmp_path, node="n", **settings) as storage:
        assert value("wal_disk_bytes") == disk_usage(tmp_path).log_bytes >= 1 << 20
        assert value("snapshot_disk_bytes") == 0
        storage.save(HardState(1, 1, 1), [Entry(1, 1, b"x")])
        storage.save_snapshot(Snapshot(SnapshotMetadata(1, 1), b"s" * 100_000))
        assert value("snapshot_disk_bytes") >= 100_000


def test_compaction_gives_back_memory_and_disk(tmp_path):
    registry = CollectorRegistry()
    with cluster(tmp_path, size=1) as nodes:
        address = nodes.addresses[0]
        node = nodes.start(
            address, segment_bytes=1 << 16, keep_segments=1, keep_snapshots=1, registry=registry
        )
        nodes.wait_for_leader()

        def value(name):
            return registry.get_sample_value(f"raftwal_{name}", {"node": address})

        for number in range(200):
            # One save each, so that the log is cut in between.
            nodes.put(node, "the same key", f"{number:05}" * 2000)
        before = node.getStatus()
        assert value("log_memory_entries") == before["log_len"] > 200
        assert value("log_memory_bytes") == before["log_memory_bytes"] > 200 * 10_000
        assert value("wal_disk_bytes") == before["log_disk_bytes"] > 200 * 10_000

        node.forceLogCompaction()
        nodes.tick_until(lambda: node.getStatus()["log_len"] < 10, "the compaction")
        after = node.getStatus()
        assert after["log_memory_bytes"] < 50_000
        assert after["log_disk_bytes"] < 6 * (1 << 16)
        assert 0 < after["snapshot_disk_bytes"] < 1 << 17


def test_a_node_holds_each_command_once(tmp_path):
    """Also after a restart, and after what it recovered was compacted."""
    size, count = 20_000, 500
    with cluster(tmp_path, size=1) as nodes:
        address = nodes.addresses[0]
        node = nodes.start(address)
        nodes.wait_for_leader()
        tracemalloc.start()
        try:
            for number in range(count):
                node.put("the same key", f"{number:05}" * (size // 5))
            nodes.tick_until(lambda: node.values.get("the same key", "")[:5] == "00499", "all")
            assert tracemalloc.get_traced_memory()[0] < 1.3 * size * count
            nodes.stop(address)
            del node
            before = tracemalloc.get_traced_memory()[0]
            node = nodes.start(address)
            assert node.recovered.entry_count >= count
            nodes.tick_until(lambda: node.values.get("the same key", "")[:5] == "00499", "all")
            taken = tracemalloc.get_traced_memory()[0] - before
            assert size * count < taken < 1.3 * size * count
            node.forceLogCompaction()
            nodes.tick_until(lambda: node.getStatus()["log_len"] < 10, "the compaction")
            taken = tracemalloc.get_traced_memory()[0] - before
            assert taken < 0.1 * size * count
        finally:
            tracemalloc.stop()
