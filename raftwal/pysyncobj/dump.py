"""A snapshot's data: PySyncObj's own dump, and what the journal needs without opening it.

The dump is kept as PySyncObj makes it (a gzipped pickle, or whatever the application's
own serializer writes), so that plain PySyncObj nodes can be sent it as it is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from raftwal.errors import SnapshotFileError
from raftwal.model import Snapshot, SnapshotMetadata
from raftwal.pysyncobj.journal import JournalEntry
from raftwal.pysyncobj.node_ids import conf_state
from raftwal.snapshot_files import SnapshotReader, buffered
from raftwal.spool import SizedChunks
from raftwal.storage import RaftStorage
from raftwal.wire.fields import Read, split
from raftwal.wire.schema import PbPySyncObjSnapshot, parse
from raftwal.wire.varint import encode_varint

FORMAT_VERSION = 1

# Keys in the envelope: a field's number and its wire type, 0 for a number, 2 for bytes.
_CONTENT = 4 << 3 | 2
_KEYS = (1 << 3, 2 << 3 | 2, 3 << 3 | 2, _CONTENT, 5 << 3 | 2)


class DumpDescription(NamedTuple):
    """What PySyncObj's dump says beside the state.

    ``last`` is the last entry applied to the state, ``previous`` the one before it.
    """

    previous: JournalEntry
    last: JournalEntry
    node_ids: tuple[str, ...]

    @property
    def last_index(self) -> int:
        """The index that the state has reached."""
        return self.last[1]

    @property
    def metadata(self) -> SnapshotMetadata:
        """Those of the snapshot that holds the dump."""
        return SnapshotMetadata(self.last[1], self.last[2], conf_state(self.node_ids))

    def around(self, content_size: int) -> tuple[bytes, bytes]:
        """What the snapshot's data have before and after the dump itself."""
        before = PbPySyncObjSnapshot(format_version=FORMAT_VERSION)
        for field, (command, index, term) in (
            (before.previous, self.previous),
            (before.last, self.last),
        ):
            field.Term, field.Index, field.Data = term, index, command
        after = PbPySyncObjSnapshot(node_ids=self.node_ids)
        head = encode_varint(_CONTENT) + encode_varint(content_size)
        return _encoded(before) + head, _encoded(after)


class DumpChunks(SizedChunks):
    """A snapshot's data, from a dump in chunks."""

    def __init__(self, description: DumpDescription, content: SizedChunks) -> None:
        self._before, self._after = description.around(content.size)
        self._content = content

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return len(self._before) + self._content.size + len(self._after)

    def __iter__(self) -> Iterator[bytes]:
        yield self._before
        yield from self._content
        yield self._after


class Dump(NamedTuple):
    """PySyncObj's dump in memory, and what it says beside the state: see `DumpDescription`."""

    previous: JournalEntry
    last: JournalEntry
    node_ids: tuple[str, ...]
    content: bytes

    @property
    def last_index(self) -> int:
        """The index that the state has reached."""
        return self.last[1]

    def to_snapshot(self) -> Snapshot:
        """The snapshot that holds this dump."""
        description = DumpDescription(self.previous, self.last, self.node_ids)
        before, after = description.around(len(self.content))
        return Snapshot(description.metadata, b"".join((before, self.content, after)))

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Dump:
        """Raises `SnapshotFileError` when the snapshot was not made by `to_snapshot`."""
        metadata, data = snapshot

        def read(offset: int, length: int) -> bytes:
            return data[offset : offset + length]

        description, start, end = _layout_of(read, len(data), metadata)
        return cls(*description, data[start:end])


class StoredDump:
    """The dump in a snapshot's file, read piece by piece.  `close` closes the file."""

    def __init__(self, reader: SnapshotReader) -> None:
        """Raises `SnapshotFileError` when it is not a dump's, `ReadFailedError`."""
        self._reader = reader
        self.description, self._start, end = _layout_of(reader.read, reader.size, reader.metadata)
        self.size = end - self._start

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end.

        Raises `ReadFailedError`.
        """
        return self._reader.read(self._start + offset, min(length, max(0, self.size - offset)))

    def stream(self) -> io.BufferedReader:
        """All of it, as a file that is open for reading."""
        return buffered(self.read, self.size)

    def close(self) -> None:
        """Let go of the file.  Idempotent."""
        self._reader.close()

    def __enter__(self) -> StoredDump:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_dump(storage: RaftStorage) -> StoredDump | None:
    """The dump in the storage's newest snapshot, checked; ``None`` before the first.

    Safe in another thread.  Raises as `RaftStorage.open_snapshot` does, `SnapshotFileError`.
    """
    reader = storage.open_snapshot()
    if reader is None:
        return None
    try:
        return StoredDump(reader)
    except BaseException:
        reader.close()
        raise


class _Layout(NamedTuple):
    description: DumpDescription
    start: int
    end: int


def _layout_of(read: Read, size: int, metadata: SnapshotMetadata) -> _Layout:
    """What a snapshot's data say beside the dump, and where the dump is."""
    try:
        start, end, others = split(read, 0, size, _CONTENT, _KEYS)
        message = parse(PbPySyncObjSnapshot, others)
    except ValueError as error:
        raise SnapshotFileError(
            "the snapshot was not made by raftwal's PySyncObj adapter",
            index=metadata.index,
            advice="Give the node a data directory of its own",
        ) from error
    if message.format_version != FORMAT_VERSION:
        raise SnapshotFileError(
            f"the snapshot is of format {message.format_version}, "
            f"this raftwal knows format {FORMAT_VERSION}",
            index=metadata.index,
            advice="Install the version of raftwal that wrote it, or a newer one",
        )
    previous, last = (
        (entry.Data, entry.Index, entry.Term) for entry in (message.previous, message.last)
    )
    return _Layout(DumpDescription(previous, last, tuple(message.node_ids)), start, end)


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded
