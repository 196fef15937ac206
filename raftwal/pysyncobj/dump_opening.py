"""From a dump to what PySyncObj's own ``deserialize`` gives: state, entries, nodes."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from typing import Any

from pysyncobj import pickle

from raftwal.fs import FILE_MODE
from raftwal.pysyncobj.dump import DumpDescription
from raftwal.snapshot_files import buffered
from raftwal.spool import CHUNK_BYTES
from raftwal.wire.fields import Read

Deserializer = Callable[[str], Any]


class DumpOpener:
    """Opens a gzipped pickle, or has the application's ``deserializer`` open its own format.

    Such a function is given a path, ``scratch``, and may put the state where it belongs while
    it runs, so it is called by the thread that ticks.
    """

    def __init__(self, deserializer: Deserializer | None, scratch: str) -> None:
        self._deserializer = deserializer
        self._scratch = scratch

    @property
    def is_the_applications(self) -> bool:
        """Whether the dump is in a format of the application's own."""
        return self._deserializer is not None

    def prepare(self, read: Read, size: int) -> tuple[Any, ...] | None:
        """Whatever can be done in another thread.  Raises what a damaged dump raises.

        A pickle is opened once its checksum was found right: bytes at random can make a
        pickle that takes all memory.
        """
        if self._deserializer is not None:
            self._write_scratch(read, size)
            return None
        with buffered(read, size) as stream, gzip.GzipFile(fileobj=stream) as unzipped:
            _read_to_the_end(unzipped)
        return _unpickle(read, size)

    def finish(self, prepared: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """What `prepare` could not do.  Raises what the application's function raises."""
        if self._deserializer is None:
            assert prepared is not None
            return prepared
        try:
            return (None, *self._deserializer(self._scratch))
        finally:
            os.unlink(self._scratch)

    def open(self, read: Read, size: int) -> tuple[Any, ...]:
        """All of it, of a dump that was found whole.  Raises as both of them do."""
        if self._deserializer is not None:
            self._write_scratch(read, size)
            return self.finish(None)
        return _unpickle(read, size)

    def _write_scratch(self, read: Read, size: int) -> None:
        fd = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with open(fd, "wb") as file:
            for offset in range(0, size, CHUNK_BYTES):
                file.write(read(offset, CHUNK_BYTES))


def described(data: tuple[Any, ...]) -> DumpDescription:
    """What ``(last entry, entry before it, nodes, ...)`` says of a dump."""
    last, previous, nodes = data[:3]
    # PySyncObj's nodes: objects with an id, or plain addresses in old dumps.
    node_ids = sorted(str(getattr(node, "id", node)) for node in nodes if node is not None)
    return DumpDescription(tuple(previous), tuple(last), tuple(node_ids))


def described_by(description: DumpDescription, data: tuple[Any, ...]) -> tuple[Any, ...]:
    """``data`` with the description's own entries.

    An application's deserializer may give lists for tuples; PySyncObj compares them
    with the journal's and throws the journal away if they differ.
    """
    return (data[0], description.last, description.previous, *data[3:])


def _unpickle(read: Read, size: int) -> tuple[Any, ...]:
    with buffered(read, size) as stream, gzip.GzipFile(fileobj=stream) as unzipped:
        data = tuple(pickle.load(unzipped))
        # The checksum comes last.
        _read_to_the_end(unzipped)
    return data


def _read_to_the_end(unzipped: gzip.GzipFile) -> None:
    while unzipped.read(CHUNK_BYTES):
        pass
