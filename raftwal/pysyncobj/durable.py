"""`DurableSyncObj`: a SyncObj that keeps its promises."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import TCPNode
from pysyncobj.transport import TCPTransport

from raftwal.pysyncobj.construction import (
    NODE_ATTRIBUTE,
    construct,
    destroy,
    replace_names,
    tick,
)
from raftwal.pysyncobj.health import why_not_ready, why_unhealthy
from raftwal.pysyncobj.node import DurableNode
from raftwal.pysyncobj.settings import StorageSettings
from raftwal.pysyncobj.starting import Migrate, check_migrate
from raftwal.recovery import Recovered


class DurableSyncObj(SyncObj):
    """A ``pysyncobj.SyncObj`` whose term, vote, log and snapshots are durable.

    Takes SyncObj's own arguments and the directory to keep them in, made when it is
    absent.  ``conf.journalFile`` and ``conf.fullDumpFile`` are not used: snapshots
    replace the dump.  But where they name files and there is no data directory yet, a
    node that starts empty would forget what it has promised: the start is refused, or,
    with ``migrate="auto"``, these files are taken over.  ``settings`` are those of the
    storage.

    On restart the node starts from the newest snapshot, replays its log, and applies
    what it knows to be committed without waiting for its peers.  After a failed write
    or sync it stops taking part: see `storage_failure`.

    Raises what `raftwal.RaftStorage.open` raises, `IdentityMismatchError` beside such files,
    and what `raftwal.pysyncobj.migration.from_file_journal` raises.
    """

    def __init__(
        self,
        selfNode: Any,
        otherNodes: Iterable[Any],
        conf: SyncObjConf | None = None,
        consumers: list[Any] | None = None,
        nodeClass: Any = TCPNode,
        transport: Any = None,
        transportClass: Any = TCPTransport,
        *,
        data_dir: str | os.PathLike[str],
        settings: StorageSettings | None = None,
        migrate: Migrate = None,
    ) -> None:
        check_migrate(migrate)
        replace_names()
        construct(
            self,
            super().__init__,
            os.fspath(data_dir),
            settings or StorageSettings(),
            selfNode,
            otherNodes,
            conf,
            consumers,
            nodeClass,
            transport,
            transportClass,
            migrate,
        )

    @property
    def data_dir(self) -> str:
        """Where the node keeps its log and snapshots."""
        return self._durable_node.data_dir

    @property
    def storage_failure(self) -> BaseException | None:
        """Why the node has stopped taking part; ``None`` as long as its storage works."""
        return self._durable_node.failure

    @property
    def recovered(self) -> Recovered:
        """What the node started from: see `raftwal.Recovered`.

        Of its snapshot it has the metadata alone.
        """
        return self._durable_node.storage.recovered

    def destroy(self) -> None:
        """Stop ticking, close the connections and the storage, as SyncObj does."""
        destroy(self._durable_node, self, super().destroy)

    def healthy(self) -> str | None:
        """``None``, or why this node must be restarted (for ``/healthz``)."""
        return why_unhealthy(self)

    def ready(self) -> str | None:
        """``None``, or why this node cannot serve yet (for ``/readyz``)."""
        return why_not_ready(self)

    def getStatus(self) -> dict[str, Any]:
        """SyncObj's status, and ``storage_failure``: the reason as text, or ``None``."""
        return self._durable_node.add_to_status(super().getStatus())

    def _onTick(self, timeToWait: float = 0.0) -> None:
        tick(self._durable_node, self, super()._onTick, timeToWait)

    @property
    def _durable_node(self) -> DurableNode:
        node: DurableNode = getattr(self, NODE_ATTRIBUTE)
        return node
