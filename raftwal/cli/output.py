"""How facts are printed: bytes, tables, JSON lines."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from raftwal.errors import RaftwalError
from raftwal.model import ConfState, Entry, SnapshotMetadata

PREVIEW_BYTES = 48

_ESCAPES = {n: chr(n) if 0x20 <= n < 0x7F else f"\\x{n:02x}" for n in range(256)} | {0x5C: "\\\\"}


class Column(NamedTuple):
    """A table's column: numbers stand on the right, text on the left."""

    title: str
    width: int = 0
    is_number: bool = False


def preview(data: bytes | None, limit: int = PREVIEW_BYTES) -> str:
    """Bytes as ASCII that a terminal can take, cut short; ``-`` for none."""
    if data is None:
        return "-"
    text = "".join(_ESCAPES[byte] for byte in data[:limit])
    return f"{text}..." if len(data) > limit else text


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as they come; columns are as wide as asked for, or as their title."""
    widths = [max(column.width, len(column.title)) for column in columns]

    def line(cells: Iterable[str]) -> str:
        padded = (
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, column, width in zip(cells, columns, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    print(line(column.title for column in columns))
    for row in rows:
        print(line(map(str, row)))


def print_json(kind: str, facts: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own."""
    print(json.dumps({"kind": kind, **facts}, separators=(",", ":")))


def base64_of(data: bytes | None) -> str | None:
    """Bytes for JSON; ``None`` stays what it is."""
    return None if data is None else base64.b64encode(data).decode("ascii")


def entry_facts(entry: Entry) -> dict[str, Any]:
    """An entry for JSON."""
    return {
        "index": entry.index,
        "term": entry.term,
        "type": entry.type.name.lower(),
        "length": len(entry.data or b""),
        "data": base64_of(entry.data),
    }


def snapshot_facts(snapshot: SnapshotMetadata) -> dict[str, Any]:
    """A snapshot record for JSON."""
    conf_state = snapshot.conf_state
    return {
        "index": snapshot.index,
        "term": snapshot.term,
        "conf_state": None if conf_state is None else conf_state._asdict(),
    }


def error_facts(error: RaftwalError) -> dict[str, Any]:
    """An error for JSON."""
    return {
        "error": type(error).__name__,
        "what": error.what,
        "path": error.path,
        "offset": error.offset,
        "index": error.index,
        "advice": error.advice,
    }


def membership(conf_state: ConfState | None) -> str:
    """Who is in the cluster, in one phrase; ``-`` when a snapshot does not say."""
    if conf_state is None:
        return "-"
    parts = (
        f"{name.replace('_', ' ')} {','.join(map(str, ids))}"
        for name, ids in zip(conf_state._fields[:4], conf_state[:4], strict=True)
        if ids
    )
    return "; ".join(parts) or "-"


def width_of(numbers: Iterable[int]) -> int:
    """How many characters the longest of the numbers takes."""
    return len(str(max(numbers, default=0)))


def in_words(count: int, noun: str) -> str:
    """``1 entry``, ``2 entries``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"
