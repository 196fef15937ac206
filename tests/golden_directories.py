"""The directories under ``golden/``: unpacked, with what etcd's packages said of them."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

from raftwal import Entry, EntryType, HardState

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name for path in (GOLDEN / "wal").iterdir())
SCRIPTED = [name for name in NAMES if (GOLDEN / "wal" / name / "script.jsonl").exists()]
SERVER = GOLDEN / "etcd-3.4.23"


def extract(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(into, filter="data")
        else:
            tar.extractall(into)


def unpack(name: str, into: Path, most_zeros: int | None = None) -> Path:
    """The log directory ``name``, every file at its full size, unless that takes more zeros
    at its end than ``most_zeros``: tens of megabytes of them make a test slow, not better.
    """
    source = GOLDEN / "wal" / name
    extract(source / "wal.tar.gz", into)
    directory = into / "wal"
    for file_name, size in json.loads((source / "sizes.json").read_text()).items():
        path = directory / file_name
        most = size if most_zeros is None else path.stat().st_size // 8 * 8 + most_zeros
        with path.open("r+b") as file:
            file.truncate(min(size, most))
    return directory


def unpack_server(into: Path) -> Path:
    """The data directory of the etcd server: ``wal/`` and ``snap/`` are in it."""
    extract(SERVER / "data-dir.tar.gz", into)
    return into / "etcd-data" / "member"


def expected(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "wal" / name / "expected.json").read_text())


def script(name: str) -> list[dict[str, Any]]:
    text = (GOLDEN / "wal" / name / "script.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def bytes_of(encoded: str | None) -> bytes | None:
    return None if encoded is None else base64.b64decode(encoded)


def state_of(fields: dict[str, int] | None) -> HardState | None:
    return None if fields is None else HardState(**fields)


def entry_of(fields: dict[str, Any]) -> Entry:
    return Entry(
        fields["term"], fields["index"], bytes_of(fields["data"]), EntryType(fields["type"])
    )


def digest(entries: list[Entry]) -> str:
    total = hashlib.sha256()
    for entry in entries:
        data = entry.data or b""
        total.update(struct.pack("<4Q", entry.term, entry.index, entry.type, len(data)))
        total.update(data)
    return total.hexdigest()
