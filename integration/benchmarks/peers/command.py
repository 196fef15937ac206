"""``python -m integration.benchmarks alone``, ``... peers`` and ``... report``."""

from __future__ import annotations

import argparse
import datetime
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from integration.benchmarks.figures import Report
from integration.benchmarks.peers import building, page, plots, tables
from integration.benchmarks.peers.cases import SECTIONS, Plan
from integration.benchmarks.peers.known import ALONE, OWN, PEERS, title
from integration.benchmarks.peers.profiles import profiles
from integration.benchmarks.peers.results import Results, ResultsError, load
from integration.benchmarks.peers.runs import Runner
from integration.benchmarks.peers.sequence import FAILED, Measurement, Step
from integration.benchmarks.surroundings import (
    NotOnADiskError,
    check_is_on_a_disk,
    describe,
    load_average,
    sync_milliseconds,
)

ROOT = building.ROOT
PAGE = ROOT / "docs" / "performance.md"
STORED = ROOT / "docs" / "performance" / "results.json"

_SIZES = (128, 1024, 16 << 10)
_BATCHES = (1, 16, 128, 1024)
# The widest table, with a ratio and its spread in each of six columns, in one piece.
_COLUMNS = 400
_GROWTH = (10_000, 100_000, 1_000_000, 10_000_000)
_LATENCY_TIMES = 5


def add_commands(
    commands: Any, *, lists: Callable[[Any], Any], numbers: Any, number: Any, positive: Any
) -> None:
    """Add the three to the parser's ``commands``, with its kinds of values."""
    for name, text in (
        ("alone", "raftwal's log by itself: saving, reading back, threads, growth, checksums"),
        ("peers", "the same beside etcd's log and others, in one run"),
    ):
        parser = commands.add_parser(name, help=text, description=text)
        known = ALONE if name == "alone" else tuple(PEERS)
        parser.set_defaults(main=run)
        parser.add_argument(
            "--dir",
            type=Path,
            default=Path("build") / "benchmarks",
            help="where the logs are written, on a disk (default: %(default)s)",
        )
        parser.add_argument(
            "--json",
            type=Path,
            default=Path("build") / "benchmarks" / f"{name}.json",
            help="a file for what is measured, written as it comes (default: %(default)s)",
        )
        parser.add_argument("--resume", action="store_true", help="go on with that file's run")
        parser.add_argument("--markdown", type=Path, help="a file for the tables")
        parser.add_argument("--rounds", type=number, help="default: 3")
        parser.add_argument("--peers", type=lists(known), default=list(known),
                            help=f"of {', '.join(known)}")  # fmt: skip
        parser.add_argument("--sizes", type=numbers, help="of entries, in bytes: 128,1024,16384")
        parser.add_argument("--batches", type=numbers, help="entries a save: 1,16,128,1024")
        parser.add_argument("--threads", type=numbers, default=[1, 16], help="1,16")
        parser.add_argument("--growth", type=numbers, help="lengths of logs: 10000,100000,...")
        parser.add_argument("--sections", type=lists(SECTIONS), default=list(SECTIONS),
                            help=f"of {', '.join(SECTIONS)}")  # fmt: skip
        parser.add_argument("--limit", type=positive, default=5.0,
                            help="seconds of saves in a case, at most (%(default)s)")  # fmt: skip
        parser.add_argument("--growth-limit", type=positive,
                            default=120.0 if name == "alone" else 45.0,
                            help="seconds for a step of the growth (%(default)s)")  # fmt: skip
        parser.add_argument("--quick", action="store_true", help="a minute's run, to try it")
        parser.add_argument("--profile", action="store_true", help="and where raftwal's time goes")
    report = commands.add_parser("report", help="docs/performance.md, made of a run's results")
    report.set_defaults(main=make_report)
    report.add_argument("results", type=Path, help="the --json file of a run")
    report.add_argument("--page", type=Path, default=PAGE, help="default: docs/performance.md")


def run(given: argparse.Namespace) -> int:
    # So that the programs and their logs do not outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=True, highlight=False)
    given.dir.mkdir(parents=True, exist_ok=True)
    try:
        check_is_on_a_disk(given.dir)
        results = load(given.json) if given.resume and given.json.exists() else Results()
    except (NotOnADiskError, ResultsError) as error:
        return _refused(error)
    plan = _plan(given)
    programs = building.build(
        given.peers, lambda text: console.print(text, markup=False, soft_wrap=True)
    )
    peers = list(programs.built)
    if not peers:
        return _refused("none of the peers is here")
    results.left_out = programs.left_out
    results.settings = {**plan._asdict(), "peers": given.peers}
    # Relative to here, and the programs run elsewhere.
    directory = Path(tempfile.mkdtemp(prefix="peers-", dir=given.dir.resolve()))
    status = 0
    try:
        _measure(plan, peers, programs, directory, results, given, console)
    except KeyboardInterrupt:
        console.print(f"interrupted: {given.json} has what was measured; --resume goes on")
        status = 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        results.save(given.json)
    _tell(results, given.markdown)
    failed = _failures(results)
    for text in failed:
        console.print(text, markup=False, soft_wrap=True)
    return status or (1 if failed else 0)


def _refused(why: object) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


def _plan(given: argparse.Namespace) -> Plan:
    quick = given.quick
    return Plan(
        given.sections,
        given.sizes or (_SIZES[:1] if quick else _SIZES),
        given.batches or (_BATCHES[::3] if quick else _BATCHES),
        given.threads,
        given.growth or (_GROWTH[:1] if quick else _GROWTH),
        given.rounds or (1 if quick else 3),
        given.limit,
        given.growth_limit,
        share=0.02 if quick else 1.0,
        latency_times=1 if quick else _LATENCY_TIMES,
    )


def _measure(
    plan: Plan,
    peers: Sequence[str],
    programs: building.Programs,
    directory: Path,
    results: Results,
    given: argparse.Namespace,
    console: Console,
) -> None:
    runner = Runner(directory, programs.built)
    before = (load_average(), sync_milliseconds(directory))
    began = time.monotonic()
    results.facts = _facts(directory, plan)
    with _Progress(console) as progress:
        Measurement(
            plan, peers, runner, results, progress.told, lambda: results.save(given.json)
        ).run()
    if given.profile:
        console.print("profiling raftwal")
        results.profiles = profiles(directory, plan.share)
    results.facts |= {name: version for name, version in runner.versions.items()
                      if name not in results.facts}  # fmt: skip
    results.facts |= {
        "load average, before and after": f"{before[0]}, {load_average()}",
        "one small data sync, before and after": f"{before[1]:.2f} ms, "
        f"{sync_milliseconds(directory):.2f} ms",
        "it took": f"{(time.monotonic() - began) / 60:.0f} minutes",
    }
    results.finished = True


def _facts(directory: Path, plan: Plan) -> dict[str, str]:
    return {
        "measured on": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "rounds": f"{plan.rounds}, with {plan.latency_times} turns each for one entry with sync",
        "saves of a case are stopped after": f"{plan.limit:g} s",
        "implementation of raftwal": building.implementation(),
        **describe(directory),
    }


class _Progress:
    """A bar on a terminal; elsewhere a line for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def told(self, step: Step) -> None:
        text = f"round {step.round + 1}: {title(step.peer)}, {step.case}"
        if self._console.is_terminal:
            self._bar.update(self._task, total=step.total, completed=step.number - 1,
                             description=text)  # fmt: skip
        else:
            self._console.print(f"{step.number}/{step.total} {text}", markup=False, soft_wrap=True)


def _tell(results: Results, markdown: Path | None) -> None:
    report = Report(_COLUMNS)
    for name, value in results.facts.items():
        report.line(f"{name}: {value}")
    for table in tables.all_tables(results):
        report.line()
        report.line(table.caption)
        report.table(table.heads, table.rows)
    for name, text in results.profiles.items():
        report.line(f"\n{name}\n{text}")
    report.line()
    report.line(f"raftwal here: {results.facts.get('implementation of raftwal', 'not measured')}")
    if markdown is not None:
        report.save(markdown)


def _failures(results: Results) -> list[str]:
    return [
        f"{title(peer)}, {case}: {reason}"
        for section in SECTIONS
        for case in results.cases(section)
        for peer in PEERS
        for reason in [results.reason(case, peer)]
        if reason is not None and reason.startswith(FAILED)
    ]


def make_report(given: argparse.Namespace) -> int:
    """The page, its plots and the results that they were made of, side by side."""
    directory = given.page.parent / "performance"
    try:
        results = load(given.results)
        if not results.cases("saving") or OWN not in results.peers("saving"):
            raise ResultsError(f"{given.results} has no saves of raftwal's")
        text = page.made_page(given.page.read_text(encoding="utf-8"), results)
        written = plots.draw_all(results, directory)
    except (OSError, ResultsError, page.PageError, plots.MissingPlotLibraryError) as error:
        return _refused(error)
    results.save(directory / STORED.name)
    given.page.write_text(text, encoding="utf-8")
    for path in (given.page, directory / STORED.name, *written):
        print(path)
    return 0
