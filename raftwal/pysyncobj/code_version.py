"""The code version that a cluster has agreed on: it stays in force, and nothing is applied behind
one that a node's code does not know.
"""

from __future__ import annotations

from typing import Any

from pysyncobj.syncobj import SyncObjExceptionWrongVer

from raftwal.pysyncobj.node import DurableNode


def keep_code_version(sync_obj: Any) -> None:
    """Have a loaded snapshot's code version stay in force.

    PySyncObj takes the version from a dump, and goes on calling the methods of version 0.
    """
    original = sync_obj._SyncObj__onSetCodeVersion

    def on_set_code_version(version: int) -> None:
        enabled = sync_obj.__dict__.get("_SyncObj__enabledCodeVersion", 0)
        original(max(version, enabled))

    sync_obj._SyncObj__onSetCodeVersion = on_set_code_version


def wait_at_unknown_code_version(sync_obj: Any, node: DurableNode) -> None:
    """Have a node whose code is too old apply nothing behind the entry that says so.

    PySyncObj complains, and applies what was committed with it: under the wrong index, by the
    methods of the old version, and with the next tick again.
    """
    apply_command = sync_obj._SyncObj__doApplyCommand
    apply_entries = sync_obj._SyncObj__applyLogEntries
    waits_behind: int | None = None

    def is_waiting() -> bool:
        return bool(waits_behind == sync_obj._SyncObj__raftLastApplied)

    def do_apply_command(command: bytes) -> Any:
        nonlocal waits_behind
        if is_waiting():
            raise SyncObjExceptionWrongVer(node.unknown_code_version)
        try:
            return apply_command(command)
        except SyncObjExceptionWrongVer as error:
            waits_behind, node.unknown_code_version = sync_obj._SyncObj__raftLastApplied, error.ver
            raise

    def apply_log_entries() -> Any:
        if is_waiting():
            return False
        node.unknown_code_version = None
        return apply_entries()

    sync_obj._SyncObj__doApplyCommand = do_apply_command
    sync_obj._SyncObj__applyLogEntries = apply_log_entries
