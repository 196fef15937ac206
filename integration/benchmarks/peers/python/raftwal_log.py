"""raftwal's own log, as a Raft library uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import google_crc32c

from integration.benchmarks.peers.python.logs import (
    Pair,
    Peer,
    ThreadedSave,
    batches_of,
)
from raftwal import WAL, Entry
from raftwal.fs import DISK
from raftwal.native import codec
from raftwal.testing import UnsyncedDisk


class RaftwalWriter:
    def __init__(self, directory: str, sync: bool) -> None:
        self.log = WAL.create(directory, fs=DISK if sync else UnsyncedDisk())

    def prepared(self, entries: Sequence[Pair], batch: int) -> list[list[Entry]]:
        return batches_of([Entry(1, index, data) for index, data in entries], batch)

    def save(self, batch: list[Entry]) -> None:
        self.log.save(None, batch)

    def close(self) -> None:
        self.log.close()


def _read(directory: str) -> Sequence[Entry]:
    return WAL.open_for_read(directory).read_all().entries


def _replay(directory: str) -> Iterable[Entry]:
    return WAL.open_for_read(directory).replay()


def _pair_of(entry: Entry) -> Pair:
    return entry.index, entry.data or b""


def _threaded(writer: RaftwalWriter) -> ThreadedSave:
    """Entries go into the log in turn; each thread waits for its own to be durable."""

    def save(take: Callable[[], Any]) -> bool:
        # They are numbered already, in the order in which they are taken.
        return bool(writer.log.save_next(lambda index: take() or ()))

    return save


def _versions() -> dict[str, str]:
    return {"raftwal": version("raftwal")}


# Without the call in between that a record of Python's makes.
_extend_crc = google_crc32c.extend if codec is None else codec.extend_crc

PEER = Peer(
    RaftwalWriter, _read, _pair_of, _replay, _versions, threaded=_threaded, checksum=_extend_crc
)
