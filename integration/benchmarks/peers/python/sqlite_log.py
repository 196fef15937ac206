"""A table in SQLite, in its WAL mode; a save is a transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from integration.benchmarks.peers.python.logs import Pair, Peer, batches_of

_TABLE = "CREATE TABLE log (number INTEGER PRIMARY KEY, term INTEGER, type INTEGER, data BLOB)"


class SQLiteWriter:
    def __init__(self, directory: str, sync: bool) -> None:
        os.mkdir(directory)
        self._database = _connect(directory)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
        self._database.execute(_TABLE)

    def prepared(self, entries: Sequence[Pair], batch: int) -> list[Any]:
        return batches_of([(index, 1, 0, data) for index, data in entries], batch)

    def save(self, batch: Any) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", batch)
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()


def _connect(directory: str) -> sqlite3.Connection:
    # No transactions but those that are asked for; threads take turns.
    path = os.path.join(directory, "log.sqlite")
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _replay(directory: str) -> Iterator[Any]:
    return _connect(directory).execute("SELECT number, term, type, data FROM log ORDER BY number")


def _read(directory: str) -> Sequence[Any]:
    return list(_replay(directory))


PEER = Peer(
    SQLiteWriter,
    _read,
    lambda row: (row[0], row[3]),
    _replay,
    lambda: {"SQLite": sqlite3.sqlite_version},
)
