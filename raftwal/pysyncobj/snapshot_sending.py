"""The newest snapshot on its way to peers, piece by piece from its file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from raftwal.background import Background
from raftwal.errors import RaftwalError
from raftwal.events import log
from raftwal.pysyncobj.dump import StoredDump, open_dump
from raftwal.pysyncobj.node import DurableNode

Chunk = tuple[bytes, bool, bool]
"""As PySyncObj sends it: data, whether it is the first, whether it is the (empty) last."""

ROUND_BYTES = 1 << 20
"""How much goes to a peer each time PySyncObj sends, and how much may wait in its connection:
what the network does not take is held in memory there, and copied with each piece."""

PROGRESS_SECONDS = 30.0
"""A transfer that got no further for so long holds up nothing any more."""
MOST_SECONDS = 300.0
"""No snapshot is held up for longer, whatever becomes of the peers: the log grows meanwhile."""


class _Transfer:
    def __init__(self, opening: Future[StoredDump | None], now: float) -> None:
        self.opening = opening
        self.last_piece = now
        self.sent = 0
        self.sent_in_round = 0
        self.ends_at: int | None = None
        """The snapshot's index, once the peer was sent all of it."""

    def close(self) -> None:
        self.opening.add_done_callback(_close_what_was_opened)


def _close_what_was_opened(opening: Future[StoredDump | None]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        return
    dump = opening.result()
    if dump is not None:
        dump.close()


class SnapshotSending:
    """One transfer for each peer that is behind; the thread that ticks calls.

    The file is checked in the ``background``.  It stays open until the transfer ends, so that
    a purge does not break it.
    """

    def __init__(
        self,
        node: DurableNode,
        batch_size: int,
        background: Background,
        now: Callable[[], float],
    ) -> None:
        self._node = node
        self._batch_size = batch_size
        self._background = background
        self._now = now
        self._transfers: dict[Any, _Transfer] = {}
        self._paused: dict[Any, tuple[int, int]] = {}
        self._not_before = 0.0
        self._holding_since: float | None = None

    def next_piece(self, peer: Any, *, may_begin: bool) -> Chunk | None:
        """The next piece for a peer; ``None`` when there is none at the moment."""
        transfer = self._transfers.get(peer)
        if transfer is not None and transfer.ends_at is not None:
            # It was of no use to the peer.
            self.cancel(peer)
            transfer = None
        if transfer is None:
            if not may_begin or not self._has_snapshot():
                self._nothing_now(peer)
                return None
            storage = self._node.storage
            opening = self._background.submit(lambda: open_dump(storage))
            transfer = self._transfers[peer] = _Transfer(opening, self._now())
        if not transfer.opening.done() or self._is_enough_for_now(peer, transfer):
            self._nothing_now(peer)
            return None
        try:
            dump = transfer.opening.result()
            piece = None if dump is None else dump.read(transfer.sent, self._batch_size)
        except (RaftwalError, OSError) as error:
            log.warning("snapshot_not_sent", path=self._node.data_dir, error=str(error))
            self._not_before = self._now() + PROGRESS_SECONDS / 10
            piece = None
        if piece is None:
            self.cancel(peer)
            self._nothing_now(peer)
            return None
        is_first = transfer.sent == 0
        transfer.sent += len(piece)
        transfer.sent_in_round += len(piece)
        transfer.last_piece = self._now()
        if dump is not None and not piece:
            transfer.ends_at = dump.description.last_index
            dump.close()
        return piece, is_first, not piece

    def cancel(self, peer: Any) -> None:
        """The peer is gone, or has it all; begin anew when it asks again."""
        transfer = self._transfers.pop(peer, None)
        if transfer is not None:
            transfer.close()

    def close(self) -> None:
        """End all transfers: there is a newer snapshot, or the node stops."""
        for peer in list(self._transfers):
            self.cancel(peer)
        self._holding_since = None

    def end_round(self) -> None:
        """PySyncObj has sent what it sends in this tick."""
        sync_obj = self._node.sync_obj()
        if sync_obj is None:
            return
        next_index = sync_obj._SyncObj__raftNextIndex
        for peer, (before, during) in self._paused.items():
            if next_index.get(peer) == during:
                next_index[peer] = before
        self._paused.clear()
        for peer, transfer in list(self._transfers.items()):
            transfer.sent_in_round = 0
            # Nobody asks for the rest, and it is not to be sent the next time: to a peer that
            # has caught up in another way, or by a node that has not led all the while.
            if transfer.ends_at is None:
                is_over = next_index.get(peer, 0) > self._node.journal[0][1]
            else:
                is_over = sync_obj._SyncObj__raftMatchIndex.get(peer, 0) >= transfer.ends_at
            if is_over or not sync_obj._isLeader():
                self.cancel(peer)

    def hold_up_the_next_snapshot(self) -> bool:
        """Whether a peer is on its way to the entries that a new snapshot would take away.

        What it was sent ends with them, and it needs them when it has opened that.  A leader
        that takes snapshots faster than a peer takes them in would never catch it up.
        """
        now = self._now()
        if not any(
            transfer.ends_at is not None or now - transfer.last_piece < PROGRESS_SECONDS
            for transfer in self._transfers.values()
        ):
            self._holding_since = None
            return False
        if self._holding_since is None:
            self._holding_since = now
        return now - self._holding_since < MOST_SECONDS

    def _has_snapshot(self) -> bool:
        return self._node.storage.snapshot_metadata.index > 0 and self._now() >= self._not_before

    def _is_enough_for_now(self, peer: Any, transfer: _Transfer) -> bool:
        waiting = _bytes_waiting(self._node.sync_obj(), peer)
        return max(waiting, transfer.sent_in_round) >= ROUND_BYTES

    def _nothing_now(self, peer: Any) -> None:
        """End PySyncObj's round for this peer, which would ask again until its period is over."""
        sync_obj = self._node.sync_obj()
        if sync_obj is None:
            return
        next_index = sync_obj._SyncObj__raftNextIndex
        if peer in next_index:
            end = self._node.journal[-1][1] + 1
            self._paused[peer] = next_index[peer], end
            next_index[peer] = end


def _bytes_waiting(sync_obj: Any, peer: Any) -> int:
    """What PySyncObj's own transport holds for a peer; another's is not known."""
    transport = getattr(sync_obj, "_SyncObj__transport", None)
    connections = getattr(transport, "_connections", None)
    connection = connections.get(peer) if isinstance(connections, dict) else None
    size = getattr(connection, "getSendBufferSize", None)
    return int(size()) if callable(size) else 0
