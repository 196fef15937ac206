"""What was aimed at, and what came of it: ratios of medians, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

from integration.benchmarks.figures import Spread, ratios
from integration.benchmarks.peers.cases import Case
from integration.benchmarks.peers.known import OWN, REFERENCE, title
from integration.benchmarks.peers.results import Figures, Results

Value = Callable[[Figures], float]


def entries_a_second(figures: Figures) -> float:
    return float(figures["entries"] / figures["seconds"])


def cpu_an_entry(figures: Figures) -> float:
    return float(figures["cpu"] / figures["entries"])


def memory_beyond(figures: Figures) -> float:
    """Bytes that the process held at most, but for what it had before and the entries' data."""
    beyond = figures["rss_peak"] - figures["rss_before"] - figures.get("bytes", 0)
    # Of a log so short that the memory was there already, a page: a ratio to it is none.
    return float(max(4096, beyond))


def bytes_a_second(figures: Figures) -> float:
    return float(figures["bytes"] / figures["seconds"])


def p50(figures: Figures) -> float:
    return float(figures["p50"])


def p99(figures: Figures) -> float:
    return float(figures["p99"])


def values(results: Results, case: Case, peer: str, value: Value) -> dict[int, float]:
    return {number: value(each) for number, each in results.rounds(case, peer).items()}


class Ratio(NamedTuple):
    """Of the medians, and the least and the greatest of the rounds' own ratios."""

    of_medians: float
    spread: Spread


def ratio(
    results: Results, value: Value, case: Case, peer: str, to_case: Case, to: str
) -> Ratio | None:
    """None where one of them has no figure."""
    ours, theirs = values(results, case, peer, value), values(results, to_case, to, value)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    mine, others = [ours[n] for n in shared], [theirs[n] for n in shared]
    return Ratio(statistics.median(mine) / statistics.median(others), ratios(mine, others))


class Aim(NamedTuple):
    """``bound`` is the least that is wanted, or with ``most`` the most."""

    text: str
    bound: float
    most: bool
    measured: Ratio | None

    @property
    def is_met(self) -> bool | None:
        """None when nothing was measured."""
        if self.measured is None:
            return None
        reached = self.measured.of_medians
        return reached <= self.bound if self.most else reached >= self.bound

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        if self.is_met:
            return "met"
        off = self.measured.of_medians / self.bound
        return f"not met: {abs(off - 1):.0%} too {'much' if self.most else 'little'}"

    @property
    def wanted(self) -> str:
        return f"{'at most' if self.most else 'at least'} {self.bound:.1f}"


def aims(results: Results) -> list[Aim]:
    made = []
    for sync, batch, text, value, bound, most, only in _SAVING:
        for case in _cases(results, "saving", sync=sync, batch=batch):
            if only is None or case.size == only:
                measured = ratio(results, value, case, OWN, case, REFERENCE)
                made.append(Aim(f"{text}, {size_text(case.size)}", bound, most, measured))
    for case in results.cases("reading"):
        if case.do == "read":
            for text, value, bound, most in _READING:
                measured = ratio(results, value, case, OWN, case, REFERENCE)
                made.append(Aim(f"{text}, {size_text(case.size)}", bound, most, measured))
    made += _threads(results)
    made += _checksum(results)
    return made


# With or without sync, batch, what, its value, bound, at most, for one size only.
_SAVING: list[tuple[bool, int, str, Value, float, bool, int | None]] = [
    (True, 1, "one entry with sync: p50", p50, 1.0, True, None),
    (True, 1, "one entry with sync: p99", p99, 1.0, True, None),
    (True, 128, "batches of 128 with sync: entries a second", entries_a_second, 1.5, False, None),
    (True, 1024, "batches of 1,024 with sync: entries a second", entries_a_second, 1.5, False,
     None),
    (False, 1, "one entry without sync: entries a second", entries_a_second, 1.0, False, None),
    (False, 1024, "batches of 1,024 without sync: entries a second", entries_a_second, 3.0, False,
     128),
    (False, 1024, "batches of 1,024 without sync: entries a second", entries_a_second, 2.0, False,
     16 << 10),
]  # fmt: skip

_READING: list[tuple[str, Value, float, bool]] = [
    ("reading back: entries a second", entries_a_second, 2.0, False),
    ("reading back: memory beyond the entries", memory_beyond, 0.5, True),
]


def _cases(results: Results, section: str, *, sync: bool, batch: int) -> list[Case]:
    return [case for case in results.cases(section) if case.sync is sync and case.batch == batch]


def _threads(results: Results) -> list[Aim]:
    cases = {case.threads: case for case in results.cases("threads")}
    if 1 not in cases or 16 not in cases:
        return []
    measured = ratio(results, entries_a_second, cases[16], OWN, cases[1], OWN)
    return [Aim("16 threads, one entry each with sync: entries a second, of one thread's",
                5.0, False, measured)]  # fmt: skip


def _checksum(results: Results) -> list[Aim]:
    """Against the fastest of the implementations that use the processor's instruction."""
    cases = results.cases("checksum")
    if not cases:
        return []
    case = max(cases, key=lambda each: each.size)
    fastest = max(
        results.peers("checksum"),
        key=lambda peer: statistics.median(values(results, case, peer, bytes_a_second).values()),
    )
    measured = ratio(results, lambda f: 1 / bytes_a_second(f), case, OWN, case, fastest)
    text = f"checksums: time for a byte, of the fastest here ({title(fastest)}'s)"
    return [Aim(text, 1.5, True, measured)]


def size_text(size: int) -> str:
    return f"{size >> 10} KiB" if size >= 1024 and size % 1024 == 0 else f"{size} B"
