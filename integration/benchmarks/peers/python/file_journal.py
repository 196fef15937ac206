"""PySyncObj's FileJournal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from pysyncobj.journal import FileJournal

from integration.benchmarks.peers.python.logs import CannotError, Pair, Peer, batches_of


class FileJournalWriter:
    def __init__(self, directory: str, sync: bool) -> None:
        if sync:
            raise CannotError("PySyncObj never syncs it")
        os.mkdir(directory)
        self._journal = FileJournal(_path(directory))

    def prepared(self, entries: Sequence[Pair], batch: int) -> list[Any]:
        return batches_of(entries, batch)

    def save(self, batch: Sequence[Pair]) -> None:
        add = self._journal.add
        for index, data in batch:
            add(data, index, 1)

    def close(self) -> None:
        self._journal._destroy()


def _path(directory: str) -> str:
    return os.path.join(directory, "journal")


def _read(directory: str) -> Sequence[Any]:
    entries: Sequence[Any] = FileJournal(_path(directory))[:]
    return entries


def _replay(directory: str) -> Iterator[Any]:
    raise CannotError("it holds all entries")


PEER = Peer(
    FileJournalWriter,
    _read,
    lambda entry: (entry[1], entry[0]),
    _replay,
    lambda: {"PySyncObj": version("pysyncobj")},
)
