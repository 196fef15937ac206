"""Runs seeds on all cores until they are done or one fails; prints how that one went.

``make simulate SEEDS=1000 FIRST=0``, or ``python -m integration.simulation --seed 7``.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from integration.simulation.world import World


class Line(NamedTuple):
    """What a run tells the one who counts: small, since it crosses a pipe."""

    seed: int
    violations: list[str]
    seconds: float
    acknowledged: int
    local_reads: int
    stale_reads: int


def run_seed(arguments: tuple[int, str, bool]) -> Line:
    seed, journal, changes_members = arguments
    # A run is soon over: collecting in it costs more than it frees.
    gc.disable()
    if seed % 20 == 0:
        gc.collect()
    try:
        outcome = World(seed, journal=journal, changes_members=changes_members).run()
    except Exception as error:
        return Line(seed, [f"the simulation itself: {error!r}"], 0.0, 0, 0, 0)
    return Line(
        seed,
        [f"{violation.kind}: {violation.what}" for violation in outcome.violations],
        outcome.seconds,
        outcome.acknowledged,
        outcome.local_reads,
        outcome.stale_reads,
    )


def lines_of(
    seeds: range, processes: int, journal: str = "raftwal", changes_members: bool = False
) -> Iterator[Line]:
    work = ((seed, journal, changes_members) for seed in seeds)
    if processes == 1:
        yield from map(run_seed, work)
        return
    with multiprocessing.Pool(processes, maxtasksperchild=500) as pool:
        yield from pool.imap_unordered(run_seed, work, chunksize=5)


class Tally:
    """How far it is; tells it every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = self._told = time.monotonic()
        self._seeds = self._acknowledged = self._local_reads = self._stale_reads = 0
        self._seconds = 0.0

    def count(self, line: Line) -> None:
        self._seeds += 1
        self._seconds += line.seconds
        self._acknowledged += line.acknowledged
        self._local_reads += line.local_reads
        self._stale_reads += line.stale_reads
        if time.monotonic() > self._told + 10:
            self._told = time.monotonic()
            print(self, flush=True)

    def __str__(self) -> str:
        minutes = (time.monotonic() - self._started) / 60
        return (
            f"{self._seeds} of {self._total} seeds, {self._seconds / 3600:.1f} simulated hours, "
            f"{self._acknowledged} acknowledged operations, "
            f"{self._stale_reads} of {self._local_reads} local reads stale, "
            f"{self._seeds / max(minutes, 1e-9):.0f} seeds a minute"
        )


def tell(seed: int, journal: str, changes_members: bool, events: int, *, heartbeats: bool) -> bool:
    """Run a seed once more and print its trace; whether it was clean."""
    world = World(seed, journal=journal, changes_members=changes_members)
    outcome = world.run()
    print("\n".join(outcome.trace.lines(events, heartbeats=heartbeats)))
    print(world.settings)
    for violation in outcome.violations:
        print(f"seed {seed}, at {violation.time:.4f} s: {violation.kind}: {violation.what}")
    return not outcome.violations


def main() -> int:
    parser = argparse.ArgumentParser(prog="integration.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone and print its trace")
    parser.add_argument("--events", type=int, default=200, help="how many lines of a trace")
    parser.add_argument("--heartbeats", action="store_true", help="print these, too")
    parser.add_argument("--members", action="store_true", help="nodes join and leave, too")
    parser.add_argument("--journal", choices=("raftwal", "filejournal"), default="raftwal")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--go-on", action="store_true", help="do not stop at a failure")
    given = parser.parse_args()
    if given.seed is not None:
        clean = tell(
            given.seed, given.journal, given.members, given.events, heartbeats=given.heartbeats
        )
        return 0 if clean else 1
    tally = Tally(given.seeds)
    seeds = range(given.first, given.first + given.seeds)
    failed = 0
    for line in lines_of(seeds, given.processes, given.journal, given.members):
        tally.count(line)
        if line.violations:
            failed += 1
            print(f"seed {line.seed}: {'; '.join(line.violations)}", flush=True)
            if not given.go_on:
                print(tally)
                tell(line.seed, given.journal, given.members, given.events, heartbeats=False)
                again = " --members" if given.members else ""
                print(f"replay: python -m integration.simulation --seed {line.seed}{again}")
                return 1
    print(tally)
    print(f"{failed} of {given.seeds} seeds failed" if failed else "clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
