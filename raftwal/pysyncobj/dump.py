"""A snapshot's data: PySyncObj's own dump, and what the journal needs without opening it.

The dump is kept as PySyncObj makes it (a gzipped pickle, or whatever the application's
own serializer writes), so that plain PySyncObj nodes can be sent it as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from raftwal.errors import SnapshotFileError
from raftwal.model import Snapshot, SnapshotMetadata
from raftwal.pysyncobj.journal import JournalEntry
from raftwal.pysyncobj.node_ids import conf_state
from raftwal.wire.schema import PbPySyncObjSnapshot, parse

FORMAT_VERSION = 1


class Dump(NamedTuple):
    """PySyncObj's dump, and what it says beside the state.

    ``last`` is the last entry applied to the state, ``previous`` the one before it.
    """

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
        message = PbPySyncObjSnapshot(format_version=FORMAT_VERSION, dump=self.content)
        for field, (command, index, term) in (
            (message.previous, self.previous),
            (message.last, self.last),
        ):
            field.Term, field.Index, field.Data = term, index, command
        message.node_ids.extend(self.node_ids)
        return Snapshot(
            SnapshotMetadata(self.last[1], self.last[2], conf_state(self.node_ids)),
            message.SerializeToString(deterministic=True),
        )

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Dump:
        """Raises `SnapshotFileError` when the snapshot was not made by `to_snapshot`."""
        try:
            message = parse(PbPySyncObjSnapshot, snapshot.data)
        except ValueError as error:
            raise SnapshotFileError(
                "the snapshot was not made by raftwal's PySyncObj adapter",
                index=snapshot.metadata.index,
                advice="Give the node a data directory of its own",
            ) from error
        if message.format_version != FORMAT_VERSION:
            raise SnapshotFileError(
                f"the snapshot is of format {message.format_version}, "
                f"this raftwal knows format {FORMAT_VERSION}",
                index=snapshot.metadata.index,
                advice="Install the version of raftwal that wrote it, or a newer one",
            )
        previous, last = (
            (entry.Data, entry.Index, entry.Term) for entry in (message.previous, message.last)
        )
        return cls(previous, last, tuple(message.node_ids), message.dump)
