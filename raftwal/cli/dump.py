"""``raftwal dump``: what a log holds, as a node that reads it sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from raftwal.cli.directory import Directory
from raftwal.cli.output import (
    PREVIEW_BYTES,
    Column,
    base64_of,
    entry_facts,
    error_facts,
    in_words,
    membership,
    preview,
    print_json,
    print_table,
    snapshot_facts,
    width_of,
)
from raftwal.cli.survey import Survey, survey
from raftwal.errors import RaftwalError, TornTailError
from raftwal.identity import Identity
from raftwal.model import MAX_UINT64, Entry, SnapshotMetadata
from raftwal.wal.segments import SegmentName


class Range(NamedTuple):
    """Which entries to show: ``first`` to ``last``, both included; or none."""

    first: int = 0
    last: int = MAX_UINT64
    is_empty: bool = False

    def holds(self, index: int) -> bool:
        """Whether the entry at ``index`` is to be shown."""
        return not self.is_empty and self.first <= index <= self.last


def dump(
    directory: Directory, wanted: Range, *, from_snapshot: int | None, as_json: bool
) -> list[RaftwalError]:
    """Print what the log holds; returns what is wrong with it."""
    result = survey(directory, from_snapshot=from_snapshot, wants_data=wanted.holds)
    entries = [entry for entry in result.contents.entries if wanted.holds(entry.index)]
    # Those beyond a gap were not read, and are there all the same.
    names = result.segments if from_snapshot is not None else directory.segments
    segments = _segments(directory.log, names)
    if as_json:
        _print_json(result, segments, entries)
    else:
        _print_tables(directory, result, segments, entries, wanted)
    return result.problems


def file_state(result: Survey, snapshot: SnapshotMetadata) -> str | None:
    """What became of a recorded snapshot's file; ``None`` when that is unknown."""
    if result.snapshot_files is None or snapshot.index == 0:
        return None
    file = result.snapshot_file(snapshot)
    return "missing" if file is None else file.state


def describe_metadata(metadata: bytes | None) -> str:
    """A log's metadata in one phrase."""
    if metadata is None:
        return "none"
    identity = Identity.decode(metadata)
    if identity is None:
        return f"{in_words(len(metadata), 'byte')}: {preview(metadata)}"
    cluster = f", cluster {identity.cluster_name!a}" if identity.cluster_name else ""
    return f"node {identity.node_id!a}{cluster}, format version {identity.format_version}"


def _segments(log: str, names: list[SegmentName]) -> list[dict[str, Any]]:
    rows = []
    for segment in names:
        try:
            size = os.stat(os.path.join(log, str(segment))).st_size
        except FileNotFoundError:
            # A live node purges; what was read before that stands.
            continue
        rows.append(
            {
                "name": str(segment),
                "sequence": segment.sequence,
                "first_index": segment.index,
                "bytes": size,
            }
        )
    return rows


def _vouched(result: Survey, snapshot: SnapshotMetadata) -> bool:
    return snapshot.index <= result.contents.hard_state.commit


def _print_json(result: Survey, segments: list[dict[str, Any]], entries: list[Entry]) -> None:
    contents = result.contents
    identity = Identity.decode(contents.metadata)
    print_json(
        "metadata",
        {
            "data": base64_of(contents.metadata),
            "identity": None if identity is None else identity._asdict(),
        },
    )
    print_json("hard_state", contents.hard_state._asdict())
    for segment in segments:
        print_json("segment", segment)
    for snapshot in contents.snapshots:
        facts = snapshot_facts(snapshot)
        facts["vouched"] = _vouched(result, snapshot)
        facts["file"] = file_state(result, snapshot)
        print_json("snapshot", facts)
    for file in result.snapshot_files or ():
        print_json(
            "snapshot_file",
            {
                "path": file.path,
                "index": file.name.index,
                "term": file.name.term,
                "bytes": file.size,
                "state": file.state,
                "vouched": result.vouches_for(file.name),
                "reason": None if file.error is None else file.error.what,
            },
        )
    for entry in entries:
        print_json("entry", entry_facts(entry))
    print_problems_as_json(result.problems)


def print_problems_as_json(problems: list[RaftwalError]) -> None:
    """One object for each: a torn tail, or an error of another kind."""
    for problem in problems:
        kind = "torn_tail" if isinstance(problem, TornTailError) else "error"
        print_json(kind, error_facts(problem))


def _print_tables(
    directory: Directory,
    result: Survey,
    segments: list[dict[str, Any]],
    entries: list[Entry],
    wanted: Range,
) -> None:
    contents = result.contents
    state = contents.hard_state
    print(f"log         {directory.log}")
    print(f"metadata    {describe_metadata(contents.metadata)}")
    print(f"hard state  term {state.term}, vote {state.vote}, commit {state.commit}")
    print()
    print_table(
        (
            Column("SEGMENT", 37),
            Column("FIRST INDEX", is_number=True),
            Column("BYTES", width_of(row["bytes"] for row in segments), is_number=True),
        ),
        ((row["name"], row["first_index"], row["bytes"]) for row in segments),
    )
    if contents.snapshots:
        print()
        _print_snapshots(result)
    if result.snapshot_files:
        print()
        _print_snapshot_files(result)
    if not wanted.is_empty:
        print()
        _print_entries(entries)
    if contents.torn_tail is not None:
        print()
        print(f"{contents.torn_tail.what}, {contents.torn_tail.where}")


def _print_snapshots(result: Survey) -> None:
    snapshots = result.contents.snapshots
    print_table(
        (
            Column("SNAPSHOT", width_of(s.index for s in snapshots), is_number=True),
            Column("TERM", width_of(s.term for s in snapshots), is_number=True),
            Column("VOUCHED"),
            Column("FILE", 7),
            Column("MEMBERSHIP"),
        ),
        (
            (
                snapshot.index,
                snapshot.term,
                "yes" if _vouched(result, snapshot) else "no",
                file_state(result, snapshot) or "-",
                membership(snapshot.conf_state),
            )
            for snapshot in snapshots
        ),
    )


def _print_snapshot_files(result: Survey) -> None:
    files = result.snapshot_files or []
    print_table(
        (
            Column("SNAPSHOT FILE", 38),
            Column("BYTES", width_of(file.size for file in files), is_number=True),
            Column("VOUCHED"),
            Column("STATE"),
        ),
        (
            (
                file.name,
                file.size,
                "yes" if result.vouches_for(file.name) else "no",
                file.state if file.error is None else f"{file.state}: {file.error.what}",
            )
            for file in files
        ),
    )


def _print_entries(entries: list[Entry]) -> None:
    if not entries:
        print("no entries")
        return

    def rows() -> Iterator[tuple[object, ...]]:
        for entry in entries:
            data = entry.data
            shown = preview(data, PREVIEW_BYTES)
            yield (entry.index, entry.term, entry.type.name.lower(), len(data or b""), shown)

    print_table(
        (
            Column("ENTRY", width_of(entry.index for entry in entries), is_number=True),
            Column("TERM", width_of(entry.term for entry in entries), is_number=True),
            Column("TYPE", 6),
            Column("BYTES", width_of(len(entry.data or b"") for entry in entries), is_number=True),
            Column("DATA"),
        ),
        rows(),
    )
