"""Whether nodes are well, for `raftwal.exporter`: one, or all of this process."""

from __future__ import annotations

import weakref
from typing import Any

from raftwal.pysyncobj.construction import NODE_ATTRIBUTE
from raftwal.pysyncobj.node import DurableNode

# Not a WeakSet: an application's object may define what it is equal to.
_sync_objs: list[weakref.ref[Any]] = []


def register(sync_obj: Any) -> None:
    """Count a durable SyncObj as this process's, until it is destroyed."""
    reference = weakref.ref(sync_obj, _forget)
    _sync_objs.append(reference)
    _node_of(sync_obj).call_on_close(lambda: _forget(reference))


def _forget(reference: weakref.ref[Any]) -> None:
    _sync_objs[:] = [each for each in _sync_objs if each is not reference]


def _node_of(sync_obj: Any) -> DurableNode:
    node: DurableNode = getattr(sync_obj, NODE_ATTRIBUTE)
    return node


def why_unhealthy(sync_obj: Any) -> str | None:
    """``None``, or why the node must be restarted."""
    failure = _node_of(sync_obj).failure
    return None if failure is None else f"storage failed: {failure}"


def why_not_ready(sync_obj: Any) -> str | None:
    """``None``, or why the node cannot serve yet."""
    reason = why_unhealthy(sync_obj)
    if reason is not None:
        return reason
    version = _node_of(sync_obj).unknown_code_version
    if version is not None:
        return f"the cluster is at code version {version}, which this node's code does not know"
    if not sync_obj.isReady():
        return "not in step with the cluster yet"
    if sync_obj._getLeader() is None:
        return "no leader"
    return None


class ProcessHealth:
    """The health of every durable SyncObj that `install()` has seen made in this process.

    A `raftwal.exporter.Health`.
    """

    def healthy(self) -> str | None:
        """``None``, or why one of them must be restarted."""
        return next(filter(None, map(why_unhealthy, self._living())), None)

    def ready(self) -> str | None:
        """``None``, or why one of them cannot serve yet; without any, that there is none."""
        living = self._living()
        if not living:
            return "no durable node has been made in this process"
        return next(filter(None, map(why_not_ready, living)), None)

    def _living(self) -> list[Any]:
        return [sync_obj for ref in list(_sync_objs) if (sync_obj := ref()) is not None]
