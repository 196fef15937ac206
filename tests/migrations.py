"""Migrations on a simulated disk and on a real one, for the tests of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from old_nodes import (
    NODES,
    OldNode,
    write_to,
)

from raftwal import RaftwalError
from raftwal.pysyncobj.migration import Migration, from_file_journal, to_file_journal
from raftwal.pysyncobj.node_directory import open_directory
from raftwal.pysyncobj.node_state import NodeState
from raftwal.testing import InlineExecutor, SimulatedDisk

HERE = "/machine"
JOURNAL, META, DUMP, DATA = (f"{HERE}/{n}" for n in ("journal", "journal.meta", "dump", "data"))
BACK, BACK_DUMP = f"{HERE}/back/journal", f"{HERE}/back/dump"
ME = NODES[0]


def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory(HERE)
    return disk


def go(disk: SimulatedDisk, dump: str | None = DUMP, **options) -> Migration:
    options = {"node_id": ME, "segment_bytes": 4096, "executor": InlineExecutor(), **options}
    return from_file_journal(JOURNAL, dump, options.pop("to", DATA), fs=disk, **options)


def on_disk(journal: Path, dump: Path | None, data: Path, **options) -> Migration:
    return from_file_journal(journal, dump, data, node_id=ME, segment_bytes=1 << 14, **options)


def go_back(disk: SimulatedDisk, journal: str = BACK, dump: str | None = BACK_DUMP) -> Migration:
    return to_file_journal(DATA, journal, dump, fs=disk)


def migrated(disk: SimulatedDisk, node: OldNode, **options) -> NodeState:
    write_to(disk, node, JOURNAL, DUMP)
    source = source_of(disk)
    state = go(disk, **options).state
    assert source_of(disk) == source
    assert directory_on(disk) == state
    return state


def directory_on(disk: SimulatedDisk) -> NodeState:
    with open_directory(disk, DATA) as found:
        return found.state


def source_of(disk: SimulatedDisk) -> dict[str, bytes]:
    return {path: disk.content(path) for path in (JOURNAL, META, DUMP) if disk.exists(path)}


def files_on(disk: SimulatedDisk) -> dict[str, bytes]:
    return {path: disk.content(path) for path in disk.paths()}


def refused(disk: SimulatedDisk, kind: type[RaftwalError], **options) -> RaftwalError:
    """The error, after a look that there is nothing new."""
    before = files_on(disk)
    with pytest.raises(kind) as caught:
        go(disk, **options)
    assert files_on(disk) == before
    assert not disk.exists(f"{DATA}.migrating")
    assert caught.value.advice
    return caught.value


class Mute:
    """A transport that notes what it is to send."""

    ready = True

    def __init__(self):
        self.sent = []

    def send(self, node, message):
        self.sent.append(message)

    def destroy(self):
        pass

    def __getattr__(self, name):
        return lambda *_: None
