"""Files as a plain PySyncObj node leaves them, for the tests of the migration."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pysyncobj.journal import FileJournal
from pysyncobj.node import TCPNode

from raftwal.pysyncobj.file_journal import Meta, encode_meta, write_journal
from raftwal.testing import SimulatedDisk

NODES = ("10.0.0.1:4321", "10.0.0.2:4321", "10.0.0.3:4321")
NO_OP = b"\x01"

Command = tuple[bytes, int, int]


class OldNode(NamedTuple):
    """A node's entries as (command, index, term), what its ``.meta`` says, and its dump."""

    entries: Sequence[Command]
    meta: Meta | None
    dump: bytes | None = None


def command(index: int) -> bytes:
    return b"\x00" + pickle.dumps((0, (f"key {index}", "value " * (index % 7))), 2)


def entries(first: int, last: int, term: int = 2) -> list[Command]:
    """What a log holds from ``first`` to ``last``; it begins with PySyncObj's own no-op."""
    return [
        (NO_OP, 1, 0) if index == 1 else (command(index), index, term)
        for index in range(first, last + 1)
    ]


def dump_of(
    last: int,
    term: int = 2,
    state: Any = None,
    nodes: Iterable[Any] = tuple(map(TCPNode, NODES)),
) -> bytes:
    """A dump that reaches to ``last``, as PySyncObj's own serializer writes it."""
    previous_entry, last_entry = entries(last - 1, last, term)
    data = ({"values": {}} if state is None else state, last_entry, previous_entry, set(nodes))
    return gzip.compress(pickle.dumps(data, 2))


def old_node(
    first: int = 1,
    last: int = 20,
    *,
    dump: int | None = None,
    commit: int | None = None,
    term: int = 2,
    vote: str | None = NODES[1],
) -> OldNode:
    """A node in good order, whose dump, if it has one, reaches to ``dump``."""
    return OldNode(
        entries(first, last),
        Meta(term, vote, last - 1 if commit is None else commit),
        None if dump is None else dump_of(dump),
    )


def write_with_pysyncobj(node: OldNode, journal: Path, dump: Path) -> None:
    """The files of a node, the journal and the ``.meta`` by PySyncObj's own code."""
    file_journal = FileJournal(str(journal))
    for entry in node.entries:
        file_journal.add(*entry)
    if node.meta is not None:
        file_journal.setCurrentTerm(node.meta.term, node.meta.vote)
        file_journal.setRaftCommitIndex(node.meta.commit)
        file_journal.onOneSecondTimer()
    file_journal._destroy()
    if node.dump is not None:
        dump.write_bytes(node.dump)


def read_with_pysyncobj(journal: Path) -> tuple[list[Command], Meta]:
    """What PySyncObj itself finds in a journal and its ``.meta``."""
    file_journal = FileJournal(str(journal))
    meta = Meta(
        file_journal.getCurrentTerm(),
        file_journal.getVotedForNodeId(),
        file_journal.getRaftCommitIndex(),
    )
    found = file_journal[:]
    file_journal._destroy()
    return found, meta


def write_to(disk: SimulatedDisk, node: OldNode, journal: str, dump: str) -> None:
    """The files of a node on a simulated disk, durable."""
    write_journal(disk, journal, node.entries, "0.3.17")
    for path, content in (
        (f"{journal}.meta", None if node.meta is None else encode_meta(node.meta)),
        (dump, node.dump),
    ):
        if content is not None:
            put(disk, path, content)
    disk.write_back()


def put(disk: SimulatedDisk, path: str, content: bytes) -> None:
    file = disk.create(path)
    file.write(0, content)
    file.close()
