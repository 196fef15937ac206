"""The store: a replicated dictionary on a `DurableSyncObj`."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from typing import Any

from pysyncobj import FAIL_REASON, SyncObjConf, SyncObjConsumer, replicated
from pysyncobj.node import Node

from raftwal.pysyncobj import DurableSyncObj, StorageSettings

MAX_VALUE_BYTES = 512 * 1024

_REASONS = {number: name for name, number in vars(FAIL_REASON).items() if name.isupper()}
_ROLES = ("follower", "candidate", "leader")


class WriteRefusedError(Exception):
    """PySyncObj answered something else than SUCCESS; the message is its reason's name.

    After LEADER_CHANGED and UNKNOWN_OUTCOME the write may yet be committed, or be
    committed already; after any other reason it is not and will not be.
    """


class OutcomeUnknownError(Exception):
    """There was no answer in time: the write may yet be committed."""


class KeyValues(SyncObjConsumer):
    """The replicated state.  Only PySyncObj's thread changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, bytes] = {}

    @replicated
    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value

    @replicated
    def delete(self, key: str) -> None:
        self.values.pop(key, None)


def node_configuration(snapshot_entries: int) -> SyncObjConf:
    """PySyncObj's settings for low latency between nodes that are near each other."""
    return SyncObjConf(
        # Send each command at once, and wake the thread that ticks for it.
        appendEntriesUseBatch=False,
        # PySyncObj would cut a larger entry in pieces; no value is that large.
        appendEntriesBatchSizeBytes=2 * MAX_VALUE_BYTES,
        autoTickPeriod=0.02,
        appendEntriesPeriod=0.1,
        raftMinTimeout=0.5,
        raftMaxTimeout=1.2,
        leaderFallbackTimeout=2.0,
        connectionTimeout=2.0,
        connectionRetryTime=0.1,
        bindRetryTime=0.2,
        maxBindRetries=10,
        logCompactionMinEntries=snapshot_entries,
    )


class KVStore(DurableSyncObj):
    """One node of the store.

    A write returns once it is committed and applied here, on whichever node it is
    called.  A read is local: a node that is behind answers with what it has.
    """

    def __init__(
        self,
        address: str,
        partners: Iterable[str],
        data_dir: str,
        *,
        snapshot_entries: int = 5000,
        settings: StorageSettings | None = None,
    ) -> None:
        # Made before the node and given to it.  Attributes made after
        # SyncObj.__init__ would be replicated too, but by then its thread runs, and
        # may have loaded the snapshot into what they are about to overwrite.
        self._state = KeyValues()
        super().__init__(
            address,
            partners,
            node_configuration(snapshot_entries),
            consumers=[self._state],
            data_dir=data_dir,
            settings=settings,
        )

    def get(self, key: str) -> bytes | None:
        return self._state.values.get(key)

    def put(self, key: str, value: bytes, timeout: float) -> None:
        """Raises `WriteRefusedError`, `OutcomeUnknownError`."""
        _await(self._state.put, timeout, key, value)

    def delete(self, key: str, timeout: float) -> None:
        """Raises `WriteRefusedError`, `OutcomeUnknownError`."""
        _await(self._state.delete, timeout, key)

    def status(self) -> dict[str, Any]:
        """PySyncObj's status in types that JSON knows, and what the storage recovered."""
        status = {
            name: value.id if isinstance(value, Node) else value
            for name, value in self.getStatus().items()
        }
        recovered = self.recovered
        snapshot = recovered.snapshot
        return {
            **status,
            "role": _ROLES[status["state"]],
            "keys": len(self._state.values),
            "data_dir": self.data_dir,
            "recovered": {
                "snapshot_index": 0 if snapshot is None else snapshot.metadata.index,
                "entries": recovered.entry_count,
                "seconds": recovered.seconds,
                "repaired": recovered.repair.repaired,
            },
        }


def _await(command: Callable[..., None], timeout: float, *arguments: object) -> None:
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    command(*arguments, callback=lambda _, reason: answers.put(reason))
    try:
        reason = answers.get(timeout=timeout)
    except queue.Empty:
        raise OutcomeUnknownError(f"no answer within {timeout:g} s") from None
    if reason != FAIL_REASON.SUCCESS:
        raise WriteRefusedError(_REASONS.get(reason, str(reason)))
