"""What goes wrong in a run, and how its cluster is set up: drawn from the seed, beforehand.

A schedule does not depend on what the nodes do, so the same one can be played to others.
Each seed has its own mix: few kinds of faults often find more than all of them together.
"""

from __future__ import annotations

import random
from typing import NamedTuple

LEADER = "leader"
"""Stands for whoever leads when the time comes."""


class Settings(NamedTuple):
    """One run's cluster: sizes are small, so that much happens in little time."""

    size: int
    fault_seconds: float
    quiet_seconds: float
    tick_seconds: float
    append_entries_period: float
    min_timeout: float
    max_timeout: float
    leader_fallback: float
    connection_timeout: float
    connection_retry: float
    uses_batch: bool
    append_batch_bytes: int
    compaction_entries: int
    compaction_seconds: float
    compaction_batch_bytes: int
    segment_bytes: int
    keep_segments: int
    keep_snapshots: int
    clients: int
    think_seconds: float
    burst: tuple[int, ...]
    value_bytes: tuple[int, ...]
    save_seconds: float
    sync_seconds: float
    slow_sync_seconds: float
    write_back_seconds: float
    changes_members: bool


class Event(NamedTuple):
    """Something that is done to the machines: see `faults.FAULTS`."""

    time: float
    kind: str
    target: str
    seconds: float
    number: int


# How often each kind is drawn where it takes part at all.
KINDS = {
    "kill": 3,
    "cut power": 3,
    "cut power everywhere": 1,
    "kill everywhere": 1,
    "kill in a call": 3,
    "cut power in a call": 4,
    "stop": 1,
    "partition": 4,
    "isolate": 4,
    "one-way": 2,
    "slow link": 3,
    "reset connections": 2,
    "pause": 3,
    "compact": 3,
    "transfer leadership": 2,
    "disk error": 3,
    "disk full": 2,
    "slow disk": 2,
}
MEMBERSHIP = {"join": 3, "leave": 3}


def settings_of(seed: int, *, changes_members: bool = False) -> Settings:
    source = random.Random(f"{seed} settings")
    period = source.choice((0.3, 0.5))
    min_timeout = period * source.choice((4, 5, 8))
    max_timeout = min_timeout * source.choice((1.5, 3))
    return Settings(
        size=source.choices((1, 2, 3, 4, 5), (1, 1, 10, 1, 6))[0],
        fault_seconds=source.choice((20.0, 40.0, 80.0)),
        quiet_seconds=90.0,
        tick_seconds=source.choice((0.15, 0.3)),
        append_entries_period=period,
        min_timeout=min_timeout,
        max_timeout=max_timeout,
        leader_fallback=source.choice((2.0, 10.0, 30.0)),
        connection_timeout=max(source.choice((2.0, 3.5)), max_timeout),
        connection_retry=source.choice((0.2, 1.0, 5.0)),
        uses_batch=source.random() < 0.5,
        append_batch_bytes=source.choice((100, 400, 2000, 1 << 16)),
        compaction_entries=source.choice((5, 10, 20, 40, 100)),
        compaction_seconds=source.choice((10.0, 30.0, 1000.0)),
        compaction_batch_bytes=source.choice((50, 200, 1 << 16)),
        segment_bytes=source.choice((600, 2000, 6000, 20000)),
        keep_segments=source.choice((1, 2, 5)),
        keep_snapshots=source.choice((1, 2, 5)),
        clients=source.choice((1, 2, 3)),
        think_seconds=source.choice((0.3, 1.0, 3.0)),
        burst=source.choice(((1,), (1, 1, 3), (1, 1, 1, 10))),
        value_bytes=source.choice(((0, 10), (10, 200), (10, 10, 10, 1500))),
        save_seconds=source.choice((1e-4, 1e-3, 0.02)),
        sync_seconds=source.choice((1e-4, 5e-3, 0.1)),
        slow_sync_seconds=source.choice((0.1, 1.0, 4.0)),
        write_back_seconds=source.choice((5.0, 30.0)),
        changes_members=changes_members,
    )


def names_of(size: int) -> list[str]:
    return [chr(ord("a") + number) for number in range(size)]


def schedule_of(seed: int, settings: Settings, only: tuple[str, ...] | None = None) -> list[Event]:
    """``only`` these kinds of events, where it is given."""
    source = random.Random(f"{seed} schedule")
    kinds = [kind for kind in KINDS if source.random() < 0.5]
    if only is not None:
        kinds = list(only)
    if settings.changes_members:
        kinds += MEMBERSHIP
    if not kinds:
        return []
    weights = [(KINDS | MEMBERSHIP)[kind] for kind in kinds]
    between = source.choice((0.5, 1.0, 2.0, 4.0))
    longest = source.choice((1.0, 5.0, 20.0))
    to_leader = source.choice((0.1, 0.5, 0.8))
    names = names_of(settings.size)
    events = []
    time = 3.0 + source.random() * 5
    if only is not None:
        between, longest, to_leader = 0.4, 3.0, 0.8
    while time < settings.fault_seconds:
        target = LEADER if source.random() < to_leader else source.choice(names)
        kind = source.choices(kinds, weights)[0]
        events.append(
            Event(time, kind, target, source.uniform(0.2, longest), source.randrange(1 << 30))
        )
        time += source.expovariate(1 / between)
    return events
