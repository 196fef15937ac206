"""A power cut: raftwal loses nothing it acknowledged, PySyncObj's FileJournal does."""

from __future__ import annotations

import sys

import pytest
from clusters import KV, Cluster
from power_cut import PowerCut
from pysyncobj import SyncObj, replicated

from raftwal import WAL, Entry, HardState

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads synced files through /proc"
)


class PlainKV(SyncObj):
    """The same replicated dictionary on PySyncObj's own journal and dump."""

    storage_failure = None

    def __init__(self, address, partners, data_dir, conf):
        data_dir.mkdir(exist_ok=True)
        conf.journalFile = str(data_dir / "journal")
        conf.fullDumpFile = str(data_dir / "dump")
        super().__init__(address, partners, conf)
        self.values = {}

    @replicated
    def put(self, key, value):
        self.values[key] = value


def acknowledged_and_lost(node_class, directory):
    """Acknowledge writes on three nodes, cut the power of all, start from what is left."""
    before = directory / "before"
    before.mkdir()
    acknowledged = {}
    with PowerCut(before) as disk:
        nodes = Cluster(before, node_class=node_class)
        try:
            nodes.start_all()
            leader = nodes.wait_for_leader()
            for number in range(10):
                if nodes.put(leader, number, number) == 0:
                    acknowledged[number] = number
            # Some seconds pass: the kernel writes back what it has, kindly, for both.
            disk.write_back()
            for number in range(10, 40):
                if nodes.put(leader, number, number) == 0:
                    acknowledged[number] = number
            disk.image(directory / "after")
        finally:
            nodes.stop_all()
    nodes.directory = directory / "after"
    try:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        # A write of the new leader's term carries everything before it.
        assert nodes.put(leader, "after", 1) == 0
        nodes.tick_until(
            lambda: all("after" in node.values for node in nodes.nodes.values()), "the last write"
        )
        lost = {
            address: {key for key in acknowledged if key not in node.values}
            for address, node in nodes.nodes.items()
        }
    finally:
        nodes.stop_all()
    return acknowledged, lost


# FileJournal reads its .meta file without closing it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_a_power_cut_raftwal_has_every_acknowledged_write_and_filejournal_has_not(tmp_path):
    (tmp_path / "raftwal").mkdir()
    (tmp_path / "filejournal").mkdir()

    acknowledged, lost = acknowledged_and_lost(KV, tmp_path / "raftwal")
    assert len(acknowledged) == 40
    assert not any(lost.values()), lost

    acknowledged, lost = acknowledged_and_lost(PlainKV, tmp_path / "filejournal")
    assert len(acknowledged) == 40
    assert all(lost.values()), "FileJournal kept what it never synced: is the test still true?"


@pytest.mark.parametrize("cut_after", range(1, 40, 3))
def test_a_log_after_a_power_cut_holds_every_save_that_returned(tmp_path, cut_after):
    before = tmp_path / "before"
    before.mkdir()
    with PowerCut(before) as disk, WAL.create(before / "wal", b"m", segment_bytes=1024) as wal:
        for index in range(1, cut_after + 1):
            wal.save(HardState(1, 5, index - 1), [Entry(1, index, bytes([index]) * 60)])
        disk.image(tmp_path / "after")
    entries = WAL.open_for_read(tmp_path / "after" / "wal").read_all().entries
    assert [entry.index for entry in entries] == list(range(1, cut_after + 1))
    with WAL.open(tmp_path / "after" / "wal", segment_bytes=1024) as wal:
        wal.read_all()
        wal.save(HardState(1, 5, cut_after), [Entry(1, cut_after + 1, b"more")])
