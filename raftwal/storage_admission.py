"""What a storage takes: it refuses what its recovery would refuse, or take for damage."""

from __future__ import annotations

from collections.abc import Sequence

from raftwal.errors import InvalidEntryError, InvalidSnapshotError, SnapshotOutOfDateError
from raftwal.held_log import HeldLog
from raftwal.model import Entry, SnapshotMetadata


def check_save(
    commit: int,
    entries: Sequence[Entry],
    held: HeldLog,
    snapshot: SnapshotMetadata,
    unvouched: SnapshotMetadata | None,
) -> None:
    """Raises `InvalidEntryError` unless ``entries``, saved with ``commit``, can follow.

    They follow on what is ``held`` and on ``snapshot``, or on the ``unvouched`` one if this
    commit index vouches for it.
    """
    covered, last = snapshot.index, held.last_index
    if unvouched is not None and commit >= unvouched.index:
        covered = unvouched.index
        last = max(last, covered) if held.agrees_with(unvouched) else covered
    if entries:
        first, last_after = entries[0][1], entries[-1][1]
        if first <= snapshot.index:
            raise InvalidEntryError(
                f"entry {first} is in the snapshot of index {snapshot.index}", index=first
            )
        if first > last + 1:
            raise InvalidEntryError(
                f"entry {first} cannot follow entry {last}"
                + (
                    ""
                    if unvouched is None
                    else ": no commit index vouches for the "
                    f"snapshot of index {unvouched.index} yet"
                ),
                index=first,
            )
        # The log may reach a received snapshot's index entry by entry, too.
        last = max(last_after, covered)
    if commit > last:
        raise InvalidEntryError(f"commit index {commit} is above the last entry, {last}")
    if commit < snapshot.index:
        raise InvalidEntryError(f"commit index {commit} is below the snapshot's, {snapshot.index}")


def check_snapshot(
    offered: SnapshotMetadata, commit: int, held: HeldLog, snapshot: SnapshotMetadata
) -> None:
    """Raises `SnapshotOutOfDateError` unless ``offered`` is newer than ``snapshot``, and
    `InvalidSnapshotError` when a committed entry contradicts it.
    """
    index = offered.index
    if index <= snapshot.index:
        raise SnapshotOutOfDateError(f"there is a snapshot of index {snapshot.index}", index=index)
    if index <= min(commit, held.last_index) and not held.agrees_with(offered):
        # Recovery would take the log for what the snapshot contradicts, and drop it.
        raise InvalidSnapshotError(
            f"the committed entry at this index is of term {held.term(index)}, not {offered.term}",
            index=index,
            advice="",
        )
