"""The values that a Raft log stores: small, immutable, cheap to make.

The names and meanings are those of etcd's ``raftpb`` messages.  Every type is a
``NamedTuple``: entries are made by the hundred thousand, and a tuple costs a
fraction of what a message object does.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class EntryType(enum.IntEnum):
    """What an entry's ``data`` holds (``raftpb.EntryType``)."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Entry(NamedTuple):
    """One entry of the replicated log.

    ``term`` and ``index`` are unsigned 64-bit, ``index`` counting from 1.
    ``data`` is opaque; ``None`` (no data) and ``b""`` (empty data) are different
    values on disk, as they are to etcd.
    """

    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    data: bytes | None = None
    type: EntryType = EntryType.NORMAL


class HardState(NamedTuple):
    """What a node must remember to keep its promises (Raft paper, figure 2).

    ``vote`` is the 64-bit id of the node voted for in ``term``, 0 for none;
    ``commit`` is the highest index known to be committed.
    """

    term: int = 0
    vote: int = 0
    commit: int = 0


class ConfState(NamedTuple):
    """The cluster's membership at some index, as 64-bit node ids."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class SnapshotMetadata(NamedTuple):
    """Up to where a snapshot reaches: the last entry it covers, and the membership."""

    index: int = 0  # type: ignore[assignment]  # hides tuple.index
    term: int = 0
    conf_state: ConfState | None = None


class Snapshot(NamedTuple):
    """A state machine's state up to ``metadata.index``, as opaque bytes."""

    metadata: SnapshotMetadata
    data: bytes = b""


class InitialState(NamedTuple):
    """What a Raft library starts from, besides the log (etcd's ``Storage.InitialState``)."""

    hard_state: HardState
    conf_state: ConfState


def must_sync(state: HardState, previous: HardState, entry_count: int) -> bool:
    """Whether a save has to be durable before any message that follows on it leaves.

    It has when there are entries, or when the term or the vote is another than in
    ``previous``; a commit index alone is no promise (Raft paper, figure 2, "persistent
    state on all servers"; etcd's ``raft.MustSync``).
    """
    return entry_count != 0 or state[:2] != previous[:2]


EMPTY_HARD_STATE = HardState()
START_OF_LOG = SnapshotMetadata()
"""The snapshot that every new log starts from: nothing, at index 0 and term 0."""
MAX_UINT64 = (1 << 64) - 1
