"""The plots of the document, as small SVG files."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from integration.benchmarks.peers.aims import entries_a_second, memory_beyond, size_text, values
from integration.benchmarks.peers.cases import Case
from integration.benchmarks.peers.known import OWN, PEERS, PURE, REFERENCE, title
from integration.benchmarks.peers.results import Figures, Results

# Colour, mark, width of the line.
STYLES = {
    OWN: ("#c0392b", "o", 2.0),
    PURE: ("#e59866", "o", 1.2),
    REFERENCE: ("#1f4e9c", "s", 2.0),
    "etcd-3.4": ("#7fb0e6", "s", 1.2),
    "raft-wal": ("#8e44ad", "v", 0.8),
    "raft-boltdb": ("#c39bd3", "^", 0.8),
    "tidwall": ("#d94f9a", "<", 0.8),
    "raft-engine": ("#333333", ">", 0.8),
    "file-journal": ("#b7950b", "D", 0.8),
    "sqlite": ("#16a085", "P", 0.8),
    "lmdb": ("#27ae60", "X", 0.8),
    "rocksdb": ("#7f8c8d", "*", 0.8),
}


class Plot(NamedTuple):
    title: str
    draw: Callable[[Any, Results], None]


class MissingPlotLibraryError(ImportError):
    """matplotlib is not installed."""


def draw_all(results: Results, directory: Path) -> list[Path]:
    """Raises `MissingPlotLibraryError`."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  # only plots need it
    except ImportError as error:
        raise MissingPlotLibraryError("plots need matplotlib (extra: bench)") from error
    mpl.use("svg")
    # Text as text, and the same names for the same run: small files, small differences.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "raftwal", "font.size": 8})
    from matplotlib import pyplot  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in PLOTS.items():
        path = directory / f"{name}.svg"
        plot.draw(pyplot, results)
        pyplot.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        pyplot.close("all")
        path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        written.append(path)
    return written


def _saving(sync: bool) -> Callable[[Any, Results], None]:
    def draw(pyplot: Any, results: Results) -> None:
        cases = [case for case in results.cases("saving") if case.sync is sync]
        sizes = list(dict.fromkeys(case.size for case in cases))
        _, axes = pyplot.subplots(1, max(1, len(sizes)), figsize=(9, 3), squeeze=False)
        for axis, size in zip(axes[0], sizes, strict=False):
            of_size = [case for case in cases if case.size == size]
            _lines(axis, results, of_size, entries_a_second, lambda case: case.batch)
            axis.set_title(f"{size_text(size)} an entry")
            axis.set_xlabel("entries a save")
        axes[0][0].set_ylabel("entries a second")
        _legend(axes[0][-1])

    return draw


def _latency(pyplot: Any, results: Results) -> None:
    cases = [case for case in results.cases("saving") if case.sync and case.batch == 1][:1]
    _, axis = pyplot.subplots(figsize=(6, 3))
    peers = [peer for peer in _peers(results, "saving")
             if cases and results.rounds(cases[0], peer)]  # fmt: skip
    for share, mark in (("p50", "o"), ("p99", "|")):
        for row, peer in enumerate(reversed(peers)):
            rounds = results.rounds(cases[0], peer).values()
            microseconds = [each[share] * 1e6 for each in rounds]
            colour = _style(peer)["color"]
            axis.plot([min(microseconds), max(microseconds)], [row, row], color=colour, lw=0.8)
            axis.plot(statistics.median(microseconds), row, mark, color=colour, markersize=5)
    axis.set_yticks(range(len(peers)), [title(peer) for peer in reversed(peers)])
    axis.set_title("".join(f"{size_text(case.size)} an entry" for case in cases))
    axis.set_xscale("log")
    axis.set_xlabel("µs: ● median of the rounds' p50, | of their p99, with the rounds' spread")


def _reading(pyplot: Any, results: Results) -> None:
    cases = [case for case in results.cases("reading") if case.do == "read"][:1]
    _, axes = pyplot.subplots(1, 2, figsize=(9, 3), sharey=True)
    peers = [peer for peer in _peers(results, "reading")
             if cases and results.rounds(cases[0], peer)]  # fmt: skip
    labels = [title(peer) for peer in reversed(peers)]
    colours = [_style(peer)["color"] for peer in reversed(peers)]
    for axis, value, unit, text in (
        (axes[0], entries_a_second, 1e-6, "million entries a second"),
        (axes[1], memory_beyond, 1e-6, "MB beyond the entries"),
    ):
        medians = [
            statistics.median(values(results, cases[0], peer, value).values()) * unit
            for peer in reversed(peers)
        ]
        axis.barh(labels, medians, color=colours)
        axis.set_xlabel(text)
    axes[0].set_title("".join(f"{case.count:,} of {size_text(case.size)}" for case in cases))


def _growth(pyplot: Any, results: Results) -> None:
    _, axes = pyplot.subplots(1, 2, figsize=(9, 3))
    for axis, do in zip(axes, ("save", "read"), strict=True):
        cases = sorted(
            (case for case in results.cases("growth") if case.do == do), key=lambda c: c.count
        )
        _lines(axis, results, cases, _microseconds, lambda case: case.count)
        axis.set_xlabel("entries in the log")
        axis.set_title("saving, batches of 1,024, with sync" if do == "save" else "reading back")
    axes[0].set_ylabel("µs an entry")
    _legend(axes[1])


PLOTS = {
    "saving-with-sync": Plot("Entries saved a second, with a sync a save", _saving(True)),
    "saving-without-sync": Plot("Entries saved a second, without syncs", _saving(False)),
    "latency": Plot("How long it takes to save one entry with sync", _latency),
    "reading": Plot("Reading back: entries a second, and memory", _reading),
    "growth": Plot("From ten thousand entries to ten million", _growth),
}


def _lines(
    axis: Any,
    results: Results,
    cases: list[Case],
    value: Callable[[Figures], float],
    at: Callable[[Case], int],
) -> None:
    """One for each peer, through its medians, both axes logarithmic."""
    for peer in PEERS:
        there = [case for case in cases if results.rounds(case, peer)]
        if there:
            medians = [
                statistics.median(values(results, case, peer, value).values()) for case in there
            ]
            axis.plot([at(case) for case in there], medians, **_style(peer))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([at(case) for case in cases], [f"{at(case):,}" for case in cases])
    axis.minorticks_off()


def _microseconds(figures: Figures) -> float:
    return float(figures["seconds"] / figures["entries"] * 1e6)


def _peers(results: Results, section: str) -> list[str]:
    there = results.peers(section)
    return [peer for peer in PEERS if peer in there]


def _style(peer: str) -> dict[str, Any]:
    """raftwal and etcd stand out; the others are told apart by their marks, too."""
    colour, mark, width = STYLES[peer]
    return {"color": colour, "lw": width, "marker": mark, "markersize": 3, "label": title(peer)}


def _legend(axis: Any) -> None:
    if axis.lines:
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
