"""The long run of ``tests/test_kill_9.py``: RAFTWAL_KILL_ROUNDS rounds, 60 by default."""

from __future__ import annotations

import os
import random

from test_kill_9 import run_rounds


def test_sixty_rounds_of_kill_9_lose_nothing_and_break_no_promise(tmp_path):
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    rounds = int(os.environ.get("RAFTWAL_KILL_ROUNDS", "60"))
    print(f"seed {seed}, {rounds} rounds; replay with RAFTWAL_SEED={seed}")
    run_rounds(tmp_path, seed, rounds)
