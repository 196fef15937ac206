"""LMDB and RocksDB: an index is a key, and a save is a transaction or a batch."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from integration.benchmarks.peers.python.logs import Pair, Peer, ThreadedSave, batches_of

# Term and type stand before an entry's data.
_HEAD = struct.Struct("<QB")
_FIRST_TERM = _HEAD.pack(1, 0)
_KEY = struct.Struct(">Q")
_MAP_BYTES = 64 << 30


def _pair_of(item: Any) -> Pair:
    key, value = item
    return _KEY.unpack(key)[0], value[_HEAD.size :]


class LMDBWriter:
    def __init__(self, directory: str, sync: bool) -> None:
        self._database = _lmdb(directory, sync=sync)

    def prepared(self, entries: Sequence[Pair], batch: int) -> list[Any]:
        return batches_of([(_KEY.pack(index), data) for index, data in entries], batch)

    def save(self, batch: Any) -> None:
        with self._database.begin(write=True) as transaction:
            for key, data in batch:
                transaction.put(key, _FIRST_TERM + data, append=True)

    def close(self) -> None:
        self._database.close()


def _lmdb(directory: str, **settings: Any) -> Any:
    import lmdb  # noqa: PLC0415  # only where it is the peer

    return lmdb.open(directory, map_size=_MAP_BYTES, **settings)


def _replay_lmdb(directory: str) -> Iterator[Any]:
    with _lmdb(directory, readonly=True).begin() as transaction:
        yield from transaction.cursor()


def _lmdb_versions() -> dict[str, str]:
    import lmdb  # noqa: PLC0415

    return {"LMDB": ".".join(map(str, lmdb.version())), "lmdb": version("lmdb")}


LMDB = Peer(
    LMDBWriter,
    lambda directory: list(_replay_lmdb(directory)),
    _pair_of,
    _replay_lmdb,
    _lmdb_versions,
)


class RocksDBWriter:
    def __init__(self, directory: str, sync: bool) -> None:
        from rocksdict import WriteBatch, WriteOptions  # noqa: PLC0415  # only where it is the peer

        self._batch = WriteBatch
        self._settings = WriteOptions()
        self._settings.sync = sync
        self._database = _rocksdb(directory)

    def prepared(self, entries: Sequence[Pair], batch: int) -> list[Any]:
        return batches_of([(_KEY.pack(index), data) for index, data in entries], batch)

    def save(self, batch: Any) -> None:
        writes = self._batch(raw_mode=True)
        for key, data in batch:
            writes.put(key, _FIRST_TERM + data)
        self._database.write(writes, self._settings)

    def close(self) -> None:
        self._database.close()


def _rocksdb(directory: str) -> Any:
    from rocksdict import Options, Rdict  # noqa: PLC0415

    return Rdict(directory, Options(raw_mode=True))


def _replay_rocksdb(directory: str) -> Iterator[Any]:
    database = _rocksdb(directory)
    yield from database.items()


def _rocksdb_threaded(writer: RocksDBWriter) -> ThreadedSave:
    """Keys may come in any order, so only taking the next one is in turn."""
    turn = threading.Lock()

    def save(take: Callable[[], Any]) -> bool:
        with turn:
            batch = take()
        if batch is not None:
            writer.save(batch)
        return batch is not None

    return save


ROCKSDB = Peer(
    RocksDBWriter,
    lambda directory: list(_replay_rocksdb(directory)),
    _pair_of,
    _replay_rocksdb,
    lambda: {"rocksdict": version("rocksdict")},
    threaded=_rocksdb_threaded,
)
