"""How far a leader may commit: its own copy counts when it is durable, as its peers' do.

PySyncObj's leader counts itself for all that is in its log.
"""

from __future__ import annotations

from typing import Any

from raftwal.pysyncobj.journal import DurableJournal

_LEADER = 2


def committed_by_durable_copies(sync_obj: Any, journal: DurableJournal, offered: int) -> int:
    """The commit index that a majority of durable copies bears out, at most ``offered``.

    ``offered`` is what PySyncObj has reckoned.  On a node that does not lead it comes
    from the leader, and stands.  Only an entry of the leader's own term counts by its
    copies (Raft paper, section 5.4.2).
    """
    if sync_obj is None or sync_obj._SyncObj__raftState != _LEADER:
        return offered
    match = sync_obj._SyncObj__raftMatchIndex
    copies = sorted(
        [journal.durable_index, *(match[node] for node in sync_obj._SyncObj__otherNodes)],
        reverse=True,
    )
    reached: int = copies[len(copies) // 2]
    if reached >= offered:
        return offered
    before = journal.getRaftCommitIndex()
    if reached > before and journal.holds(reached, journal.getCurrentTerm()):
        return reached
    return before
