"""The journals that are compared, and the SyncObj class that each of them needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.journal import FileJournal

from raftwal.pysyncobj import DurableSyncObj, StorageSettings
from raftwal.testing import UnsyncedDisk


class SyncEveryAddJournal(FileJournal):
    """PySyncObj's FileJournal made durable in the plain way: a data sync after every change."""

    def __init__(self, journalFile: str) -> None:
        super().__init__(journalFile)
        self._path = journalFile
        self._sync_directory()
        self.syncs = 0

    def add(self, command: Any, idx: int, term: int) -> None:
        super().add(command, idx, term)
        self._sync()

    def clear(self) -> None:
        super().clear()
        self._sync()

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        super().deleteEntriesFrom(entryFrom)
        self._sync()

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        super().setCurrentTerm(term, votedForNodeId)
        descriptor = os.open(self._path + ".meta", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._sync_directory()

    def _sync(self) -> None:
        # FileJournal writes through a mapping of the file, and can open it anew to grow it.
        file = self._FileJournal__journalFile._ResizableFile__f
        os.fdatasync(file.fileno())
        self.syncs += 1

    def _sync_directory(self) -> None:
        descriptor = os.open(os.path.dirname(self._path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Counting:
    """A state that says which commands were applied, in which order, at next to no cost."""

    applied = 0
    digest = 0

    @replicated
    def put(self, number: int, payload: str) -> None:
        self.applied += 1
        self.digest = (self.digest * 31 + number + len(payload)) & 0xFFFFFFFFFFFF


class PlainNode(Counting, SyncObj):
    """A SyncObj as PySyncObj has it."""


class DurableNode(Counting, DurableSyncObj):
    """The same on raftwal."""


Make = Callable[[str, Sequence[str], str, SyncObjConf], Any]


class Kind(NamedTuple):
    """One journal: what tables call it, and how a node with it is made.

    ``make`` takes the node's address, those of its partners, a directory of its own,
    and the configuration.
    """

    title: str
    make: Make


def _on_memory(address: str, partners: Sequence[str], directory: str, conf: SyncObjConf) -> Any:
    return PlainNode(address, partners, conf)


def _on_file(address: str, partners: Sequence[str], directory: str, conf: SyncObjConf) -> Any:
    conf.journalFile = os.path.join(directory, "journal")
    return PlainNode(address, partners, conf)


def _on_synced_file(
    address: str, partners: Sequence[str], directory: str, conf: SyncObjConf
) -> Any:
    # The name that SyncObj looks up; the process has no other node.
    pysyncobj.syncobj.createJournal = SyncEveryAddJournal
    return _on_file(address, partners, directory, conf)


def _on_raftwal(address: str, partners: Sequence[str], directory: str, conf: SyncObjConf) -> Any:
    return DurableNode(address, partners, conf, data_dir=directory)


def _on_unsynced_raftwal(
    address: str, partners: Sequence[str], directory: str, conf: SyncObjConf
) -> Any:
    settings = StorageSettings(fs=UnsyncedDisk())
    return DurableNode(address, partners, conf, data_dir=directory, settings=settings)


KINDS: dict[str, Kind] = {
    "memory": Kind("in memory", _on_memory),
    "filejournal": Kind("FileJournal", _on_file),
    "raftwal": Kind("raftwal", _on_raftwal),
    "naive": Kind("sync every add", _on_synced_file),
    "unsynced": Kind("raftwal, syncs left out", _on_unsynced_raftwal),
}
COMPARED = ("memory", "filejournal", "raftwal", "naive")
"""The last kind, which keeps no promise, tells what of raftwal's time is not the disk's."""
