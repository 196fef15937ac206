"""The journal as PySyncObj uses it."""

from __future__ import annotations

import pytest

from raftwal.model import Entry, HardState
from raftwal.pysyncobj.journal import DurableJournal
from raftwal.pysyncobj.node_ids import Votes, member_id


def journal(hard_state=None, covered=(), entries=()):
    restored = []
    made = DurableJournal(
        Votes(["a:1", "b:1"]),
        hard_state or HardState(),
        covered,
        entries,
        on_one_second_timer=lambda: None,
        on_close=lambda: None,
        on_restored=restored.extend,
    )
    made.restored = restored
    return made


def entry(index, term=1):
    return (b"command %d" % index, index, term)


def with_entries(last, term=1):
    made = journal()
    made.setCurrentTerm(term, None)
    for index in range(1, last + 1):
        made.add(*entry(index, term))
    made.saved(made.take_unsaved().number)
    return made


def test_what_is_added_is_unsaved_until_it_is_taken():
    made = journal()
    made.add(b"x", 1, 0)
    assert made.of_promises > made.durable
    unsaved = made.take_unsaved()
    assert unsaved.entries == [Entry(0, 1, b"x")]
    assert unsaved.hard_state == HardState(0, 0, 1)
    assert made.take_unsaved() is None
    assert made.of_promises == unsaved.number > made.durable
    made.saved(unsaved.number)
    assert made.of_promises == made.durable


def test_a_term_and_vote_are_unsaved_until_taken_and_come_back_by_name():
    made = journal()
    made.setCurrentTerm(4, "b:1")
    assert made.of_term == made.of_promises == made.durable + 1
    state = made.take_unsaved().hard_state
    assert state == HardState(4, member_id("b:1"), 1)
    assert journal(state).getVotedForNodeId() == "b:1"
    assert journal(state).getCurrentTerm() == 4


def test_an_entry_leaves_a_durable_term_durable():
    made = with_entries(3)
    made.add(*entry(4))
    assert made.of_term == made.durable < made.of_promises


def test_the_log_is_durable_up_to_what_waits_or_is_under_way():
    made = with_entries(3)
    assert made.durable_index == 3
    made.add(*entry(4))
    first = made.take_unsaved()
    made.add(*entry(5))
    second = made.take_unsaved()
    made.add(*entry(6))
    assert made.durable_index == 3
    made.saved(first.number)
    assert made.durable_index == 4
    made.saved(second.number)
    assert made.durable_index == 5


def test_an_entry_that_replaces_a_durable_one_is_not_durable_yet():
    made = with_entries(5)
    made.setCurrentTerm(2, None)
    made.deleteEntriesFrom(2)
    made.add(*entry(3, 2))
    assert made.durable_index == 2
    unsaved = made.take_unsaved()
    assert made.durable_index == 2
    made.saved(unsaved.number)
    assert made.durable_index == 3


def test_a_snapshot_that_is_being_installed_shows_in_what_is_saved_only():
    """PySyncObj would apply what this log holds up to it, which is another log's."""
    made = with_entries(5)
    made.expect_snapshot(9)
    assert made.getRaftCommitIndex() == 1
    made.setCurrentTerm(3, None)
    assert made.take_unsaved().hard_state == HardState(3, 0, 9)
    made.set_snapshot_index(9)
    assert made.getRaftCommitIndex() == 9


def test_a_vote_for_an_unknown_node_is_still_a_vote():
    assert journal(HardState(3, 12345, 1)).getVotedForNodeId() is not None


def test_a_commit_index_alone_is_no_promise_but_is_saved_along():
    made = with_entries(3)
    made.setRaftCommitIndex(3)
    assert made.of_promises == made.durable
    assert not made.keeps_promises_unsaved
    assert made.take_unsaved().hard_state.commit == 3


@pytest.mark.parametrize(
    "promise",
    [
        lambda made: made.add(*entry(4)),
        lambda made: made.setCurrentTerm(2, None),
        lambda made: made.setCurrentTerm(1, "b:1"),
    ],
    ids=["entry", "term", "vote"],
)
def test_an_entry_a_term_and_a_vote_are_promises_to_be_saved(promise):
    made = with_entries(3)
    assert not made.keeps_promises_unsaved
    promise(made)
    assert made.keeps_promises_unsaved
    made.take_unsaved()
    assert not made.keeps_promises_unsaved


def test_the_commit_index_never_goes_back():
    made = with_entries(5)
    made.setRaftCommitIndex(5)
    made.setRaftCommitIndex(2)
    assert made.getRaftCommitIndex() == 5


def test_cutting_back_and_adding_the_same_entries_changes_nothing_on_disk():
    made = with_entries(5)
    made.deleteEntriesFrom(2)
    assert len(made) == 2
    for index in (3, 4, 5):
        made.add(*entry(index))
    made.setRaftCommitIndex(1)
    assert made[:] == [entry(index) for index in range(1, 6)]
    assert made.take_unsaved() is None


def test_entries_cut_back_and_not_contradicted_come_back_when_the_handler_ends():
    """A heartbeat that overlaps the log must not lose acknowledged entries."""
    made = with_entries(5)
    made.deleteEntriesFrom(2)
    made.setRaftCommitIndex(2)
    assert made[:] == [entry(index) for index in range(1, 6)]
    assert made.restored == [entry(3), entry(4), entry(5)]


def test_a_shorter_overlap_keeps_what_follows_it():
    made = with_entries(5)
    made.deleteEntriesFrom(2)
    made.add(*entry(3))
    made.setRaftCommitIndex(2)
    assert made[:] == [entry(index) for index in range(1, 6)]
    assert made.restored == [entry(4), entry(5)]


def test_an_entry_that_contradicts_drops_all_after_it():
    made = with_entries(5)
    made.setCurrentTerm(2, None)
    made.deleteEntriesFrom(2)
    made.add(*entry(3))
    made.add(b"other", 4, 2)
    made.setRaftCommitIndex(2)
    assert made[:] == [entry(1), entry(2), entry(3), (b"other", 4, 2)]
    assert made.take_unsaved().entries == [Entry(2, 4, b"other")]
    assert made.restored == []


def test_an_entry_that_contradicts_a_committed_one_is_reported():
    """Only a node that lost what it promised can send one."""
    made = with_entries(5)
    made.setRaftCommitIndex(4)
    made.deleteEntriesFrom(4)
    made.add(b"other", 5, 2)
    assert made.contradiction is None
    made.deleteEntriesFrom(3)
    made.add(b"other", 4, 2)
    assert made.contradiction.index == 4


def test_an_unsaved_entry_that_is_contradicted_is_never_saved():
    made = with_entries(2)
    made.add(*entry(3))
    made.add(*entry(4))
    made.deleteEntriesFrom(3)
    made.setCurrentTerm(2, None)
    made.add(b"other", 4, 2)
    made.setRaftCommitIndex(1)
    assert made.take_unsaved().entries == [Entry(1, 3, b"command 3"), Entry(2, 4, b"other")]


def test_what_a_handler_that_raised_cut_back_comes_back_with_the_next_cut():
    made = with_entries(5)
    made.deleteEntriesFrom(2)
    made.deleteEntriesFrom(4)
    made.setRaftCommitIndex(1)
    assert len(made) == 5


def test_the_log_begins_with_what_the_snapshot_covers():
    made = journal(HardState(2, 0, 9), covered=[entry(8, 2), entry(9, 2)], entries=[entry(10, 2)])
    assert made[0] == entry(8, 2)
    assert made[1] == entry(9, 2)
    assert made[-1] == entry(10, 2)
    assert made.take_unsaved() is None


def test_refilling_after_an_installed_snapshot_saves_nothing_that_is_in_it():
    made = with_entries(3)
    made.set_snapshot_index(20)
    made.clear()
    made.add(*entry(19))
    made.add(*entry(20))
    made.add(*entry(21))
    assert made.take_unsaved().entries == [Entry(1, 21, b"command 21")]


def test_a_lost_hard_state_behind_saved_entries_does_not_lower_the_term():
    """Entries of term 7 reached the disk, the hard state written after them did not."""
    made = journal(HardState(6, member_id("a:1"), 1), entries=[entry(1, 7)])
    assert made.getCurrentTerm() == 7
    assert made.getVotedForNodeId() is None


@pytest.mark.parametrize("command", ["text", b"bytes"])
def test_commands_are_bytes_in_the_log(command):
    made = journal()
    made.add(command, 1, 0)
    assert isinstance(made[0][0], bytes)


def test_member_ids_are_64_bit_stable_and_never_zero():
    assert member_id("127.0.0.1:4321") == member_id("127.0.0.1:4321")
    ids = {member_id(f"node{n}:1") for n in range(1000)}
    assert len(ids) == 1000
    assert all(0 < each < 1 << 64 for each in ids)
