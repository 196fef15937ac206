"""Clusters in one process, from seeds: see ``integration/simulation`` and ``make simulate``.

A failure names its seed; ``python -m integration.simulation --seed N`` tells what happened.
"""

from __future__ import annotations

import collections
import itertools
import os
import random
import subprocess
import sys

import pytest
from pysyncobj import FAIL_REASON

from integration.simulation.comparison import kinds_of
from integration.simulation.mutants import MUTANTS, Mutant, run
from integration.simulation.schedule import LEADER, Event, settings_of
from integration.simulation.world import Outcome, World

FIXED_SEEDS = range(40)


def fresh_seeds() -> list[int]:
    count = int(os.environ.get("RAFTWAL_FRESH_SEEDS", "100"))
    first = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    return list(range(first, first + count))


def told(outcome: Outcome) -> str:
    return "\n".join([*outcome.trace.lines(60), f"seed {outcome.seed}: {outcome.violations}"])


@pytest.mark.parametrize("seed", FIXED_SEEDS)
def test_a_cluster_keeps_its_promises(seed):
    outcome = World(seed).run()
    assert not outcome.violations, told(outcome)


def test_a_cluster_keeps_its_promises_with_seeds_that_nobody_has_tried():
    seeds = fresh_seeds()
    print(f"seeds {seeds[0]} to {seeds[-1]}; replay with RAFTWAL_SEED={seeds[0]}")
    for seed in seeds:
        outcome = World(seed).run()
        assert not outcome.violations, told(outcome)


def test_a_cluster_keeps_its_promises_while_nodes_join_and_leave():
    for seed in range(12):
        outcome = World(seed, changes_members=True).run()
        assert not outcome.violations, told(outcome)


def test_a_run_is_a_function_of_its_seed():
    for seed in (2, 5, 11):
        first, second = World(seed).run(), World(seed).run()
        assert first.digest == second.digest
        assert first.trace.lines(10**6) == second.trace.lines(10**6)
    assert World(2).run().digest != World(3).run().digest


def test_a_run_is_the_same_in_a_process_with_other_hashes():
    program = "from integration.simulation.world import World; print(World(5).run().digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {f"{World(5).run().digest}\n"}


def test_much_happens_in_a_run():
    outcomes = [World(seed).run() for seed in range(16)]
    assert sum(outcome.acknowledged for outcome in outcomes) > 500
    assert sum(outcome.terms for outcome in outcomes) > 50
    assert sum(outcome.starts for outcome in outcomes) > 100
    snapshots = [line for outcome in outcomes for line in outcome.trace.lines(10**6)]
    for event in (
        "snapshot_installed",
        "snapshot_saved",
        "wal_cut",
        "wal_purged",
        "loses power",
        "is killed",
        "has stopped",
        "storage_recovered",
    ):
        assert any(event in line for line in snapshots), event


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_broken_on_purpose_is_found(mutant: Mutant):
    """At once with seeds that once found it, or else, since each change to raftwal makes other
    runs of the same seeds, among the first.
    """
    tried = itertools.chain(mutant.seeds, range(1000))
    found = next((seed for seed in tried if run(mutant, seed).violations), None)
    assert found is not None
    print(f"found by seed {found}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_seed_that_ever_found_something_is_clean_now(mutant: Mutant):
    unbroken = mutant._replace(patches=[])
    for seed in mutant.seeds:
        outcome = run(unbroken, seed)
        assert not outcome.violations, told(outcome)


def sends_on_a_slow_network(schedule):
    """How often each entry is sent to each node that follows, and what comes of the run."""
    settings = settings_of(0)._replace(
        size=3,
        fault_seconds=40.0,
        append_entries_period=0.3,
        tick_seconds=0.15,
        leader_fallback=30.0,
        connection_timeout=30.0,
        connection_retry=0.2,
        append_batch_bytes=1 << 16,
        compaction_entries=1000,
        compaction_seconds=1000.0,
        think_seconds=0.3,
        burst=(10,),
        clients=3,
    )
    world = World(0, settings=settings, schedule=schedule)
    world.network.base = 0.4
    sends: collections.Counter[tuple[str, str, int, int]] = collections.Counter()
    watch = world.network.watch

    def counting(process, target, message):
        if isinstance(message, dict):
            for _, index, term in message.get("entries", ()):
                sends[process.machine.name, target, index, term] += 1
        watch(process, target, message)

    world.network.watch = counting
    return sends, world.run()


def test_an_entry_is_sent_once_to_each_follower_however_long_its_answer_takes():
    sends, outcome = sends_on_a_slow_network([])
    assert not outcome.violations, told(outcome)
    assert len(sends) > 500
    assert set(sends.values()) == {1}


def test_entries_that_are_lost_with_a_connection_are_sent_again():
    losses = [Event(time, "reset connections", LEADER, 0.0, time) for time in range(10, 35, 5)]
    sends, outcome = sends_on_a_slow_network(losses)
    assert not outcome.violations, told(outcome)
    assert max(sends.values()) > 1


def test_the_same_schedule_breaks_a_cluster_on_pysyncobjs_own_journal():
    """So the simulation is hard enough: power cuts lose what was acknowledged there."""
    found = set().union(*(kinds_of(seed, "filejournal") for seed in range(14)))
    assert {"lost write", "two votes", "does not serve again"} <= found


def test_stale_answers_to_clients_would_be_seen():
    """An order of effects that contradicts real time is not linearizable."""
    world = World(0)
    outcome = world.run()
    assert not outcome.violations
    first, second = [each for each in world.clients.operations if each.answered is not None][:2]
    assert first.reason == second.reason == FAIL_REASON.SUCCESS
    positions = world.invariants.positions
    positions[first.number], positions[second.number] = (
        positions[second.number],
        positions[first.number],
    )
    second.asked = first.answered + 1.0
    world.clients.check_history()
    assert [violation.kind for violation in world.invariants.violations] == ["not linearizable"]


def test_a_denied_command_that_takes_effect_would_be_seen():
    world = World(0)
    world.run()
    done = next(each for each in world.clients.operations if each.answered is not None)
    done.reason = FAIL_REASON.REQUEST_DENIED
    world.clients.check_history()
    assert world.invariants.violations[0].kind == "denied, but applied"
