"""The way into PySyncObj: its constructor looks two names up, and finds ours.

``SyncObj.__init__`` calls the module's ``createJournal(conf.journalFile)`` and
``Serializer(conf.fullDumpFile, ...)``.  Both are replaced by functions that look at
the file name they are given: a `NodeFile` carries the node whose journal and
serializer are wanted; anything else goes to the original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pysyncobj.syncobj as syncobj_module
from pysyncobj import SyncObjConf

from raftwal.pysyncobj import false_alarm
from raftwal.pysyncobj.node import DurableNode, StorageSettings
from raftwal.pysyncobj.serializer import SnapshotSerializer

NODE_ATTRIBUTE = "_raftwal_node"

_original_create_journal = syncobj_module.createJournal
_original_serializer = syncobj_module.Serializer


class NodeFile(str):
    """A file name in a configuration that stands for a durable node's storage."""

    __slots__ = ("node",)
    node: DurableNode

    @classmethod
    def of(cls, node: DurableNode, name: str) -> NodeFile:
        """``name`` is what PySyncObj takes it for."""
        file = cls(name)
        file.node = node
        return file


def _create_journal(journal_file: Any = None) -> Any:
    if isinstance(journal_file, NodeFile):
        return journal_file.node.claim()
    return _original_create_journal(journal_file)


def _create_serializer(
    file_name: Any,
    transmission_batch_size: int,
    try_use_fork: bool,
    serializer: Any,
    deserializer: Any,
    serialize_checker: Any,
) -> Any:
    if isinstance(file_name, NodeFile):
        return SnapshotSerializer(
            file_name.node, transmission_batch_size, serializer, deserializer, serialize_checker
        )
    return _original_serializer(
        file_name,
        transmission_batch_size,
        try_use_fork,
        serializer,
        deserializer,
        serialize_checker,
    )


def replace_names() -> None:
    """Put our two functions where PySyncObj's constructor looks.  Idempotent."""
    syncobj_module.createJournal = _create_journal
    syncobj_module.Serializer = _create_serializer
    false_alarm.silence()


def construct(
    sync_obj: Any,
    original_init: Any,
    data_dir: str,
    settings: StorageSettings,
    self_node: Any,
    other_nodes: Iterable[Any],
    conf: SyncObjConf | None,
    consumers: list[Any] | None,
    node_class: Any,
    transport: Any,
    transport_class: Any,
) -> None:
    """Open a node's storage, and call SyncObj's constructor on it and through its barrier."""
    other_nodes = list(other_nodes)
    # A read-only observer has no address of its own.
    node_id = "observer" if self_node is None else _id_of(self_node)
    node = DurableNode(data_dir, node_id, map(_id_of, other_nodes), settings)
    # Before SyncObj.__init__: every attribute made after it is replicated state.
    setattr(sync_obj, NODE_ATTRIBUTE, node)
    try:
        original_init(
            self_node,
            other_nodes,
            conf=_durable_configuration(conf, node),
            consumers=consumers,
            nodeClass=node_class,
            transport=None if transport is None else node.barrier.guard(transport),
            transportClass=node.barrier.guard_class(transport_class),
        )
    except BaseException:
        node.close()
        raise


def _id_of(node: Any) -> str:
    return str(getattr(node, "id", node))


def _durable_configuration(conf: SyncObjConf | None, node: DurableNode) -> SyncObjConf:
    """A copy of the application's configuration that leads to ``node``."""
    conf = copy.copy(conf) if conf is not None else SyncObjConf()
    conf.journalFile = NodeFile.of(node, node.data_dir)
    # PySyncObj loads a dump at its first tick if a file of this name exists.  None does:
    # the node has the snapshot loaded itself.
    conf.fullDumpFile = NodeFile.of(node, "")
    return conf
