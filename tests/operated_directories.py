"""Data directories for the tests of the command line, and the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from raftwal import (
    ConfState,
    Entry,
    HardState,
    Identity,
    RaftStorage,
    Snapshot,
    SnapshotMetadata,
)

SEGMENT_BYTES = 4096
VOTERS = ConfState(voters=(1, 2, 3))


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "raftwal", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )
    assert "Traceback" not in result.stderr
    return result


def facts(*arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.returncode == code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def open_storage(data_dir: Path, **options: Any) -> RaftStorage:
    options.setdefault("identity", Identity("node1:4321", "blue"))
    return RaftStorage.open(
        data_dir, segment_bytes=SEGMENT_BYTES, registry=CollectorRegistry(), **options
    )


def snapshot_at(index: int) -> Snapshot:
    return Snapshot(SnapshotMetadata(index, 2, VOTERS), b"state at %d" % index)


def fill(storage: RaftStorage, first: int, last: int) -> None:
    for index in range(first, last + 1):
        storage.save(HardState(2, 7, index - 1), [Entry(2, index, b"put %d " % index * 10)])


def make_data_dir(path: Path) -> Path:
    """Ten entries, nine of them committed, and a snapshot at 5."""
    with open_storage(path) as storage:
        fill(storage, 1, 10)
        storage.save_snapshot(snapshot_at(5))
    return path


def make_purged_data_dir(path: Path) -> Path:
    """A log whose first segments are gone, with snapshots at 170 and 190."""
    with open_storage(path, keep_segments=2, keep_snapshots=2) as storage:
        for first in range(1, 201, 20):
            fill(storage, first, first + 19)
            storage.save_snapshot(snapshot_at(first + 9))
    assert int(segments(path)[0].stem.split("-")[0], 16) > 0
    return path


def segments(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "wal").glob("*.wal"))


def records(data_dir: Path, code: int = 0) -> list[dict[str, Any]]:
    return of_kind(facts("dump", data_dir, "--records", code=code), "record")


def tear(data_dir: Path) -> int:
    """Cut the file inside its last record; returns where that begins."""
    last = records(data_dir)[-1]
    path = data_dir / "wal" / last["segment"]
    os.truncate(path, last["offset"] + 12)
    return int(last["offset"])


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def corrupt_entry(data_dir: Path, index: int) -> int:
    """Change a byte of an entry's data; returns where its record begins."""
    record = next(r for r in records(data_dir) if r.get("entry", {}).get("index") == index)
    offset = int(record["offset"])
    flip(data_dir / "wal" / record["segment"], offset + 40)
    return offset


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
