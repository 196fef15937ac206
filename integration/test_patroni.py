"""Patroni in its Raft mode on raftwal, with real PostgreSQL: two members and a controller.

The tests hand one cluster on, from a plain Patroni to raftwal and back, as docs/patroni.md
has it: the commands are that page's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from patroni_cluster import PatroniCluster
from patroni_environment import PatroniEnvironment
from patroni_node import Member, RaftProcess, documented, wait_until
from small_disks import small_disks

STORAGE_FAILED = 74


@pytest.fixture(scope="module")
def environment() -> Iterator[PatroniEnvironment]:
    with PatroniEnvironment() as environment:
        yield environment


@pytest.fixture(scope="module")
def patroni(environment) -> Iterator[PatroniCluster]:
    """A cluster that runs without raftwal; its members have small disks for their logs."""
    cluster = PatroniCluster(environment, environment.directory / "cluster")
    try:
        with small_disks("ext4", [member.raft_dir for member in cluster.members]) as disks:
            for member, disk in zip(cluster.members, disks, strict=True):
                environment.give(disk.path)
                member.disk = disk
            for each in cluster.all:
                each.is_durable = False
            cluster.start()
            yield cluster
            cluster.kill()
    finally:
        environment.kill_everything(cluster.directory)


@pytest.fixture
def durable(patroni) -> PatroniCluster:
    """The cluster once it runs on raftwal."""
    if not all(each.is_durable for each in patroni.all):
        pytest.fail("the cluster was not switched: see the first test")
    patroni.wait_until_whole()
    return patroni


def the_leader_last(cluster: PatroniCluster) -> list[RaftProcess]:
    leader = cluster.raft_leader()
    return sorted(cluster.all, key=lambda each: each is leader)


def postmasters(cluster: PatroniCluster) -> list[int]:
    return [member.postmaster() for member in cluster.members]


def check_nothing_lost(cluster: PatroniCluster, acknowledged: list[str]) -> None:
    content = cluster.same_content()
    assert acknowledged, "nothing was acknowledged, so nothing was checked"
    lost = [key for key in acknowledged if key not in content]
    assert not lost, f"{len(lost)} of {len(acknowledged)}: {lost[:5]}"


def test_a_running_cluster_is_switched_one_member_at_a_time(patroni):
    primary = patroni.wait_until_whole()
    for each in patroni.all:
        # So that each has a dump beside its journal.
        each.take_snapshot()
        wait_until((each.raft_dir / f"{each.address}.dump").exists, "the dump")
    before = postmasters(patroni)
    with patroni.writer("/switched/", 100) as writer:
        primary.run(documented("patronictl", "pause --wait"))
        for each in the_leader_last(patroni):
            assert each.stop() == 0
            each.is_durable = True
            each.start()
            wait_until(each.is_ready, f"{each.name} to be ready")
        primary.run(documented("patronictl", "resume --wait"))
        writer.wait_for_more(20)
        acknowledged = writer.acknowledged()
    assert patroni.wait_until_whole() is primary
    assert postmasters(patroni) == before, "PostgreSQL was restarted"
    check_nothing_lost(patroni, acknowledged)
    for each in patroni.all:
        assert each.data_dir.is_dir()
        assert each.journal.with_name(f"{each.journal.name}.migrated").exists()
        # "Then move the old files away".
        for old in each.raft_dir.glob(f"{each.address}.*"):
            if old != each.data_dir:
                old.unlink()


def test_it_has_one_leader_and_a_replica_that_streams(durable):
    primary = durable.primary()
    replica = durable.other(primary)
    assert primary.query("SELECT pg_is_in_recovery()") == "f"
    primary.query("CREATE TABLE written AS SELECT 1 AS it")
    wait_until(lambda: rows(replica) == "1", "the table to be replicated")
    status = durable.admin(durable.controller, "-status")
    assert f"leader: {durable.raft_leader().address}" in status
    assert "storage_failure: None" in status
    assert f"/service/raftwal/members/{primary.name}" in durable.same_content()
    for each in durable.all:
        # Nothing of PySyncObj's own.
        assert [path for path in each.raft_dir.iterdir() if path.is_file()] == []


def rows(member: Member) -> str:
    return member.query("SELECT to_regclass('written')") and member.query(
        "SELECT string_agg(it::text, ',' ORDER BY it) FROM written"
    )


def test_postgresql_holds_nothing_of_the_log_open(durable):
    """It outlives a Patroni that is killed, and must not keep its lock."""
    for postmaster in postmasters(durable):
        names = [str(path.readlink()) for path in Path(f"/proc/{postmaster}/fd").iterdir()]
        assert not [name for name in names if "/raft/" in name]


def test_killed_and_restarted_all_at_once_it_has_everything_it_acknowledged(environment, durable):
    """PySyncObj's issue 201: all members restart together, one that joined later among them."""
    durable.primary().patch_config({"maximum_lag_on_failover": 123456})
    with durable.one_more("joined"):
        with durable.writer("/killed/", 100) as writer:
            writer.wait_for_more(20)
            for each in durable.all:
                each.take_snapshot()
            writer.wait_for_more(20)
            durable.kill()
            acknowledged = writer.acknowledged()
        assert environment.processes(durable.directory) == []

        durable.start()

        durable.wait_until_whole()
        durable.raft_leader()
        check_nothing_lost(durable, acknowledged)
        for member in durable.members:
            assert member.get("/config")["maximum_lag_on_failover"] == 123456
        assert durable.partners() == {3}


def test_a_full_disk_under_the_raft_leader_stops_that_member_and_the_others_go_on(
    environment, durable
):
    """PySyncObj's issue 164: there it died of SIGBUS.  The primary is on the same member."""
    primary = durable.primary()
    replica = durable.other(primary)
    durable.move_raft_leader(primary)
    primary.disk.fill()
    with durable.writer("/full/", 2000) as writer:
        assert primary.wait_for_exit() == STORAGE_FAILED
        # In good order: PostgreSQL does not go on as a primary that nobody watches.
        assert environment.processes(primary.directory) == []
        wait_until(replica.is_primary, "the replica to be promoted")
        writer.wait_for_more(1)
        acknowledged = writer.acknowledged()
    assert "No space left on device" in primary.last_words()
    assert durable.raft_leader() is not primary
    replica.query("INSERT INTO written VALUES (2)")

    primary.disk.free()
    primary.start()

    assert durable.wait_until_whole() is replica
    check_nothing_lost(durable, acknowledged)
    wait_until(lambda: rows(primary) == "1,2", "PostgreSQL to catch up")


def test_it_goes_back_one_member_at_a_time_and_every_log_is_sound(durable):
    primary = durable.primary()
    before = postmasters(durable)
    with durable.writer("/back/", 100) as writer:
        primary.run(documented("patronictl", "pause --wait"))
        for each in the_leader_last(durable):
            assert each.stop() == 0
            each.run(documented("raftwal verify"))
            each.run(documented("raftwal migrate --back"))
            each.is_durable = False
            each.start()
            wait_until(each.is_in_step, f"{each.name} to be in step")
        primary.run(documented("patronictl", "resume --wait"))
        writer.wait_for_more(20)
        acknowledged = writer.acknowledged()
    assert durable.wait_until_whole() is primary
    assert postmasters(durable) == before, "PostgreSQL was restarted"
    check_nothing_lost(durable, acknowledged)
