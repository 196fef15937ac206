"""raftwal reads every member of a real etcd cluster that was killed, and agrees with etcd.

etcd's answers are those of its own storage packages, of the newest release and of 3.4,
and of its own dump tool, ``etcd-dump-logs``.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import etcd_member
import pytest
from etcd_cluster import EtcdCluster, Writers, etcd_cluster
from etcd_dump_logs import dump_logs
from etcd_packages import EtcdError, EtcdPackages
from etcd_server import SERVERS, EtcdServer, Status
from prometheus_client import CollectorRegistry

import raftwal
from raftwal import WAL, EntryType, LogContents, RaftStorage, Snapshotter
from raftwal.errors import EntryGapError

FIRST, JOINED = ("m1", "m2", "m3"), "m4"
MEMBERS = (*FIRST, JOINED)
VALUE_SIZES = (10, 300, 5_000, 200_000)


class KilledCluster(NamedTuple):
    """What is left of it.

    ``copies`` has every member's data directory as it was left, ``statuses`` are the
    survivors' before the last writes, ``acknowledged`` those writes.
    """

    cluster: EtcdCluster
    copies: Path
    removed: str
    statuses: dict[str, Status]
    acknowledged: dict[str, str]
    earlier: dict[str, str]

    @property
    def survivors(self) -> list[str]:
        return [name for name in MEMBERS if name != self.removed]

    def data_dir(self, name: str) -> Path:
        return self.copies / name

    def directory(self, name: str) -> Path:
        return self.data_dir(name) / "member"

    def logs(self) -> str:
        return self.cluster.logs()


def everything_that_clients_do(server: EtcdServer) -> dict[str, str]:
    expected = {}
    for number in range(120):
        server.put(f"key{number % 40}", f"value{number}")
        expected[f"key{number % 40}"] = f"value{number}"
    for number in range(5):
        server.delete(f"key{number}")
        del expected[f"key{number}"]
    server.ask("lease/grant", TTL=3600, ID=77)
    server.put("kept", "on a lease", lease=77)
    server.etcdctl("lease", "keep-alive", "--once", f"{77:x}")
    server.ask("lease/grant", TTL=3600, ID=78)
    server.put("lost", "with its lease", lease=78)
    server.etcdctl("lease", "revoke", f"{78:x}")
    server.etcdctl("txn", stdin='value("key9") = "value89"\n\nput txn yes\n\nput txn no\n\n')
    server.etcdctl("compact", "50")
    return {**expected, "kept": "on a lease", "txn": "yes"}


@pytest.fixture(scope="module", params=SERVERS)
def killed(request, tmp_path_factory):
    """A cluster that lived: its leader was killed, a member joined, one was removed.

    In the end all were killed at once, in the middle of writes.
    """
    directory = tmp_path_factory.mktemp("cluster")
    with etcd_cluster(directory, release=request.param) as cluster:
        cluster.start()
        leader = cluster.leader()
        expected = everything_that_clients_do(leader)
        leader.kill()
        successor = cluster.leader()
        for number in range(60):
            successor.put(f"key{number}", f"without {leader.name}")
            expected[f"key{number}"] = f"without {leader.name}"
        cluster.start(leader.name)
        cluster.wait_until_applied()
        # It has in memory only what follows on its snapshot, so it must send that.
        cluster.move_leader(leader)
        cluster.add(JOINED)
        removed = next(name for name in FIRST if name != leader.name)
        cluster.remove(cluster.members[removed])
        cluster.wait_until_applied()
        statuses = {member.name: member.status() for member in cluster.running}
        writers = Writers(cluster.running, VALUE_SIZES)
        writers.start()
        writers.wait_for(100)
        cluster.kill()
        writers.join()
        copies = tmp_path_factory.mktemp("copies")
        for name, member in cluster.members.items():
            etcd_member.copy(member.data_dir, copies / name)
        yield KilledCluster(cluster, copies, removed, statuses, writers.acknowledged, expected)


@pytest.fixture(params=["newest", "3.4"])
def etcd(request):
    with EtcdPackages(request.param) as packages:
        yield packages


def everything_logged(killed: KilledCluster, name: str) -> LogContents:
    """The whole log; that of the member that joined begins with the snapshot it was sent."""
    wal = killed.directory(name) / "wal"
    start = raftwal.valid_snapshots(wal)[1] if name == JOINED else None
    return WAL.open_for_read(wal, start).read_all()


@pytest.mark.parametrize("name", MEMBERS)
def test_raftwal_reads_the_same_as_etcds_packages(killed, etcd, name):
    member = killed.directory(name)
    vouched = raftwal.valid_snapshots(member / "wal")
    theirs = etcd.valid_snapshots(member / "wal")
    if etcd.line == "3.4":
        # It does not know of the membership.
        vouched = [snapshot._replace(conf_state=None) for snapshot in vouched]
    assert vouched == theirs

    snapshot = Snapshotter(member / "snap").load_newest(vouched)
    assert snapshot == etcd.snap_load_newest(member / "snap", theirs)
    assert snapshot.metadata.index >= 200

    log = WAL.open_for_read(member / "wal", snapshot.metadata).read_all()
    dump = etcd.read(member / "wal", snapshot.metadata)
    assert (log.metadata, log.hard_state, log.entries) == dump
    assert raftwal.verify(member / "wal", snapshot.metadata).entries == len(dump.entries)
    etcd.verify(member / "wal", snapshot.metadata)


@pytest.mark.parametrize("name", FIRST)
def test_the_whole_log_of_a_first_member_is_the_same_to_both(killed, etcd, name):
    wal = killed.directory(name) / "wal"
    log = WAL.open_for_read(wal).read_all()
    assert (log.metadata, log.hard_state, log.entries) == etcd.read(wal)
    assert log.entries[0].index == 1
    assert raftwal.verify(wal).entries == len(log.entries)


def test_the_log_of_a_member_that_joined_is_sound_but_not_one_to_start_empty_from(killed, etcd):
    wal = killed.directory(JOINED) / "wal"
    etcd.verify(wal)
    report = raftwal.verify(wal)
    assert report.entries == len(everything_logged(killed, JOINED).entries)
    with pytest.raises(EtcdError, match="slice bounds out of range"):
        etcd.read(wal)
    with pytest.raises(EntryGapError):
        WAL.open_for_read(wal).read_all()


@pytest.mark.parametrize("name", MEMBERS)
def test_raftwal_reads_the_same_as_etcds_own_dump(killed, name):
    contents = etcd_member.read_member(killed.directory(name))
    dump = dump_logs(killed.data_dir(name))
    metadata = contents.snapshot.metadata
    voters = metadata.conf_state.voters
    assert dump.snapshot == (metadata.term, metadata.index, voters)
    assert (dump.node_id, dump.cluster_id) == etcd_member.identity(contents.log.metadata)
    assert (dump.term, dump.vote, dump.commit) == contents.log.hard_state
    kinds = {EntryType.NORMAL: "norm", EntryType.CONF_CHANGE: "conf"}
    assert [(entry.term, entry.index, entry.kind, entry.data) for entry in dump.entries] == [
        (entry.term, entry.index, kinds[entry.type], entry.data or b"")
        for entry in contents.log.entries
    ]


@pytest.mark.parametrize("name", MEMBERS)
def test_the_storage_recovers_the_same_from_a_copy(killed, name, tmp_path):
    contents = etcd_member.read_member(killed.directory(name))
    copied = etcd_member.copy(killed.data_dir(name), tmp_path / "data") / "member"
    with RaftStorage.open(copied, registry=CollectorRegistry()) as storage:
        recovered = storage.recovered
    assert recovered.snapshot == contents.snapshot
    assert recovered.hard_state == contents.log.hard_state
    assert recovered.entries == contents.log.entries
    assert recovered.metadata == contents.log.metadata
    assert recovered.repair.repaired == (contents.log.torn_tail is not None)


def test_an_entry_of_one_index_and_term_is_the_same_in_every_member(killed):
    logs = {name: everything_logged(killed, name) for name in MEMBERS}
    for one, other in itertools.combinations(MEMBERS, 2):
        shared = {entry.index: entry for entry in logs[one].entries}
        compared = 0
        commit = min(logs[one].hard_state.commit, logs[other].hard_state.commit)
        for entry in logs[other].entries:
            counterpart = shared.get(entry.index)
            if counterpart is None:
                continue
            if entry.index <= commit or counterpart.term == entry.term:
                assert counterpart == entry, f"{one} and {other} differ"
                compared += 1
        # The member that was removed has little in common with the one that joined.
        assert compared >= (1 if killed.removed in (one, other) else 50)


def test_the_hard_states_agree_with_the_servers_last_words(killed):
    for name, status in killed.statuses.items():
        log = everything_logged(killed, name)
        node_id, cluster_id = etcd_member.identity(log.metadata)
        assert (node_id, cluster_id) == (status.member_id, status.cluster_id)
        assert log.hard_state.term >= status.term
        assert log.hard_state.commit <= log.entries[-1].index
        assert log.entries[-1].index >= status.commit
        if log.hard_state.term == status.term:
            # The vote of this term, where it was given at all: the leader was sent by another.
            assert log.hard_state.vote in (0, status.leader)


def test_every_acknowledged_write_is_in_the_logs_of_a_majority(killed):
    copies: Counter[str] = Counter()
    for name in killed.survivors:
        log = everything_logged(killed, name)
        values = (re.search(rb"m\d-\d+:x*", entry.data or b"") for entry in log.entries)
        copies.update({value[0].decode() for value in values if value is not None})
    assert len(killed.acknowledged) >= 100
    few = [key for key, value in killed.acknowledged.items() if copies[value] < 2]
    assert not few


def test_the_log_of_the_removed_member_ends_with_its_removal(killed):
    (*_, last) = everything_logged(killed, killed.removed).entries
    assert last.type == EntryType.CONF_CHANGE
    dumped = dump_logs(killed.data_dir(killed.removed)).entries[-1]
    contents = etcd_member.read_member(killed.directory(killed.removed))
    assert dumped.text == f"method=ConfChangeRemoveNode id={contents.node_id:x}"


def test_the_survivors_start_again_with_all_that_was_acknowledged(killed):
    cluster = killed.cluster
    cluster.start(*killed.survivors)
    cluster.wait_until_applied()
    expected = {**killed.earlier, **killed.acknowledged}
    for member in cluster.running:
        held = member.everything(local=True)
        assert {key: held.get(key) for key in expected} == expected
        assert "lost" not in held
        assert member.leases() == {77}
    cluster.kill()
