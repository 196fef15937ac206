"""etcd's own dump of a data directory: what ``etcd-dump-logs`` prints, taken apart."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import etcd_member
from etcd_programs import dump_tool

from raftwal.snapshots import SnapshotName

# The tool hands each entry's data, in hex, to a decoder and prints what that answers:
# "STATUS|TEXT".  This one hands all of it back.
_ECHO = "sed -u s/^/whole|/"

_ENTRY = re.compile(r" *(\d+)\t *(\d+)\t(norm|conf)\t?(.*)\twhole\t([0-9a-f]*)", re.DOTALL)
_SNAPSHOT = re.compile(r"term=(\d+) index=(\d+) nodes=\[([0-9a-f ]*)\]")
_METADATA = re.compile(
    r"nodeID=([0-9a-f]+) clusterID=([0-9a-f]+) term=(\d+) commitIndex=(\d+) vote=([0-9a-f]+)"
)


class DumpedEntry(NamedTuple):
    """``kind`` is "norm" or "conf"; ``text`` what the tool makes of the data."""

    term: int
    index: int
    kind: str
    text: str
    data: bytes


class DumpedLogs(NamedTuple):
    """``snapshot`` is term, index and voters, or ``None``."""

    snapshot: tuple[int, int, tuple[int, ...]] | None
    node_id: int
    cluster_id: int
    term: int
    commit: int
    vote: int
    entries: list[DumpedEntry]


def dump_logs(data_dir: Path) -> DumpedLogs:
    """The snapshot that the server starts from, and the log from there on.

    The tool by itself takes the newest file, also when no log vouches for it yet.
    """
    newest = etcd_member.newest_snapshot(data_dir / "member")
    start = []
    if newest is not None:
        start = ["-start-snap", str(SnapshotName(newest.metadata.term, newest.metadata.index))]
    done = subprocess.run(
        [dump_tool(), "-stream-decoder", _ECHO, *start, str(data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    header, _, entries = done.stdout.partition("decoder_status\tdecoded_data\n")
    snapshot = _SNAPSHOT.search(header)
    metadata = _METADATA.search(header)
    assert metadata is not None, header
    entries, _, count = entries.partition("\n\nEntry types () count is : ")
    dumped = []
    for line in entries.splitlines():
        entry = _ENTRY.fullmatch(line)
        assert entry is not None, line
        term, index, kind, text, data = entry.groups()
        dumped.append(DumpedEntry(int(term), int(index), kind, text, bytes.fromhex(data)))
    assert len(dumped) == int(count)
    return DumpedLogs(
        None
        if snapshot is None
        else (
            int(snapshot[1]),
            int(snapshot[2]),
            tuple(int(node, 16) for node in snapshot[3].split()),
        ),
        int(metadata[1], 16),
        int(metadata[2], 16),
        int(metadata[3]),
        int(metadata[4]),
        int(metadata[5], 16),
        dumped,
    )
