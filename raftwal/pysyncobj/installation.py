"""`install()`: durability for applications that one does not own."""

from __future__ import annotations

import functools
import os
from typing import Any

from pysyncobj import SyncObj
from pysyncobj.node import TCPNode
from pysyncobj.transport import TCPTransport

from raftwal.errors import IdentityMismatchError
from raftwal.pysyncobj.compatibility import check_pysyncobj
from raftwal.pysyncobj.construction import NODE_ATTRIBUTE, NodeFile, construct, replace_names
from raftwal.pysyncobj.durable import DurableSyncObj
from raftwal.pysyncobj.node import DurableNode, StorageSettings

DIRECTORY_SUFFIX = ".raftwal"

_originals: dict[str, Any] = {}


def install(settings: StorageSettings | None = None) -> None:
    """Make every SyncObj in this process whose ``conf`` names a ``journalFile`` durable.

    Its data directory is the journal file's path with ``.raftwal`` appended; the file
    itself is not used.  Call it before the first SyncObj is made; calling it again
    changes the settings for those made from then on.

    Raises `UnsupportedPySyncObjError`.
    """
    check_pysyncobj()
    replace_names()
    _originals["settings"] = settings or StorageSettings()
    if "__init__" in _originals:
        return
    for name, replacement in (
        ("__init__", _init),
        ("_onTick", _on_tick),
        ("getStatus", _get_status),
    ):
        original = getattr(SyncObj, name)
        _originals[name] = original
        setattr(SyncObj, name, functools.wraps(original)(replacement))


def _init(
    self: Any,
    selfNode: Any,
    otherNodes: Any,
    conf: Any = None,
    consumers: Any = None,
    nodeClass: Any = TCPNode,
    transport: Any = None,
    transportClass: Any = TCPTransport,
) -> None:
    original = functools.partial(_originals["__init__"], self)
    # A DurableSyncObj comes here with the node that it has opened.
    if conf is None or conf.journalFile is None or NODE_ATTRIBUTE in self.__dict__:
        original(selfNode, otherNodes, conf, consumers, nodeClass, transport, transportClass)
        return
    if isinstance(conf.journalFile, NodeFile):
        conf.journalFile.node.claim()  # raises: it has its SyncObj
    construct(
        self,
        original,
        _data_dir_of(conf.journalFile),
        _originals["settings"],
        selfNode,
        otherNodes,
        conf,
        consumers,
        nodeClass,
        transport,
        transportClass,
    )


def _data_dir_of(journal_file: str) -> str:
    data_dir = os.fspath(journal_file) + DIRECTORY_SUFFIX
    if os.path.exists(journal_file) and not os.path.exists(data_dir):
        raise IdentityMismatchError(
            "there is a journal of PySyncObj's own, and no raftwal directory beside it: "
            "starting empty would forget the node's term, vote and log",
            path=os.fspath(journal_file),
            advice="While the rest of the cluster is in step, move the journal, its .meta "
            "and the dump away, and start this node alone: it gets everything from its peers",
        )
    return data_dir


def _node_of(sync_obj: Any) -> DurableNode | None:
    node: DurableNode | None = sync_obj.__dict__.get(NODE_ATTRIBUTE)
    return node


def _on_tick(self: Any, timeToWait: float = 0.0) -> None:
    node = _node_of(self)
    original = functools.partial(_originals["_onTick"], self)
    # A DurableSyncObj has its own way in, and comes here as its base class.
    if node is None or isinstance(self, DurableSyncObj):
        original(timeToWait)
    else:
        node.tick(self, original, timeToWait)


def _get_status(self: Any) -> dict[str, Any]:
    status: dict[str, Any] = _originals["getStatus"](self)
    node = _node_of(self)
    # A DurableSyncObj adds it itself.
    if node is None or isinstance(self, DurableSyncObj):
        return status
    return node.add_to_status(status)
