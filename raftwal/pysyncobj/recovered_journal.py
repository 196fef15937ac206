"""What a node starts from, as PySyncObj will ask for it."""

from __future__ import annotations

from collections.abc import Iterator

from raftwal.errors import RecordFormatError
from raftwal.model import EntryType
from raftwal.pysyncobj.dump import DumpDescription, open_dump
from raftwal.pysyncobj.journal import JournalEntry
from raftwal.storage import RaftStorage


def recovered_description(storage: RaftStorage) -> DumpDescription | None:
    """What the recovered snapshot says beside the state; ``None`` without a snapshot.

    Raises as `raftwal.RaftStorage.open` does.
    """
    dump = open_dump(storage)
    if dump is None:
        return None
    with dump:
        return dump.description


def recovered_entries(storage: RaftStorage) -> Iterator[JournalEntry]:
    """The recovered entries.  Raises `RecordFormatError` for one that PySyncObj never writes."""
    for entry in storage.recovered.entries:
        if not entry.data or entry.type is not EntryType.NORMAL:
            # A record's type is not covered by its checksum: see docs/guarantees.md.
            raise RecordFormatError(
                "an entry without a command, which PySyncObj never writes",
                path=storage.data_dir,
                index=entry.index,
            )
        yield entry.data, entry.index, entry.term
