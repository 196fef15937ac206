"""PySyncObj's node ids are strings; a hard state's vote and a membership are uint64."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from raftwal.model import ConfState


def member_id(node_id: str) -> int:
    """A 64-bit id for a node, never 0, as etcd derives its member ids: by hashing."""
    digest = hashlib.sha256(node_id.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") or 1


def conf_state(node_ids: Iterable[str]) -> ConfState:
    """The membership made of these nodes, all voters."""
    return ConfState(voters=tuple(sorted(map(member_id, node_ids))))


class Votes:
    """Votes as PySyncObj names them, and as the log keeps them."""

    def __init__(self, known_node_ids: Iterable[str]) -> None:
        self._names = {member_id(node_id): node_id for node_id in known_node_ids}

    def number(self, node_id: str | None) -> int:
        """The vote to save: 0 for none."""
        if node_id is None:
            return 0
        number = member_id(node_id)
        self._names[number] = node_id
        return number

    def name(self, number: int) -> str | None:
        """Whom a saved vote is for.

        A node that is not known here (it left the cluster since) is given a name that
        no node has: what matters is that the vote of the term is spent.
        """
        if number == 0:
            return None
        return self._names.get(number, f"member {number:016x}")
