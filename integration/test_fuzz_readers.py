"""Fuzzing the readers for a minute: guided by coverage where atheris has a wheel for this Python.

Where it has none, the seeded inputs of ``make fuzz`` run instead, and more of them.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing.inputs import TARGETS

ROOT = Path(__file__).parents[1]
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
SECONDS = {"segment": 40, "record": 8, "snapshot_file": 6, "pysyncobj_snapshot": 6, "identity": 4}


def run(*arguments):
    """``python -m ARGUMENTS`` with the fuzzing package at hand; what it prints."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_every_kind_of_input_has_its_time():
    assert SECONDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("kind", SECONDS)
def test_no_path_that_coverage_leads_to_fails(kind, tmp_path):
    if not HAS_ATHERIS:
        pytest.skip("atheris has no wheel for this Python: more seeded inputs run instead")
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1, 1 << 30)))
    # An input that fails stays there: python -m fuzzing --replay FILE
    found = ROOT / "build" / "fuzz" / kind
    found.mkdir(parents=True, exist_ok=True)
    printed = run(
        "fuzzing.guided",
        kind,
        f"-seed={seed}",
        f"-max_total_time={SECONDS[kind]}",
        "-timeout=60",
        "-rss_limit_mb=512",
        f"-artifact_prefix={found}{os.sep}",
        tmp_path,
    )
    done = printed.strip().splitlines()[-1]
    print(f"{kind}, seed {seed}: {done}")
    assert done.startswith("Done ")


def test_no_seeded_input_fails():
    count = 10_000 if HAS_ATHERIS else 60_000
    print(run("fuzzing", "--inputs", count))
