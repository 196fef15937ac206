"""What was measured, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from integration.benchmarks.figures import Spread, shown
from integration.benchmarks.peers.aims import (
    Value,
    aims,
    bytes_a_second,
    cpu_an_entry,
    entries_a_second,
    memory_beyond,
    p50,
    p99,
    ratio,
    size_text,
    values,
)
from integration.benchmarks.peers.cases import Case
from integration.benchmarks.peers.known import OWN, PEERS, REFERENCE, title
from integration.benchmarks.peers.results import Figures, Results
from integration.benchmarks.peers.sequence import TOO_LONG

CANNOT = "cannot"
MISSING = "-"


class Table(NamedTuple):
    caption: str
    heads: list[str]
    rows: list[list[str]]
    is_prose: bool = False
    """Whether its last column is text."""

    def markdown(self) -> str:
        columns = ["---", *["---:"] * (len(self.heads) - 1)]
        if self.is_prose:
            columns[-1] = "---"
        rule = "|".join(columns)
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.heads, *self.rows)]
        return "\n".join([f"{self.caption}:", "", lines[0], f"|{rule}|", *lines[1:]])


def aim_table(results: Results) -> Table:
    rows = []
    for aim in aims(results):
        measured = aim.measured
        told = [MISSING, MISSING]
        if measured is not None:
            spread = measured.spread
            told = [
                shown(measured.of_medians),
                f"{shown(spread.least)} to {shown(spread.greatest)}",
            ]
        rows.append([aim.text, aim.wanted, *told, aim.verdict])
    caption = "raftwal to etcd 3.7, ratio of medians, unless a line says otherwise"
    heads = ["aim", "wanted", "measured", "in the rounds", ""]
    return Table(caption, heads, rows, is_prose=True)


def saving(results: Results, *, sync: bool) -> list[Table]:
    """A table for each size."""
    cases = [case for case in results.cases("saving") if case.sync is sync]
    tables = []
    for size in dict.fromkeys(case.size for case in cases):
        of_size = [case for case in cases if case.size == size]
        heads = ["entries a second", *[f"batch {case.batch:,}" for case in of_size]]
        rows = [
            [title(peer), *[_with_ratio(results, case, peer, entries_a_second) for case in of_size]]
            for peer in _present(results, "saving")
        ]
        how = "with a sync for each save" if sync else "without syncs"
        tables.append(Table(f"{size_text(size)} an entry, {how}", heads, rows))
    return tables


def latency(results: Results) -> Table:
    """Of one-entry saves with sync, in microseconds."""
    cases = [case for case in results.cases("saving") if case.sync and case.batch == 1]
    heads = ["one entry with sync, µs"]
    for case in cases:
        heads += [f"{size_text(case.size)}: p50", "p99"]
    rows = []
    for peer in _present(results, "saving"):
        row = [title(peer)]
        for case in cases:
            row += [_with_ratio(results, case, peer, value, 1e6) for value in (p50, p99)]
        rows.append(row)
    return Table("How long one save takes", heads, rows)


def cpu(results: Results) -> Table:
    """User and system time, in microseconds, without the disk's part in it."""
    cases = [case for case in results.cases("saving") if not case.sync]
    batches = sorted({case.batch for case in cases})
    cases = [case for case in cases if case.batch in (batches[:1] + batches[-1:])]
    heads = ["µs of CPU an entry"]
    heads += [f"{size_text(case.size)}, batch {case.batch:,}" for case in cases]
    rows = [
        [title(peer), *[_with_ratio(results, case, peer, cpu_an_entry, 1e6) for case in cases]]
        for peer in _present(results, "saving")
    ]
    return Table("User and system time of saves without sync", heads, rows)


def threads(results: Results) -> Table:
    cases = sorted(results.cases("threads"), key=lambda case: case.threads)
    heads = ["entries a second"]
    heads += [f"{case.threads} thread{'s' * (case.threads > 1)}" for case in cases]
    heads += [f"{cases[-1].threads} to 1" if len(cases) > 1 else ""]
    rows = []
    for peer in _present(results, "threads"):
        row = [title(peer), *[_median(results, case, peer, entries_a_second) for case in cases]]
        gain = ratio(results, entries_a_second, cases[-1], peer, cases[0], peer)
        rows.append([*row, MISSING if gain is None else str(gain.spread)])
    return Table("Each thread saves one entry at a time, with sync", heads, rows)


def reading(results: Results) -> Table:
    return _reading(results, "read", "All entries held, as `read_all()` gives them")


def replay(results: Results) -> Table:
    return _reading(results, "replay", "No entry held")


def _reading(results: Results, do: str, caption: str) -> Table:
    cases = [case for case in results.cases("reading") if case.do == do]
    heads = [""]
    for case in cases:
        heads += [f"{case.count:,} of {size_text(case.size)}: entries a second", "MB beyond them"]
    rows = []
    for peer in _present(results, "reading"):
        row = [title(peer)]
        # With none held, all of it is beyond them.
        value = memory_beyond if do == "read" else _memory
        for case in cases:
            row += [
                _with_ratio(results, case, peer, entries_a_second),
                _with_ratio(results, case, peer, value, 1e-6),
            ]
        rows.append(row)
    return Table(caption, heads, rows)


def growth(results: Results) -> list[Table]:
    cases = results.cases("growth")
    if not cases:
        return []
    at_read = "bytes beyond an entry's own, all held"
    return [
        _growth(results, "save", "Saving, µs an entry", _microseconds),
        _growth(results, "read", "Reading back, µs an entry", _microseconds),
        _growth(results, "read", f"Reading back, {at_read}",
                lambda f: memory_beyond(f) / f["entries"]),
        _growth(results, "replay", "Reading back with none held, MB", lambda f: _memory(f) / 1e6),
        _growth(results, "save", "Saving, MB beyond what is being saved",
                lambda f: _memory(f) / 1e6),
        _growth(results, "save", "On disk, bytes an entry", lambda f: f["disk"] / f["entries"]),
    ]  # fmt: skip


def _growth(results: Results, do: str, caption: str, value: Value) -> Table:
    cases = sorted(
        (case for case in results.cases("growth") if case.do == do), key=lambda case: case.count
    )
    heads = ["", *[f"{case.count:,} entries" for case in cases]]
    rows = [
        [title(peer), *[_median(results, case, peer, value) for case in cases]]
        for peer in _present(results, "growth")
    ]
    return Table(caption, heads, rows)


def checksum(results: Results) -> Table:
    cases = results.cases("checksum")
    names = {OWN: "raftwal's", "raftwal-pure": "google-crc32c's", "etcd": "Go's"}
    heads = ["GB a second, pieces of", *[size_text(case.size) for case in cases]]
    rows = [
        [names[peer], *[_median(results, case, peer, bytes_a_second, 1e-9) for case in cases]]
        for peer in _present(results, "checksum")
    ]
    return Table("CRC-32C alone, called from the program", heads, rows)


def reasons(results: Results) -> Table:
    """Why there is no figure."""
    told: dict[tuple[str, str], None] = {}
    for section in ("saving", "threads", "reading", "growth"):
        for case in results.cases(section):
            for peer in PEERS:
                reason = results.reason(case, peer)
                if reason is not None:
                    told[title(peer), f"{_kind(case, reason)}: {reason.splitlines()[0]}"] = None
    rows = [[peer, text] for peer, text in told]
    rows += [[title(peer), f"left out: {why.splitlines()[0]}"]
             for peer, why in results.left_out.items()]  # fmt: skip
    return Table("Where there is no figure", ["", "why"], rows, is_prose=True)


def _kind(case: Case, reason: str) -> str:
    if reason.startswith(TOO_LONG):
        return f"{case.count:,} entries"
    if case.do == "save":
        return "with sync" if case.sync else "without sync"
    return case.do


def _present(results: Results, section: str) -> list[str]:
    there = results.peers(section)
    return [peer for peer in PEERS if peer in there]


def _microseconds(figures: Figures) -> float:
    return float(figures["seconds"] / figures["entries"] * 1e6)


def _memory(figures: Figures) -> float:
    return float(max(4096, figures["rss_peak"] - figures["rss_before"]))


def _median(results: Results, case: Case, peer: str, value: Value, unit: float = 1.0) -> str:
    found = values(results, case, peer, value)
    if not found:
        reason = results.reason(case, peer)
        return MISSING if reason is None or reason.startswith(TOO_LONG) else CANNOT
    stopped = any(each.get("stopped") for each in results.rounds(case, peer).values())
    return shown(statistics.median(found.values()) * unit) + ("*" if stopped else "")


def _with_ratio(results: Results, case: Case, peer: str, value: Value, unit: float = 1.0) -> str:
    """The median, and behind it raftwal's ratio to it."""
    told = _median(results, case, peer, value, unit)
    to = ratio(results, value, case, OWN, case, peer)
    if peer == OWN or to is None:
        return told
    return f"{told}; {_short(to.spread)}"


def _short(spread: Spread) -> str:
    return f"{shown(spread.median)} ({shown(spread.least)} to {shown(spread.greatest)})"


ALL: Sequence[tuple[str, Callable[[Results], list[Table]]]] = (
    ("saving", lambda results: saving(results, sync=True)),
    ("saving", lambda results: [latency(results)]),
    ("saving", lambda results: saving(results, sync=False)),
    ("saving", lambda results: [cpu(results)]),
    ("threads", lambda results: [threads(results)]),
    ("reading", lambda results: [reading(results), replay(results)]),
    ("growth", growth),
    ("checksum", lambda results: [checksum(results)]),
)
"""In the order of the document, each with the section of the run that it is made of."""


def all_tables(results: Results) -> list[Table]:
    """Those that anything was measured for."""
    there = [table for section, made in ALL if results.peers(section) for table in made(results)]
    told = reasons(results)
    # The aims are about etcd: without it there is little to say of them.
    aimed = [aim_table(results)] if REFERENCE in results.peers("saving") else []
    return [*aimed, *there, *([told] if told.rows else [])]
