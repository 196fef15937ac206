"""What stands around PySyncObj's handler of messages, where alone it would break a promise.

The messages stay as plain PySyncObj nodes know them; an acknowledgement has a field more,
which they do not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pysyncobj import pickle

from raftwal.pysyncobj.barrier import Handler
from raftwal.pysyncobj.journal import DurableJournal

_STOP = b"."
"""A pickle ends with it."""

_OF_A_LEADER = ("type", "term", "commit_index")
"""What each append_entries has, with entries or a piece of a snapshot or neither."""


class Reception:
    """Corrects what PySyncObj makes of a message.

    ``sync_obj`` gives the SyncObj, or ``None``; ``is_installing`` says whether a received
    snapshot is on its way to the disk.
    """

    def __init__(
        self,
        journal: DurableJournal,
        sync_obj: Callable[[], Any],
        is_installing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._sync_obj = sync_obj
        self._is_installing = is_installing
        # From where on the leader was asked to send, in which term, until it does.
        self._wanted: tuple[int, int] | None = None

    def completed(self, message: Any) -> Any:
        """An acknowledgement with its term, which PySyncObj leaves out.

        One that was given to a leader of an earlier term, and comes late, would count for
        another entry of the same index once the same node leads again.
        """
        if not isinstance(message, dict) or message.get("type") != "next_node_idx":
            return message
        message = {**message, "term": self._journal.getCurrentTerm()}
        if message["success"]:
            self._wanted = None
        elif message["reset"]:
            message["next_node_idx"] = self._wanted_from(message["next_node_idx"])
        return message

    def _wanted_from(self, index: int) -> int:
        """From where on to ask the leader to send, where PySyncObj would ask from ``index``.

        A leader sends several messages at once.  If the first does not fit the log,
        none of them does, and PySyncObj's answers to the others take back its answer to
        the first: node and leader can go on like that for ever.  And it goes back entry
        by entry, where all that is not known to be committed may have to be replaced.
        """
        term = self._journal.getCurrentTerm()
        if index <= self._journal[-1][1]:
            index = min(index, self._journal.getRaftCommitIndex() + 1)
        if self._wanted is not None and self._wanted[0] == term:
            index = min(index, self._wanted[1])
        self._wanted = (term, index)
        return index

    def around(self, handler: Handler) -> Handler:
        """PySyncObj's handler, corrected."""

        def receive(node: Any, message: Any) -> None:
            kind = message.get("type") if isinstance(message, dict) else None
            if kind == "append_entries":
                self._receive_entries(handler, node, message)
            elif kind != "next_node_idx":
                handler(node, message)
            elif self._is_of_this_term(message):
                self._receive_acknowledgement(handler, node, message)

        return receive

    def _receive_acknowledgement(
        self, handler: Handler, node: Any, message: dict[str, Any]
    ) -> None:
        """Note what a follower has; what is on its way to it is not sent again.

        PySyncObj sends on from what was acknowledged last, so under load it sends most
        entries several times.  As in etcd, an acknowledgement only moves on what is to be
        sent next.  That is no promise, and what was lost on its way is sent again all the
        same: with each heartbeat the follower compares what is before that index, and an
        answer that says that it does not fit (``reset``) still sets it back.
        """
        sync_obj = self._sync_obj()
        next_index = {} if sync_obj is None else sync_obj._SyncObj__raftNextIndex
        before = next_index.get(node)
        handler(node, message)
        if before is not None and message["success"] and not message["reset"]:
            next_index[node] = max(next_index[node], before)

    def _is_of_this_term(self, message: dict[str, Any]) -> bool:
        # A plain PySyncObj node does not say.
        term = self._journal.getCurrentTerm()
        return bool(message.get("term", term) == term)

    def _receive_entries(self, handler: Handler, node: Any, message: dict[str, Any]) -> None:
        sync_obj = self._sync_obj()
        if sync_obj is None:
            return
        installs = self._is_installing()
        if installs:
            # The log that they continue is not here yet.  The leader lives, so there
            # is no election; and it is told that this node does.
            message = {**{key: message[key] for key in _OF_A_LEADER}, "serialized": None}
        if message.get("transmission") == "finish" and not _is_whole(
            sync_obj._SyncObj__recvTransmission, message["data"]
        ):
            # PySyncObj takes the command's length for that of its pickle, which is longer,
            # and calls several pieces the last.
            message = {**message, "transmission": "process"}
        if self._wanted is not None and message.get("prevLogIdx", 0) < self._wanted[1]:
            self._wanted = None
        # A piece of a snapshot says nothing about the entries that are here: PySyncObj
        # would commit them up to the leader's commit index all the same.
        self._journal.begin_handler(commits="prevLogIdx" in message)
        try:
            handler(node, message)
        finally:
            self._journal.end_handler()
            # PySyncObj sets its own back with every message that overlaps the log.
            sync_obj._SyncObj__raftCommitIndex = self._journal.getRaftCommitIndex()
        if installs and sync_obj._SyncObj__raftLeader == node:
            sync_obj._SyncObj__sendNextNodeIdx(node)


def _is_whole(received: Any, last: bytes) -> bool:
    if not last.endswith(_STOP):
        return False
    try:
        pickle.loads(received + last)
    except Exception:
        return False
    return True
