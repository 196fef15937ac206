"""``python -m fuzzing``: a long run by hand, on all cores, up to the first failure."""

from __future__ import annotations

import argparse
import os
import random
import sys

from fuzzing.running import Failure, replay, run_in_processes

FOUND = os.path.join("build", "fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="RAFTWAL_SEED, or a random one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="only these, once each")
    arguments = parser.parse_args()
    if arguments.replay:
        reports = [report for path in arguments.replay for report in replay(path)]
        print("\n".join(reports) or "nothing fails")
        return 1 if reports else 0
    seed = arguments.seed
    if seed is None:
        seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}, {arguments.inputs} inputs; replay with RAFTWAL_SEED={seed}", flush=True)
    failure = run_in_processes(seed, arguments.inputs, arguments.processes, _show)
    print()
    if failure is None:
        print("nothing fails")
        return 0
    print(failure.report)
    print(_saved(failure, seed))
    return 1


def _show(done: int, seconds: float) -> None:
    end = "" if sys.stdout.isatty() else "\n"
    print(f"\r{done:,} inputs, {done / seconds:,.0f} a second ", end=end, flush=True)


def _saved(failure: Failure, seed: int) -> str:
    """Save the input; what to type to see it fail again."""
    directory = os.path.join(FOUND, failure.input.kind)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"{seed}-{failure.number}")
    with open(path, "wb") as file:
        file.write(failure.input.data)
    name = failure.input.target.__name__
    return (
        f"input {failure.number} of seed {seed} fails as {failure.input.kind} ({name}).\n"
        f"Saved; replay: PYTHONPATH=.:tests python -m fuzzing --replay {path}"
    )


if __name__ == "__main__":
    sys.exit(main())
