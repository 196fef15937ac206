"""etcd has purged the first segments and snapshots of a member: raftwal reads what is left."""

from __future__ import annotations

import etcd_member
import pytest
from etcd_dump_logs import dump_logs
from etcd_packages import EtcdPackages
from etcd_server import SERVERS, EtcdServer
from prometheus_client import CollectorRegistry

import raftwal
from raftwal import RaftStorage, Snapshotter
from raftwal.errors import NotAWalError

KEEP_ONE = ("--max-wals", "1", "--max-snapshots", "1")
# Debian's server cuts a segment at 64 MB, so it takes large values; 3.4 cannot read a
# record of 10 MiB back.  The newest one can be told to cut earlier.
LARGE = ("--max-request-bytes", "10000000")
SIZES = {"debian": 9_000_000, "newest": 9_000}
ENVIRONMENT = {"debian": {}, "newest": {"ETCD_SEGMENT_BYTES": "64000"}}


@pytest.fixture(scope="module", params=SERVERS)
def purged(request, tmp_path_factory):
    """A killed member that has cut two segments and purged them, and all but one snapshot."""
    release = request.param
    server = EtcdServer(
        tmp_path_factory.mktemp("purged"),
        release=release,
        settings=(*KEEP_ONE, *LARGE),
        environment=ENVIRONMENT[release],
    )
    try:
        server.start()
        for number in range(30):
            server.put("large", f"{number}:".ljust(SIZES[release], "x"))
            if len(server.segments()) > 2:
                break
        # Enough small ones for a snapshot that is in the last segment.
        for number in range(60):
            server.put(f"key{number}", f"value{number}")
        server.kill()
        # etcd purges when it starts, and then every 30 seconds; that cannot be changed.
        server.start()
        server.wait_until(lambda: len(server.segments()) == 1, "to purge its segments")
        server.wait_until(
            lambda: len(Snapshotter(server.snap_dir).names()) == 1, "to purge its snapshots"
        )
        for number in range(10):
            server.put(f"after{number}", "it purged")
        server.kill()
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize("line", ["newest", "3.4"])
def test_raftwal_reads_the_same_as_etcds_packages_from_the_snapshot_on(purged, line):
    (segment,) = purged.segments()
    assert int(segment.partition("-")[0], 16) >= 2
    snapshot, log = etcd_member.read_member(purged.member_dir)
    vouched = raftwal.valid_snapshots(purged.wal_dir)
    with EtcdPackages(line) as etcd:
        theirs = etcd.valid_snapshots(purged.wal_dir)
        assert [each[:2] for each in vouched] == [each[:2] for each in theirs]
        assert snapshot == etcd.snap_load_newest(purged.snap_dir, theirs)
        dump = etcd.read(purged.wal_dir, snapshot.metadata)
    assert (log.metadata, log.hard_state, log.entries) == dump
    report = raftwal.verify(purged.wal_dir, snapshot.metadata)
    assert report.entries == len(log.entries) >= 10


def test_raftwal_reads_the_same_as_etcds_own_dump(purged):
    contents = etcd_member.read_member(purged.member_dir)
    dump = dump_logs(purged.data_dir)
    assert (dump.term, dump.vote, dump.commit) == contents.log.hard_state
    assert [(entry.term, entry.index, entry.data) for entry in dump.entries] == [
        (entry.term, entry.index, entry.data or b"") for entry in contents.log.entries
    ]


def test_the_log_cannot_be_read_from_its_beginning(purged):
    with pytest.raises(NotAWalError, match="does not reach back"):
        raftwal.verify(purged.wal_dir)


def test_the_storage_recovers_it_and_etcd_goes_on(purged, tmp_path):
    contents = etcd_member.read_member(purged.member_dir)
    data_dir, purged.data_dir = (
        purged.data_dir,
        etcd_member.copy(purged.data_dir, tmp_path / "copy"),
    )
    try:
        with RaftStorage.open(purged.member_dir, registry=CollectorRegistry()) as storage:
            assert storage.recovered.snapshot == contents.snapshot
            assert storage.recovered.entries == contents.log.entries
        purged.start()
        assert purged.everything()["after9"] == "it purged"
        purged.kill()
    finally:
        purged.data_dir = data_dir
