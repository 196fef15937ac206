"""The replicated application: a key-value store that tells the run what it applies."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from pysyncobj import SyncObj, replicated
from pysyncobj.node import TCPNode

from raftwal.pysyncobj import DurableSyncObj

if TYPE_CHECKING:
    from integration.simulation.machines import Process


class Address(TCPNode):
    """A node's address: a machine's name.  Sets of them have the same order in every run."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._hash = zlib.crc32(address.encode())

    def __hash__(self) -> int:
        return self._hash

    @property
    def ip(self) -> str:
        return self.host


class Store:
    """Commands carry the number of the operation, so that each can be told from any other.

    ``process`` exists before SyncObj's constructor, so it is not part of the state.
    """

    process: Process
    values: dict[str, int]

    def begin_empty(self) -> None:
        self.values = {}
        self.count = 0
        self.fingerprint = 0

    @replicated
    def put(self, key: str, operation: int, ballast: bytes) -> Any:
        """Returns what stood there before."""
        before = self.values.get(key)
        self.values[key] = operation
        self._applied(operation, before)
        return before

    @replicated
    def get(self, key: str, operation: int) -> Any:
        """A read that goes through the log."""
        value = self.values.get(key)
        self._applied(operation, value)
        return value

    @replicated
    def compare_and_set(self, key: str, expected: int | None, operation: int) -> Any:
        before = self.values.get(key)
        if before == expected:
            self.values[key] = operation
        self._applied(operation, before)
        return before

    def _applied(self, operation: int, result: Any) -> None:
        self.count += 1
        self.fingerprint = zlib.crc32(f"{operation} {result}".encode(), self.fingerprint)
        self.process.applied(self.count, operation, result, self.fingerprint)


class DurableStore(Store, DurableSyncObj):
    def __init__(self, process: Process, *arguments: Any, **settings: Any) -> None:
        self.process = process
        DurableSyncObj.__init__(self, *arguments, nodeClass=Address, **settings)
        self.begin_empty()


class PlainStore(Store, SyncObj):
    """The same on PySyncObj alone, with its FileJournal."""

    def __init__(self, process: Process, *arguments: Any, **settings: Any) -> None:
        self.process = process
        SyncObj.__init__(self, *arguments, nodeClass=Address, **settings)
        self.begin_empty()
