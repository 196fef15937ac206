"""A PySyncObj cluster on raftwal: restart, snapshots, membership, what it refuses."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings

import pytest
from clusters import (
    KV,
    cluster,
    fast_conf,
    free_addresses,
    node_with_own_serializer,
    offer_snapshot,
    tick_until,
)
from pysyncobj import SyncObj, SyncObjConf, replicated
from watched_disk import WatchedDisk

import raftwal
from raftwal import HardState, RaftStorage
from raftwal.errors import IdentityMismatchError, LockedError
from raftwal.pysyncobj import DurableSyncObj, StorageSettings


def fill(nodes, node, count, start=0):
    for number in range(start, start + count):
        assert nodes.put(node, number, number) == 0


def compact(nodes, node):
    before = node._durable_node.storage.snapshot_metadata.index
    node.forceLogCompaction()
    nodes.tick_until(
        lambda: node._durable_node.storage.snapshot_metadata.index > before, "a snapshot"
    )


def test_a_single_node_starts_commits_and_comes_back(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        address = nodes.addresses[0]
        node = nodes.start(address)
        nodes.wait_for_leader()
        fill(nodes, node, 20)
        nodes.stop(address)
        node = nodes.start(address)
        nodes.wait_for_values({number: number for number in range(20)})


def test_after_a_restart_what_was_committed_is_applied_without_any_peer(tmp_path):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        fill(nodes, leader, 30)
        expected = {number: number for number in range(30)}
        nodes.wait_for_values(expected)
        nodes.stop_all()
        alone = nodes.start(nodes.addresses[0])
        nodes.tick_until(lambda: alone.values == expected, "the committed values")
        assert not alone._isLeader()


def test_a_restart_begins_at_the_newest_snapshot_and_replays_the_rest(tmp_path):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        fill(nodes, leader, 40)
        for node in nodes.nodes.values():
            compact(nodes, node)
        fill(nodes, leader, 10, start=40)
        expected = {number: number for number in range(50)}
        nodes.wait_for_values(expected)
        nodes.stop_all()
        nodes.start_all()
        for node in nodes.nodes.values():
            assert node.recovered.snapshot is not None
            assert node.recovered.snapshot.metadata.index > 30
            assert 10 <= node.recovered.entry_count < 30
            assert len(node.recovered.snapshot.metadata.conf_state.voters) == 3
        nodes.wait_for_values(expected)


def test_the_journal_and_the_segments_shrink_after_a_snapshot(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0], segment_bytes=4096, keep_segments=2)
        nodes.wait_for_leader()
        fill(nodes, node, 300)
        wal = nodes.data_dir(nodes.addresses[0]) / "wal"
        before = len(list(wal.glob("*.wal")))
        compact(nodes, node)
        nodes.tick_until(lambda: node.getStatus()["log_len"] < 10, "a short journal")
        assert before > 4
        assert len(list(wal.glob("*.wal"))) <= 3


def test_a_follower_that_fell_behind_installs_the_leaders_snapshot_durably(tmp_path):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        behind = next(a for a in nodes.addresses if a != leader.selfNode.id)
        nodes.stop(behind)
        fill(nodes, leader, 60)
        for node in nodes.nodes.values():
            compact(nodes, node)
        fill(nodes, leader, 5, start=60)
        node = nodes.start(behind)
        expected = {number: number for number in range(65)}
        nodes.wait_for_values(expected)
        installed = node._durable_node.storage.snapshot_metadata
        assert installed.index > 50
        nodes.stop_all()
        # Alone, from its own disk: the snapshot it was sent, and what followed.
        node = nodes.start(behind)
        assert node.recovered.snapshot.metadata.index >= installed.index
        nodes.tick_until(lambda: len(node.values) >= 60, "the snapshot's values")


def test_a_damaged_snapshot_from_a_peer_is_refused_and_replaces_nothing(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        fill(nodes, node, 5)
        dump = gzip.compress(pickle.dumps(({"values": {}}, (b"\1", 90, 1), (b"\1", 89, 1), [])))
        damaged = dump[:-20] + bytes(20)
        offer_snapshot(node, damaged)
        assert node.storage_failure is None
        assert node._durable_node.storage.snapshot_metadata.index == 0
        assert len(node.values) == 5


def test_a_snapshot_that_is_older_than_the_state_is_passed_over(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        fill(nodes, node, 5)
        dump = gzip.compress(pickle.dumps(({"values": {}}, (b"\1", 3, 1), (b"\1", 2, 1), [])))
        offer_snapshot(node, dump)
        assert node._durable_node.storage.snapshot_metadata.index == 0


def test_a_term_and_a_vote_survive_a_restart(tmp_path):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        term = follower.raftCurrentTerm
        address = follower.selfNode.id
        voted = follower._durable_node.journal.getVotedForNodeId()
        nodes.stop_all()
        node = nodes.start(address)
        assert node.raftCurrentTerm >= term
        assert node._durable_node.journal.getVotedForNodeId() == voted


def test_another_nodes_directory_is_refused(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        nodes.start(nodes.addresses[0])
        nodes.stop_all()
        with pytest.raises(IdentityMismatchError, match="belongs to node id"):
            KV("127.0.0.1:1", [], nodes.data_dir(nodes.addresses[0]))


def test_another_clusters_directory_is_refused(tmp_path):
    (address,) = free_addresses(1)
    KV(address, [], tmp_path / "n", cluster_name="one").destroy()
    with pytest.raises(IdentityMismatchError, match="cluster name 'one', not 'two'"):
        KV(address, [], tmp_path / "n", cluster_name="two")


def test_a_directory_in_use_is_refused_and_the_first_user_goes_on(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        address = nodes.addresses[0]
        node = nodes.start(address)
        with pytest.raises(LockedError):
            KV(address, [], nodes.data_dir(address))
        nodes.wait_for_leader()
        assert nodes.put(node, "a", 1) == 0


def test_a_snapshot_of_other_software_is_refused(tmp_path):
    (address,) = free_addresses(1)
    identity = raftwal.Identity(address)
    with RaftStorage.open(tmp_path / "n", identity=identity) as storage:
        storage.save(HardState(1, 1, 1), [raftwal.Entry(1, 1, b"x")])
        storage.save_snapshot(raftwal.Snapshot(raftwal.SnapshotMetadata(1, 1), b"something else"))
    with pytest.raises(raftwal.RaftwalError, match="not made by raftwal's PySyncObj adapter"):
        KV(address, [], tmp_path / "n")
    # Nothing is left open.
    RaftStorage.open(tmp_path / "n", identity=identity).close()


class Unloadable:
    def __reduce__(self):
        return (_raise_on_load, ())


def _raise_on_load():
    raise RuntimeError("the class of this object is gone")


def test_a_snapshot_that_cannot_be_loaded_stops_the_node_instead_of_starting_it_empty(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        address = nodes.addresses[0]
        node = nodes.start(address)
        nodes.wait_for_leader()
        fill(nodes, node, 5)
        node.values["bad"] = Unloadable()
        compact(nodes, node)
        nodes.stop(address)
        failures = []
        node = nodes.start(address, on_storage_failure=failures.append)
        nodes.tick_until(lambda: node.storage_failure is not None, "the node to stop")
        assert "the class of this object is gone" in node.healthy()
        assert len(failures) == 1


def test_consumers_and_a_custom_serializer_keep_their_meaning(tmp_path):
    (address,) = free_addresses(1)
    node, values, written = node_with_own_serializer(address, tmp_path / "n")
    tick_until(node, node._isLeader)
    for number in range(30):
        values.set(number, number)
    tick_until(node, lambda: len(values) == 30)
    node.forceLogCompaction()
    tick_until(node, lambda: node._durable_node.storage.snapshot_metadata.index > 0)
    values.set("after", 1)
    tick_until(node, lambda: "after" in values)
    node.destroy()
    assert written

    node, values, _ = node_with_own_serializer(address, tmp_path / "n")
    assert node.recovered.snapshot is not None
    tick_until(node, lambda: "after" in values)
    assert len(values) == 31
    node.destroy()


def test_a_node_that_joins_gets_everything_and_keeps_it(tmp_path):
    with cluster(tmp_path, size=2, dynamicMembershipChange=True) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        fill(nodes, leader, 20)
        compact(nodes, leader)
        (new,) = free_addresses(1)
        answers = []
        leader.addNodeToCluster(new, callback=lambda _, reason: answers.append(reason))
        nodes.tick_until(lambda: bool(answers), "the change of membership")
        assert answers == [0]
        nodes.addresses.append(new)
        nodes.start(new)
        expected = {number: number for number in range(20)}
        nodes.wait_for_values(expected)
        leader = nodes.wait_for_leader()
        compact(nodes, leader)
        voters = leader._durable_node.storage.snapshot_metadata.conf_state.voters
        assert len(voters) == 3
        nodes.stop_all()
        nodes.start_all()
        nodes.wait_for_values(expected)


def test_auto_tick_runs_and_destroy_closes_the_storage(tmp_path):
    (address,) = free_addresses(1)
    node = KV(address, [], tmp_path / "n", SyncObjConf(autoTickPeriod=0.005))
    assert node.put("a", 1, sync=True, timeout=30) == 1
    node.destroy_synchronous()
    with RaftStorage.open(tmp_path / "n", identity=raftwal.Identity(address)) as storage:
        assert storage.recovered.entries[-1].index >= 2


def test_without_a_snapshot_in_the_way_plain_syncobjs_are_untouched(tmp_path):
    """The replaced names pass on what does not concern raftwal."""
    (address,) = free_addresses(1)

    class Plain(SyncObj):
        def __init__(self):
            super().__init__(address, [], fast_conf(journalFile=str(tmp_path / "plain.journal")))
            self.count = 0

        @replicated
        def add(self):
            self.count += 1

    node = Plain()
    for _ in range(500):
        node.doTick(0.002)
        if node._isLeader():
            break
    node.destroy()
    assert (tmp_path / "plain.journal").exists()
    assert type(node._SyncObj__raftLog).__name__ == "FileJournal"


INSTALLED = """
    import sys
    from pysyncobj import SyncObj, SyncObjConf, replicated
    import raftwal.pysyncobj
    raftwal.pysyncobj.install(raftwal.pysyncobj.StorageSettings(segment_bytes=1 << 16))
    raftwal.pysyncobj.install(raftwal.pysyncobj.StorageSettings(segment_bytes=1 << 16))

    address, journal, expected = sys.argv[1], sys.argv[2], int(sys.argv[3])

    class Counter(SyncObj):
        def __init__(self):
            super().__init__(address, [], SyncObjConf(
                journalFile=journal, fullDumpFile=journal + ".dump", autoTickPeriod=0.005))
            self.count = 0

        @replicated
        def add(self):
            self.count += 1
            return self.count

    counter = Counter()
    for _ in range(10):
        last = counter.add(sync=True, timeout=30)
    assert last == expected, last
    assert counter.getStatus()["storage_failure"] is None
    counter.destroy_synchronous()
"""


def test_install_makes_an_application_durable_that_one_does_not_own(tmp_path):
    (address,) = free_addresses(1)
    journal = tmp_path / "journal"

    def run(expected):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(INSTALLED), address, str(journal), expected],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    for expected in ("10", "20"):
        done = run(expected)
        assert done.returncode == 0, done.stderr
    assert not journal.exists()
    assert raftwal.wal_exists(f"{journal}.raftwal/wal")


def test_install_refuses_to_forget_a_journal_that_pysyncobj_left(tmp_path):
    (address,) = free_addresses(1)
    journal = tmp_path / "journal"
    journal.write_bytes(b"PYSYNCOBJ")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INSTALLED), address, str(journal), "10"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "there is a journal of PySyncObj's own" in done.stderr
    assert not (tmp_path / "journal.raftwal").exists()


def test_pysyncobjs_false_alarm_about_truncation_is_not_logged(tmp_path, caplog, monkeypatch):
    with cluster(tmp_path) as nodes:
        nodes.start_all()
        leader = nodes.wait_for_leader()
        follower = next(node for node in nodes.nodes.values() if node is not leader)
        fill(nodes, leader, 20)
        nodes.wait_for_values({number: number for number in range(20)})
        journal = follower._durable_node.journal
        entries = journal[:]
        cuts = []
        cut = journal.deleteEntriesFrom
        monkeypatch.setattr(
            journal, "deleteEntriesFrom", lambda position: (cuts.append(position), cut(position))
        )
        # As after a reconnection: the leader sends what the follower has.
        leader._SyncObj__raftNextIndex[follower.selfNode] = 5
        nodes.tick_until(lambda: bool(cuts), "PySyncObj to cut the follower's log")
        assert journal[: len(entries)] == entries
    assert "truncating" not in caplog.text


def test_observers_hold_a_log_of_their_own(tmp_path):
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        observer = KV(None, nodes.addresses, tmp_path / "observer")
        fill(nodes, node, 5)
        for _ in range(3000):
            if len(observer.values) == 5:
                break
            nodes.tick()
            observer.doTick(0.002)
        observer.destroy()
        assert len(observer.values) == 5


@pytest.mark.parametrize("preallocation", ["zeros", "reserve"])
def test_settings_are_the_storages(tmp_path, preallocation):
    zeros = []

    def look(call, path, arguments):
        if call == "write" and not any(b"".join(arguments[1:])):
            zeros.append(path)

    settings = StorageSettings(
        segment_bytes=8192, preallocation=preallocation, fs=WatchedDisk(look)
    )
    (address,) = free_addresses(1)
    node = DurableSyncObj(address, [], fast_conf(), data_dir=tmp_path / "n", settings=settings)
    (segment,) = (tmp_path / "n" / "wal").glob("*.wal")
    assert segment.stat().st_size == 8192
    node.destroy()
    assert bool(zeros) == (preallocation == "zeros")


def test_a_forked_copy_of_a_node_leaves_its_log_alone(tmp_path):
    """Two processes that write to one log would tear it."""
    with cluster(tmp_path, size=1) as nodes:
        node = nodes.start(nodes.addresses[0])
        nodes.wait_for_leader()
        nodes.put(node, "x", 1)

        def files():
            paths = (path for path in tmp_path.rglob("*") if path.suffix in (".wal", ".snap"))
            return {path: path.read_bytes() for path in paths}

        node.put("pending", 2)
        before = files()
        with warnings.catch_warnings():
            # From Python 3.12 on: the process has threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            # The threads of its node were not forked: it must not wait for them.
            signal.alarm(20)
            try:
                node._SyncObj__raftLog.add(b"of the child", node._SyncObj__raftLog[-1][1] + 1, 1)
                node._durable_node.flush()
                node._durable_node.close()
            finally:
                os._exit(0 if files() == before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert files() == before
        assert nodes.put(node, "y", 3) == 0
        assert node.values == {"x": 1, "pending": 2, "y": 3}
