"""What the adapter builds on in PySyncObj, checked by looking for it, not by a number."""

from __future__ import annotations

import inspect

import pysyncobj.syncobj as module
from pysyncobj import SyncObj

from raftwal.errors import UnsupportedPySyncObjError

# Module-level names that SyncObj.__init__ looks up when it is called.
_REPLACED_NAMES = ("createJournal", "Serializer")

_METHODS = (
    "_onTick",
    "_doDestroy",
    "addOnTickCallback",
    "getStatus",
    "_SyncObj__setState",
    "_SyncObj__parseChangeClusterRequest",
    "_SyncObj__doChangeCluster",
    "_SyncObj__loadDumpFile",
)

_ATTRIBUTES = (
    "_SyncObj__transport",
    "_SyncObj__raftLog",
    "_SyncObj__raftLeader",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__recvTransmission",
    "_SyncObj__connectedNodes",
    "_SyncObj__commandsLocalCounter",
    "_SyncObj__commandsQueue",
    "_SyncObj__commandsWaitingCommit",
    "_SyncObj__commandsWaitingReply",
)


def check_pysyncobj() -> None:
    """Raises `UnsupportedPySyncObjError` naming what the installed PySyncObj lacks."""
    # install() wraps the constructor; what it builds on is in the original.
    made_by_init = inspect.unwrap(SyncObj.__init__).__code__.co_names
    missing = [name for name in _REPLACED_NAMES if name not in made_by_init]
    missing += [name for name in _METHODS if not hasattr(SyncObj, name)]
    missing += [name for name in _ATTRIBUTES if name not in made_by_init]
    if missing:
        raise UnsupportedPySyncObjError(
            f"PySyncObj {getattr(module, 'VERSION', '(unknown version)')} lacks what the adapter "
            f"builds on: {', '.join(missing)}"
        )
