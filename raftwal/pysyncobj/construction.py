"""The way into PySyncObj: its constructor looks two names up, and finds ours.

``SyncObj.__init__`` calls the module's ``createJournal(conf.journalFile)`` and
``Serializer(conf.fullDumpFile, ...)``.  Both are replaced by functions that look at
the file name they are given: a `NodeFile` carries the node whose journal and
serializer are wanted; anything else goes to the original.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any

import pysyncobj.syncobj as syncobj_module
from pysyncobj import SyncObjConf
from pysyncobj.node import Node

from raftwal.pysyncobj import false_alarm
from raftwal.pysyncobj.code_version import keep_code_version, wait_at_unknown_code_version
from raftwal.pysyncobj.node import DurableNode
from raftwal.pysyncobj.serializer import SnapshotSerializer
from raftwal.pysyncobj.settings import StorageSettings
from raftwal.pysyncobj.starting import Migrate, settle_data_dir

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


@functools.wraps(_original_create_journal)
def _create_journal(journal_file: Any = None) -> Any:
    if isinstance(journal_file, NodeFile):
        return journal_file.node.claim()
    return _original_create_journal(journal_file)


@functools.wraps(_original_serializer, updated=())
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
            file_name.node,
            transmission_batch_size,
            try_use_fork,
            serializer,
            deserializer,
            serialize_checker,
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
    migrate: Migrate,
) -> None:
    """Open a node's storage, and call SyncObj's constructor on it and through its barrier.

    Afterwards the SyncObj has the application's configuration, the object itself: an
    application may go on setting it.
    """
    if conf is None:
        conf = SyncObjConf()
    # What is wrong with the arguments is found before a directory is made for them.
    _copy_for_construction(conf, "", "").validate()
    others = [_as_node(node, node_class) for node in other_nodes if node != self_node]
    self_node = None if self_node is None else _as_node(self_node, node_class)
    # A read-only observer has no address of its own.
    node_id = "observer" if self_node is None else str(self_node.id)
    settle_data_dir(data_dir, node_id, conf, settings, migrate)
    node = DurableNode(data_dir, node_id, (str(other.id) for other in others), settings)
    # Before SyncObj.__init__: every attribute made after it is replicated state.
    setattr(sync_obj, NODE_ATTRIBUTE, node)
    keep_code_version(sync_obj)
    wait_at_unknown_code_version(sync_obj, node)
    try:
        original_init(
            self_node,
            others,
            conf=_copy_for_construction(
                conf, NodeFile.of(node, node.data_dir), NodeFile.of(node, "")
            ),
            consumers=consumers,
            nodeClass=node_class,
            transport=None if transport is None else node.barrier.guard(transport),
            transportClass=node.barrier.guard_class(transport_class),
        )
    except BaseException:
        node.close()
        raise
    sync_obj._SyncObj__conf = conf


def tick(node: DurableNode, sync_obj: Any, original: Any, time_to_wait: float) -> None:
    """One tick of a SyncObj that `construct` made."""
    # The configuration may name a dump of PySyncObj's own.  It is not loaded: the node
    # has its snapshot loaded itself.
    sync_obj._SyncObj__needLoadDumpFile = False
    node.tick(sync_obj, original, time_to_wait)


def destroy(node: DurableNode, sync_obj: Any, original: Any) -> None:
    """SyncObj's ``destroy``, which leaves the work to the thread that ticks."""
    original()
    if sync_obj.conf.autoTick and not sync_obj.tick_thread_alive() and not node._closed:
        # That thread could not bind its port, or outlived the one that made the node,
        # and is gone.
        sync_obj._doDestroy()


def _as_node(node: Any, node_class: Any) -> Any:
    return node if isinstance(node, Node) else node_class(node)


def _copy_for_construction(
    conf: SyncObjConf, journal_file: str, full_dump_file: str
) -> SyncObjConf:
    conf = copy.copy(conf)
    conf.journalFile = journal_file
    conf.fullDumpFile = full_dump_file
    return conf
