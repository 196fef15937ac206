"""`install()`: durability for applications that one does not own."""

from __future__ import annotations

import functools
import os
from typing import Any

from pysyncobj import SyncObj
from pysyncobj.node import TCPNode
from pysyncobj.transport import TCPTransport

from raftwal.pysyncobj.construction import (
    NODE_ATTRIBUTE,
    NodeFile,
    construct,
    destroy,
    replace_names,
    tick,
)
from raftwal.pysyncobj.durable import DurableSyncObj
from raftwal.pysyncobj.health import register
from raftwal.pysyncobj.node import DurableNode
from raftwal.pysyncobj.settings import StorageSettings
from raftwal.pysyncobj.starting import Migrate, check_migrate

DIRECTORY_SUFFIX = ".raftwal"

_originals: dict[str, Any] = {}


def install(settings: StorageSettings | None = None, *, migrate: Migrate = None) -> None:
    """Make every SyncObj in this process whose ``conf`` names a ``journalFile`` durable.

    Its data directory is the journal file's path with ``.raftwal`` appended; the file
    itself is not used.  Call it before the first SyncObj is made: those made before it
    stay as they are.  Calling it again changes the settings for those made from then on.

    Where there is no such directory yet, and files of PySyncObj's own are there (the
    journal, or the dump that ``conf`` names), a node that starts empty would forget what
    it has promised.  The start is refused with `IdentityMismatchError`; with
    ``migrate="auto"`` these files are taken over, and left as they are: see
    `raftwal.pysyncobj.migration.from_file_journal` for what that raises.
    """
    check_migrate(migrate)
    replace_names()
    _originals["settings"] = settings or StorageSettings()
    _originals["migrate"] = migrate
    if "__init__" in _originals:
        return
    for name, replacement in (
        ("__init__", _init),
        ("_onTick", _on_tick),
        ("getStatus", _get_status),
        ("destroy", _destroy),
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
    if conf is None or not conf.journalFile or NODE_ATTRIBUTE in self.__dict__:
        original(selfNode, otherNodes, conf, consumers, nodeClass, transport, transportClass)
        if NODE_ATTRIBUTE in self.__dict__:
            register(self)
        return
    if isinstance(conf.journalFile, NodeFile):
        conf.journalFile.node.claim()  # raises: it has its SyncObj
    construct(
        self,
        original,
        os.fspath(conf.journalFile) + DIRECTORY_SUFFIX,
        _originals["settings"],
        selfNode,
        otherNodes,
        conf,
        consumers,
        nodeClass,
        transport,
        transportClass,
        _originals["migrate"],
    )
    register(self)


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
        tick(node, self, original, timeToWait)


def _destroy(self: Any) -> None:
    node = _node_of(self)
    original = functools.partial(_originals["destroy"], self)
    if node is None or isinstance(self, DurableSyncObj):
        original()
    else:
        destroy(node, self, original)


def _get_status(self: Any) -> dict[str, Any]:
    status: dict[str, Any] = _originals["getStatus"](self)
    node = _node_of(self)
    # A DurableSyncObj adds it itself.
    if node is None or isinstance(self, DurableSyncObj):
        return status
    return node.add_to_status(status)
