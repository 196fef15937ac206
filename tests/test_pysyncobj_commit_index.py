"""When a node's commit index reaches its disk: with a save that is needed, and not by itself."""

from __future__ import annotations

import shutil

import pytest
from clusters import KV, free_addresses, tick_until
from pysyncobj import FAIL_REASON

from raftwal import WAL, RaftStorage
from raftwal.pysyncobj.journal import DurableJournal
from raftwal.testing import InlineExecutor


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node on its own, whose saves are durable at once; no second is ever over."""
    # PySyncObj tells the journal.
    monkeypatch.setattr(DurableJournal, "onOneSecondTimer", lambda journal: None)
    made = KV(free_addresses(1)[0], [], tmp_path / "node", save_executor=InlineExecutor())
    tick_until(made, made.isReady)
    yield made
    made.destroy()


@pytest.fixture
def saves(node):
    """What the node saves: hard states and entries."""
    storage, noted = node._durable_node.storage, []
    save = storage.save

    def noting(hard_state, entries=()):
        noted.append((hard_state, list(entries)))
        save(hard_state, entries)

    storage.save = noting
    return noted


def put(node, key):
    answers = []
    node.put(key, key, callback=lambda _, reason: answers.append(reason))
    tick_until(node, lambda: answers == [FAIL_REASON.SUCCESS])


def after_a_kill(node, directory):
    """The data directory as the system has it: without what the process still held."""
    shutil.copytree(node.data_dir, directory)
    return directory


def commit_in(directory):
    with WAL.open_for_read(directory / "wal") as wal:
        return wal.read_all().hard_state.commit


def test_no_save_is_for_a_commit_index_alone(node, saves):
    for number in range(5):
        put(node, number)
        for _ in range(3):
            node.doTick(0.0)
    assert len(saves) == 5
    assert all(entries for _, entries in saves)
    assert node._durable_node.storage.hard_state.commit < node.raftCommitIndex


def test_the_commit_index_goes_along_with_the_next_save(node, saves):
    put(node, "first")
    commit = node.raftCommitIndex
    put(node, "second")
    hard_state, entries = saves[-1]
    assert entries
    assert hard_state.commit == commit


def test_the_system_has_the_commit_index_a_second_later(node, tmp_path):
    put(node, "k")
    node._durable_node.hand_over_commit()
    node.doTick(0.0)
    assert commit_in(after_a_kill(node, tmp_path / "killed")) == node.raftCommitIndex


def test_the_commit_index_is_there_after_an_orderly_end(node, tmp_path):
    put(node, "k")
    commit = node.raftCommitIndex
    node.destroy()
    assert commit_in(tmp_path / "node") == commit


def test_a_snapshot_is_recorded_behind_the_commit_index_that_vouches_for_it(node, tmp_path):
    """Recovery would pass it over otherwise, and the entries before it would stay for ever."""
    for number in range(5):
        put(node, number)
    storage, index = node._durable_node.storage, node.raftLastApplied
    assert storage.hard_state.commit < index
    node.forceLogCompaction()
    tick_until(node, lambda: storage.snapshot_metadata.index == index)
    with RaftStorage.open(after_a_kill(node, tmp_path / "killed")) as killed:
        assert killed.recovered.snapshot.metadata.index == index


def test_what_was_acknowledged_is_there_without_the_commit_index_that_covers_it(node, tmp_path):
    for number in range(5):
        put(node, number)
    killed = after_a_kill(node, tmp_path / "killed")
    assert commit_in(killed) < node.raftCommitIndex
    node.destroy()
    again = KV(node.selfNode.id, [], killed)
    tick_until(again, lambda: again.values == node.values)
    again.destroy()
