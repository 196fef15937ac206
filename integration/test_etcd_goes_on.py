"""raftwal appends to a stopped member's log, and etcd starts from it and serves what is there."""

from __future__ import annotations

import etcd_member
import etcd_requests
import pytest
from etcd_cluster import EtcdCluster, etcd_cluster
from etcd_dump_logs import dump_logs
from etcd_server import SERVERS, EtcdServer
from prometheus_client import CollectorRegistry

import raftwal
from raftwal import WAL, ConfState, RaftStorage, Snapshot, SnapshotMetadata, Snapshotter
from raftwal.errors import TornTailError

KEPT, LOST, APPENDED = 77, 78, 79


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    """A server with a few keys, two leases and a snapshot."""
    made = EtcdServer(tmp_path, release=request.param, settings=("--max-wals", "1"))
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def cluster(tmp_path):
    with etcd_cluster(tmp_path) as made:
        made.start()
        yield made


def fill(server: EtcdServer, count: int = 70) -> dict[str, str]:
    """Enough for a snapshot, one in every fifty entries."""
    for number in range(count):
        server.put(f"key{number % 30}", f"value{number}")
    for lease in (KEPT, LOST):
        server.ask("lease/grant", TTL=3600, ID=lease)
        server.put(f"on {lease}", "etcd's", lease=lease)
    return server.everything()


def puts(first: int, count: int) -> dict[str, str]:
    return {f"raftwal{number}": f"appended {number}" for number in range(first, first + count)}


def as_requests(values: dict[str, str]) -> list[bytes]:
    return [
        etcd_requests.put(1000 + number, key, value)
        for number, (key, value) in enumerate(values.items())
    ]


def test_puts_deletes_and_leases_that_raftwal_appended_are_served(server):
    expected = fill(server)
    server.kill()
    appended = etcd_member.append(
        server.member_dir,
        [
            etcd_requests.put(1, "appended", "by raftwal"),
            etcd_requests.delete(2, "key1"),
            etcd_requests.grant_lease(3, APPENDED, 3600),
            etcd_requests.put(4, f"on {APPENDED}", "raftwal's", lease=APPENDED),
            etcd_requests.revoke_lease(5, LOST),
        ],
    )
    dumped = dump_logs(server.data_dir).entries[-5:]
    assert [(entry.term, entry.index) for entry in dumped] == [
        (entry.term, entry.index) for entry in appended
    ]
    whats = ['put:<key:"appended"', 'delete_range:<key:"key1"', "lease_grant:<TTL:3600 ID:79"]
    for entry, what in zip(
        dumped, [*whats, 'put:<key:"on 79"', "lease_revoke:<ID:78"], strict=True
    ):
        assert what in entry.text

    server.start()
    del expected["key1"], expected[f"on {LOST}"]
    expected |= {"appended": "by raftwal", f"on {APPENDED}": "raftwal's"}
    assert server.everything() == expected
    assert server.leases() == {KEPT, APPENDED}
    assert server.status().term > appended[-1].term

    server.put("after", "by etcd")
    server.kill()
    log = etcd_member.read_member(server.member_dir).log
    first = log.entries[0].index
    assert log.entries[appended[0].index - first : appended[-1].index - first + 1] == appended
    assert b"by etcd" in log.entries[-1].data


def test_etcd_goes_on_in_a_log_that_raftwal_cut_into_segments_and_purges_it(server):
    """Once etcd has a snapshot of its own above them, raftwal's segments are gone."""
    expected = fill(server)
    server.kill()
    values = puts(0, 80)
    etcd_member.append(server.member_dir, as_requests(values), segment_bytes=1024)
    segments = server.segments()
    assert len(segments) > 5

    server.start()
    expected |= values
    assert server.everything() == expected
    for number in range(60):
        server.put(f"after{number}", "by etcd")
        expected[f"after{number}"] = "by etcd"
    server.kill()
    etcd_member.read_member(server.member_dir)
    # etcd purges when it starts, and then every 30 seconds.
    server.start()
    server.wait_until(lambda: len(server.segments()) == 1, "to purge its segments")
    assert server.everything() == expected
    server.kill()
    assert server.segments() == segments[-1:]
    contents = etcd_member.read_member(server.member_dir)
    assert contents.snapshot.metadata.index > 150
    assert contents.log.entries[-1].index == contents.last_index


def test_an_entry_torn_in_its_writing_is_repaired_away_and_etcd_goes_on(server):
    expected = fill(server)
    server.kill()
    first, second = puts(0, 2).items()
    etcd_member.append(server.member_dir, as_requests(dict([first, second])))
    torn = etcd_member.tear_last_entry(server.member_dir)
    report = raftwal.repair(server.wal_dir)
    assert (report.repaired, report.segment, report.offset) == (True, *torn)
    assert report.removed_bytes == 20

    server.start()
    assert server.everything() == {**expected, **dict([first])}
    server.put("after", "by etcd")
    server.kill()
    raftwal.verify(server.wal_dir, etcd_member.newest_snapshot(server.member_dir).metadata)
    # etcd had nothing to repair.
    assert len(list(server.wal_dir.glob("*.broken"))) == 1


def test_the_storage_opens_a_members_directory_saves_more_and_etcd_starts_from_it(server, tmp_path):
    expected = fill(server)
    server.stop()
    contents = etcd_member.read_member(server.member_dir)
    server.data_dir = etcd_member.copy(server.data_dir, tmp_path / "copy")
    values = puts(0, 100)
    entries = etcd_member.entries_of_next_term(contents, as_requests(values))
    state = etcd_member.state_of_next_term(contents)
    with open_storage(server) as storage:
        recovered = storage.recovered
        assert recovered.snapshot == contents.snapshot
        assert recovered.hard_state == contents.log.hard_state
        assert recovered.entries == contents.log.entries
        for entry in entries:
            storage.save(state, [entry])
    server.start()
    assert server.everything() == {**expected, **values}


def test_etcd_starts_from_a_snapshot_that_raftwal_saved_and_from_the_log_after_it(server):
    """The segments and snapshots before it are purged.

    Its state is etcd's own of a little earlier: keys and values are in etcd's database.
    """
    expected = fill(server) | puts(0, 40)
    server.kill()
    etcd_member.append(server.member_dir, as_requests(puts(0, 40)), segment_bytes=1024)
    server.start()
    # The database knows the index of what it holds, and this is the last.
    server.put("last", "by etcd")
    expected["last"] = "by etcd"
    applied = server.status().applied
    server.stop()
    contents = etcd_member.read_member(server.member_dir)
    assert contents.last_index == applied
    state = etcd_member.state_of_next_term(contents)._replace(commit=applied)
    before = server.segments()
    with open_storage(server) as storage:
        for entry in etcd_member.entries_of_next_term(contents, as_requests(puts(40, 40))):
            storage.save(state, [entry])
        conf_state = ConfState(voters=(contents.node_id,))
        metadata = SnapshotMetadata(applied, contents.log.hard_state.term, conf_state)
        storage.save_snapshot(Snapshot(metadata, contents.snapshot.data))
    assert [name.index for name in Snapshotter(server.snap_dir).names()] == [applied]
    assert set(before) & set(server.segments()) == {before[-1]}
    assert etcd_member.newest_snapshot(server.member_dir).metadata == metadata
    server.start()
    assert server.everything() == expected | puts(40, 40)


def open_storage(server: EtcdServer) -> RaftStorage:
    return RaftStorage.open(
        server.member_dir,
        segment_bytes=1024,
        keep_segments=1,
        keep_snapshots=1,
        registry=CollectorRegistry(),
    )


def stop_all(cluster: EtcdCluster) -> dict[str, str]:
    expected = fill(cluster.leader())
    cluster.wait_until_applied()
    cluster.kill()
    return expected


def serve_everywhere(cluster: EtcdCluster, expected: dict[str, str]) -> None:
    cluster.wait_until_applied()
    for member in cluster.running:
        assert member.everything(local=True) == expected


def test_what_raftwal_appended_to_one_member_of_three_reaches_them_all(cluster):
    """Its log is the newest, so it gets every vote.

    The third member starts later: it and the other one could elect one of themselves.
    """
    expected = stop_all(cluster)
    # The member with the longest log has everything that is committed.
    voter, late, written = sorted(
        cluster.members.values(),
        key=lambda member: etcd_member.read_member(member.member_dir).last_index,
    )
    requests = [*as_requests(puts(0, 5)), etcd_requests.delete(2, "key1")]
    appended = etcd_member.append(written.member_dir, requests)
    cluster.start(written.name, voter.name)
    assert cluster.leader() is written
    cluster.start(late.name)
    del expected["key1"]
    serve_everywhere(cluster, {**expected, **puts(0, 5)})
    cluster.kill()
    for member in cluster.members.values():
        entries = etcd_member.read_member(member.member_dir).log.entries
        first = entries[0].index
        assert entries[appended[0].index - first :][: len(appended)] == appended


def test_a_member_whose_log_was_torn_and_repaired_catches_up(cluster):
    expected = stop_all(cluster)
    torn = next(iter(cluster.members.values()))
    complete = etcd_member.read_member(torn.member_dir)
    etcd_member.tear_last_entry(torn.member_dir)
    start = complete.snapshot.metadata
    with pytest.raises(TornTailError), WAL.open(torn.wal_dir, start) as wal:
        wal.read_all()
    assert raftwal.repair(torn.wal_dir).repaired
    left = etcd_member.read_member(torn.member_dir)
    assert left.last_index == complete.last_index - 1

    cluster.start()
    serve_everywhere(cluster, expected)
    cluster.kill()
    contents = etcd_member.read_member(torn.member_dir)
    assert contents.log.entries[: len(complete.log.entries)] == complete.log.entries
