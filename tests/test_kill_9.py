"""kill -9 at random moments: nothing acknowledged is missing, no promise is broken.

A short run; ``integration/test_many_kills.py`` is the long one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_cluster import KilledCluster

from raftwal import WAL, repair
from raftwal.errors import TornTailError

WRITER = """
import sys
from raftwal import WAL, Entry, HardState
with WAL.open(sys.argv[1], segment_bytes=1 << 14) as wal:
    log = wal.read_all()
    index = len(log.entries)
    print(index, flush=True)
    while True:
        batch = [Entry(1, index + n, b"%d" % (index + n) * 20) for n in range(1, 1 + index % 7 + 1)]
        index = batch[-1].index
        wal.save(HardState(1, 9, batch[0].index - 1), batch)
        print(index, flush=True)
"""


def test_a_killed_writer_leaves_every_save_that_it_reported(tmp_path):
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    WAL.create(tmp_path / "wal", b"m", segment_bytes=1 << 14).close()
    saved = 0
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "wal")],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            started_at = int(process.stdout.readline())
            assert started_at >= saved, f"seed {seed}"
            for _ in range(rng.randrange(1, 200)):
                saved = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                saved = int(line) if line.endswith("\n") else saved
        try:
            with WAL.open(tmp_path / "wal") as wal:
                log = wal.read_all()
        except TornTailError:
            repair(tmp_path / "wal")
            log = WAL.open_for_read(tmp_path / "wal").read_all()
        assert len(log.entries) >= saved, f"seed {seed}"
        for index, entry in enumerate(log.entries, 1):
            assert entry == (1, index, b"%d" % index * 20, 0), f"seed {seed}"


@pytest.mark.timeout(600)
def test_a_killed_cluster_loses_nothing_and_breaks_no_promise(tmp_path, record_property):
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    rounds = int(os.environ.get("RAFTWAL_KILL_ROUNDS", "6"))
    print(f"seed {seed}, {rounds} rounds; replay with RAFTWAL_SEED={seed}")
    run_rounds(tmp_path, seed, rounds)


def run_rounds(directory: Path, seed: int, rounds: int) -> None:
    cluster = KilledCluster(directory, seed)
    try:
        cluster.start_all()
        for _ in range(rounds):
            cluster.round()
        cluster.check()
    finally:
        cluster.stop()
    assert cluster.acknowledged
    print(
        f"{rounds} rounds, {len(cluster.acknowledged)} acknowledged, none lost; "
        f"{cluster.recovered_from_snapshot} recoveries from a snapshot, "
        f"{cluster.replayed_entries} entries replayed"
    )
