"""One damaged log, and what raftwal and etcd say of it by every way in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from beside_etcd import Refused, Ways
from damage import Bounds, Done, records_in
from etcd_packages import Dump
from hypothesis import assume
from log_scripts import Save, Script

from raftwal import Entry, HardState, SnapshotMetadata

Answers = dict[str, object]


class Case(NamedTuple):
    """``original`` is what the log held, ``before`` the damaged segment as it was.

    ``ours`` and ``etcds`` are the answers by way.
    """

    done: Done
    before: bytes
    damaged: Path
    original: Dump
    ours: Answers
    etcds: Answers

    @property
    def records(self) -> list[Bounds]:
        """Those of the damaged segment, before the damage."""
        return records_in(self.before)

    @property
    def hit(self) -> Bounds | None:
        """The record that the first damaged byte is in."""
        return next((one for one in self.records if one.start <= self.done.first < one.end), None)

    @property
    def damaged_bytes(self) -> bytes:
        """The damaged segment as it is."""
        path = self.damaged / self.done.segment
        return path.read_bytes() if path.exists() else b""

    @property
    def last_segment(self) -> str:
        return max(path.name for path in self.damaged.glob("*.wal"))

    def differing(self) -> list[str]:
        """The ways by which the two do not say the same: refusals are all the same."""
        return [
            way
            for way, ours in self.ours.items()
            if ours != self.etcds[way]
            and not (isinstance(ours, Refused) and isinstance(self.etcds[way], Refused))
            # What comes after a repair that only one of them did compares nothing.
            and not (way == "after repair" and self.ours["repair"] != self.etcds["repair"])
        ]


def answers(ways: Ways, damaged: Path, start: SnapshotMetadata | None) -> Answers:
    """Each way on a fresh copy; those that only read on one, which must stay as it is."""
    copy = damaged.parent / "copy"

    def fresh() -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(damaged, copy)
        return copy

    return {
        "read": ways.read(damaged, start),
        "verify": ways.verify(damaged, start),
        "valid snapshots": ways.valid_snapshots(damaged),
        "open to append": ways.open_to_append(fresh(), start),
        "repair": ways.repair(fresh()),
        "after repair": ways.open_to_append(copy, start),
    }


def start_of(ways: tuple[Ways, Ways], log: Path, *, from_snapshot: bool) -> SnapshotMetadata | None:
    """From where to read: a snapshot if it can be, or the beginning, whatever can be read."""
    vouched = ways[0].valid_snapshots(log)
    assert isinstance(vouched, list)
    starts = [*reversed(vouched), None] if from_snapshot else [None, *reversed(vouched)]
    readable = [start for start in starts if can_read(ways, log, start)]
    # Only a log of which etcd forgot a received snapshot has none: see `beside_etcd`.
    assume(readable)
    return readable[0]


def can_read(ways: tuple[Ways, Ways], log: Path, start: SnapshotMetadata | None) -> bool:
    ours, etcds = (each.read(log, start) for each in ways)
    assert isinstance(ours, Refused) == isinstance(etcds, Refused)
    return not isinstance(ours, Refused)


def case_of(
    ways: tuple[Ways, Ways], whole: Path, damaged: Path, done: Done, start: SnapshotMetadata | None
) -> Case:
    file = whole / done.segment
    original = ways[0].read(whole, start)
    assert isinstance(original, Dump)
    return Case(
        done,
        file.read_bytes() if file.exists() else b"",
        damaged,
        original,
        *(answers(each, damaged, start) for each in ways),
    )


def histories(script: Script) -> Iterator[tuple[HardState, list[Entry]]]:
    """What the log held after each of its records, read from the beginning."""
    state = HardState()
    entries: list[Entry] = []
    yield state, []
    for call in script.calls:
        if not isinstance(call, Save):
            continue
        for entry in call.entries:
            del entries[entry.index - 1 :]
            entries.append(entry)
            yield state, list(entries)
        if call.state is not None:
            state = call.state
            yield state, list(entries)
