"""``python -m integration.benchmarks`` and what to measure; ``--help`` has the options."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from integration.benchmarks import recovery, throughput
from integration.benchmarks.figures import Report, save_json
from integration.benchmarks.journals import COMPARED, KINDS
from integration.benchmarks.peers.command import add_commands
from integration.benchmarks.surroundings import (
    NotOnADiskError,
    check_is_on_a_disk,
    describe,
    load_average,
    sync_milliseconds,
)

DEFAULT_PARENT = Path("build") / "benchmarks"


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.benchmark not in ("cluster", "recovery"):
        status: int = given.main(given)
        return status
    # So that the nodes and their data do not outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    given.dir.mkdir(parents=True, exist_ok=True)
    try:
        check_is_on_a_disk(given.dir)
    except NotOnADiskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # Relative to here, and the nodes run elsewhere.
    directory = Path(tempfile.mkdtemp(prefix=f"{given.benchmark}-", dir=given.dir.resolve()))
    try:
        report.facts(describe(directory))
        before, sync = load_average(), sync_milliseconds(directory)
        measured = given.run(given, directory, report)
        report.facts(
            {
                "load average, before and after": f"{before}, {load_average()}",
                "one small data sync, before and after": f"{sync:.2f} ms, "
                f"{sync_milliseconds(directory):.2f} ms",
            }
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if given.markdown is not None:
        report.save(given.markdown)
    if given.json is not None:
        save_json(given.json, measured)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m integration.benchmarks", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--dir",
        type=Path,
        default=DEFAULT_PARENT,
        help="where the nodes keep their data, on a disk (default: %(default)s)",
    )
    shared.add_argument("--json", type=Path, help="a file for every measured value")
    shared.add_argument("--markdown", type=Path, help="a file for what is printed")
    shared.add_argument("--rounds", type=_positive_int, default=5, help="default: %(default)s")
    commands = parser.add_subparsers(dest="benchmark", required=True)
    cluster = commands.add_parser(
        "cluster", parents=[shared], help="throughput and latency of three nodes"
    )
    cluster.set_defaults(run=_run_cluster)
    cluster.add_argument(
        "--kinds", type=_list_of(KINDS), default=COMPARED, help=f"of {', '.join(KINDS)}"
    )
    cluster.add_argument(
        "--sizes", type=_sizes, default=[100, 10_000], help="of commands, in bytes: 100,10000"
    )
    cluster.add_argument(
        "--batches", type=_list_of(("on", "off")), default=["on", "off"], help="on,off"
    )
    cluster.add_argument("--seconds", type=_positive, default=4.0, help="saturated, measured")
    cluster.add_argument("--warm-up", type=_positive, default=1.0, help="seconds before that")
    cluster.add_argument(
        "--latency-seconds", type=_positive, default=2.0, help="for each of the two latencies"
    )
    cluster.add_argument(
        "--rate", type=_positive, default=100.0, help="the moderate load, a second"
    )
    cluster.add_argument(
        "--sync-delay", type=float, default=0.0, help="milliseconds more for each data sync"
    )
    start = commands.add_parser("recovery", parents=[shared], help="a node's start from a long log")
    start.set_defaults(run=_run_recovery)
    start.add_argument("--entries", type=_positive_int, default=1_000_000)
    start.add_argument("--size", type=_positive_int, default=100, help="of a command, in bytes")
    start.add_argument(
        "--cold", action="store_true", help="drop the files from the page cache before each step"
    )
    add_commands(commands, lists=_list_of, numbers=_sizes, number=_positive_int, positive=_positive)
    return parser


def _run_cluster(given: argparse.Namespace, directory: Path, report: Report) -> Any:
    plan = throughput.Plan(
        given.kinds,
        [
            throughput.Workload(size, batches == "on")
            for size in given.sizes
            for batches in given.batches
        ],
        given.rounds,
        given.warm_up,
        given.seconds,
        given.latency_seconds,
        given.rate,
        given.sync_delay / 1e3,
    )

    def told(sample: throughput.Sample) -> None:
        print(
            f"round {sample.round + 1}, {sample.workload}: {KINDS[sample.kind].title}, "
            f"{sample.commands_a_second:,.0f} commands/s",
            file=sys.stderr,
            flush=True,
        )

    samples = throughput.measure(plan, directory, told)
    report.line(
        f"{plan.rounds} rounds; medians of the rounds, and the least and the greatest"
        + (f"; each data sync lengthened by {given.sync_delay} ms" if given.sync_delay else "")
    )
    report.line()
    throughput.tell(report, plan, samples)
    return [throughput.as_json(sample) for sample in samples]


def _run_recovery(given: argparse.Namespace, directory: Path, report: Report) -> Any:
    recovery.prepare(directory, given.entries, given.size)

    def told(timing: recovery.Timing) -> None:
        title = recovery.STEPS[timing.step].title
        print(f"round {timing.round + 1}: {title}, {timing.seconds:.3f} s", file=sys.stderr)

    timings = recovery.measure(directory, given.entries, given.rounds, cold=given.cold, told=told)
    report.line(
        f"{given.entries:,} entries of {given.size} B commands, page cache "
        f"{'cold' if given.cold else 'warm'}; {given.rounds} rounds"
    )
    report.line()
    recovery.tell(report, directory, timings)
    return [timing._asdict() for timing in timings]


def _list_of(known: Any) -> Any:
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return list(dict.fromkeys(names))

    return read


def _sizes(text: str) -> list[int]:
    return [_positive_int(part) for part in text.split(",")]


def _positive_int(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
