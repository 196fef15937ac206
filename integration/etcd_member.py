"""A stopped member's directory, read and continued with raftwal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import raftwal
from raftwal import WAL, Entry, EntryType, HardState, LogContents, Snapshot, Snapshotter
from raftwal.errors import NoSnapshotError
from raftwal.fs import DISK
from raftwal.wal.records import Position, RecordStream
from raftwal.wal.segments import list_segments
from raftwal.wire.frames import ENTRY
from raftwal.wire.varint import decode_varint


class MemberContents(NamedTuple):
    """What a member starts from: the newest snapshot, if there is one, and the log after it."""

    snapshot: Snapshot | None
    log: LogContents

    @property
    def last_index(self) -> int:
        if self.log.entries:
            return self.log.entries[-1].index
        return self.snapshot.metadata.index if self.snapshot is not None else 0

    @property
    def node_id(self) -> int:
        return identity(self.log.metadata)[0]


def copy(data_dir: Path, target: Path) -> Path:
    """Copy a stopped server's data directory, without the zeros; the copy."""
    subprocess.run(["cp", "-a", "--sparse=always", str(data_dir), str(target)], check=True)
    return target


def newest_snapshot(member: Path) -> Snapshot | None:
    try:
        return Snapshotter(member / "snap").load_newest(raftwal.valid_snapshots(member / "wal"))
    except NoSnapshotError:
        return None


def read_member(member: Path) -> MemberContents:
    snapshot = newest_snapshot(member)
    start = snapshot.metadata if snapshot is not None else None
    with WAL.open_for_read(member / "wal", start) as reader:
        return MemberContents(snapshot, reader.read_all())


def identity(metadata: bytes | None) -> tuple[int, int]:
    """Node and cluster id: etcd's ``Metadata`` message, fields 1 and 2, always written."""
    data = metadata or b""
    assert data[:1] == b"\x08", data
    node_id, position = decode_varint(data, 1, len(data))
    assert data[position : position + 1] == b"\x10", data
    cluster_id, position = decode_varint(data, position + 1, len(data))
    assert position == len(data), data
    return node_id, cluster_id


def entries_of_next_term(contents: MemberContents, requests: Iterable[bytes]) -> list[Entry]:
    """``requests`` as the leader of the next term would append them."""
    term = contents.log.hard_state.term + 1
    first = contents.last_index + 1
    return [
        Entry(term, index, data, EntryType.NORMAL) for index, data in enumerate(requests, first)
    ]


def state_of_next_term(contents: MemberContents) -> HardState:
    state = contents.log.hard_state
    return HardState(state.term + 1, contents.node_id, state.commit)


def append(member: Path, requests: Iterable[bytes], **settings: int) -> list[Entry]:
    """Append requests to the log, one by one, as the leader of the next term; the entries."""
    contents = read_member(member)
    entries = entries_of_next_term(contents, requests)
    start = contents.snapshot.metadata if contents.snapshot is not None else None
    with WAL.open(member / "wal", start, **settings) as wal:
        assert wal.read_all().entries == contents.log.entries
        for entry in entries:
            wal.save(state_of_next_term(contents), [entry])
        wal.release_to(contents.log.hard_state.commit)
    return entries


def tear_last_entry(member: Path) -> Position:
    """Cut the file of the log off inside its last entry's record; where that begins."""
    directory = str(member / "wal")
    stream = RecordStream(DISK, directory, list_segments(DISK, directory))
    entry = None
    for record in stream:
        if record.type == ENTRY:
            entry = stream.position
    assert entry is not None
    with open(entry.path, "r+b") as segment:
        segment.truncate(entry.offset + 20)
    return entry
