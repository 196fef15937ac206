"""Throughput and latency of three nodes, kind after kind, round after round."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from integration.benchmarks.clusters import BenchmarkCluster
from integration.benchmarks.figures import Report, Spread, percentile, ratios, shown
from integration.benchmarks.journals import KINDS

# What is under way at a time, at most: PySyncObj's transport copies all that is not sent yet
# with every piece that it sends, so more bytes than these slow any journal down.
_MOST_COMMANDS = 20_000
_MOST_BYTES = 5_000_000
# With more, a journal that syncs every add gets no faster and is busy for minutes: without
# batches PySyncObj sends what is not acknowledged again and again, and each copy is synced.
_MOST_COMMANDS_SYNCED_EACH = {True: 300, False: 30}


class Workload(NamedTuple):
    """The size of a command's argument, and PySyncObj's ``appendEntriesUseBatch``."""

    payload_bytes: int
    batches: bool

    def __str__(self) -> str:
        return f"{self.payload_bytes:,} B a command, batches {'on' if self.batches else 'off'}"


class Plan(NamedTuple):
    """What one run measures.  Times in seconds, ``rate`` in commands a second."""

    kinds: Sequence[str]
    workloads: Sequence[Workload]
    rounds: int
    warm_up: float
    seconds: float
    latency_seconds: float
    rate: float
    sync_delay: float
    """Added to each data sync, as if the disk took so much longer."""


class Sample(NamedTuple):
    """One cluster's figures.  Times in seconds; those a command are of the saturated part."""

    kind: str
    workload: Workload
    round: int
    commands_a_second: float
    leader_cpu: float
    follower_cpu: float
    """Processor time for a command, the followers' on average."""
    commands_a_sync: float
    """Of the leader; 0 for a journal that syncs nothing."""
    one_at_a_time: list[float]
    steadily: list[float]
    thread_cpu: dict[str, float]
    """Of the leader, for a command, by the thread's name."""
    applied: int
    """By each of the nodes, which were found to have applied the same."""


def window(kind: str, workload: Workload) -> int:
    """How many commands are under way when a leader is to be saturated."""
    most = _MOST_COMMANDS_SYNCED_EACH[workload.batches] if kind == "naive" else _MOST_COMMANDS
    return max(1, min(most, _MOST_BYTES // workload.payload_bytes))


def measure(
    plan: Plan, directory: Path, told: Callable[[Sample], None] = lambda sample: None
) -> list[Sample]:
    """Every kind under every workload, in turn, ``plan.rounds`` times.

    Each round begins with another kind: what one leaves to the machine does not always
    meet the same next one.
    """
    samples = []
    for number, workload in itertools.product(range(plan.rounds), plan.workloads):
        first = number % len(plan.kinds)
        for kind in [*plan.kinds[first:], *plan.kinds[:first]]:
            samples.append(_sample(plan, kind, workload, number, directory))
            told(samples[-1])
    return samples


def _sample(plan: Plan, kind: str, workload: Workload, number: int, directory: Path) -> Sample:
    size = workload.payload_bytes
    with BenchmarkCluster(
        kind, batches=workload.batches, parent=directory, sync_delay=plan.sync_delay
    ) as cluster:
        leader = cluster.leader
        alone = leader.ask("one_at_a_time", payload_bytes=size, seconds=plan.latency_seconds)
        steady = leader.ask(
            "steadily", payload_bytes=size, rate=plan.rate, seconds=plan.latency_seconds
        )
        before = cluster.wait_in_step()
        done = leader.ask(
            "saturate",
            payload_bytes=size,
            window=window(kind, workload),
            warm_up=plan.warm_up,
            seconds=plan.seconds,
        )
        after = cluster.wait_in_step()
    asked = len(alone["seconds"]) + len(steady["seconds"]) + done["total"]
    if after[0]["applied"] != asked:
        raise RuntimeError(f"{asked} commands were called back, {after[0]['applied']} applied")

    def each(name: str) -> list[float]:
        return [now[name] - then[name] for then, now in zip(before, after, strict=True)]

    cpu, syncs = each("cpu"), each("syncs")
    return Sample(
        kind,
        workload,
        number,
        done["commands"] / done["seconds"],
        cpu[0] / done["total"],
        sum(cpu[1:]) / 2 / done["total"],
        done["total"] / syncs[0] if syncs[0] else 0.0,
        alone["seconds"],
        steady["seconds"],
        {
            name: (seconds - before[0]["threads"].get(name, 0.0)) / done["total"]
            for name, seconds in after[0]["threads"].items()
        },
        after[0]["applied"],
    )


def tell(report: Report, plan: Plan, samples: Sequence[Sample]) -> None:
    """A table of throughput and one of latency for each workload."""
    for workload in plan.workloads:
        of_kind = {
            kind: [each for each in samples if each[:2] == (kind, workload)] for kind in plan.kinds
        }
        report.line(f"Saturated: {workload}")
        report.table(
            [
                "journal",
                "commands/s",
                *[f"of {KINDS[kind].title}" for kind in _bases(plan)],
                "leader's CPU, µs a command",
                "a follower's",
                "commands a sync",
            ],
            [_throughput_row(kind, of_kind, _bases(plan)) for kind in plan.kinds],
        )
        report.line(f"Latency: {workload}")
        report.table(
            [
                "journal",
                "one at a time: p50, ms",
                "p99, ms",
                f"{shown(plan.rate)}/s: p50, ms",
                "p99, ms",
            ],
            [_latency_row(kind, of_kind[kind]) for kind in plan.kinds],
        )
        report.line()


def _bases(plan: Plan) -> list[str]:
    return [kind for kind in ("filejournal", "naive") if kind in plan.kinds]


def _throughput_row(kind: str, of_kind: dict[str, list[Sample]], bases: list[str]) -> list[str]:
    samples = of_kind[kind]

    def speeds(kind: str) -> list[float]:
        in_order = sorted(of_kind[kind], key=lambda sample: sample.round)
        return [sample.commands_a_second for sample in in_order]

    syncs = [sample.commands_a_sync for sample in samples]
    return [
        KINDS[kind].title,
        str(Spread.of(speeds(kind))),
        *["1" if kind == base else str(ratios(speeds(kind), speeds(base))) for base in bases],
        str(Spread.of([sample.leader_cpu * 1e6 for sample in samples])),
        str(Spread.of([sample.follower_cpu * 1e6 for sample in samples])),
        str(Spread.of(syncs)) if any(syncs) else "",
    ]


def _latency_row(kind: str, samples: Sequence[Sample]) -> list[str]:
    cells = [KINDS[kind].title]
    for measured in ("one_at_a_time", "steadily"):
        rounds: list[list[float]] = [getattr(sample, measured) for sample in samples]
        medians = Spread.of([percentile(each, 0.5) * 1e3 for each in rounds])
        # Of all rounds together: one of them is too short for it.
        slowest = percentile(list(itertools.chain(*rounds)), 0.99) * 1e3
        cells += [str(medians), shown(slowest)]
    return cells


def as_json(sample: Sample) -> dict[str, Any]:
    return {**sample._asdict(), "workload": sample.workload._asdict()}
