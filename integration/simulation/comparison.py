"""The same schedules played to raftwal and to PySyncObj's own FileJournal, as a table.

``python -m integration.simulation.comparison --seeds 1000``.  The disks are the same, too:
what is not synced may be lost with the power, except what the kernel has written back.
"""

from __future__ import annotations

import argparse
import collections
import functools
import multiprocessing
import os

from integration.simulation.world import World

JOURNALS = ("raftwal", "filejournal")
ROWS = (
    ("an acknowledged write was lost", ("lost write", "committed entry lost", "sequences differ")),
    ("two nodes led in one term", ("two leaders",)),
    ("a node voted twice in a term", ("two votes",)),
    ("a committed entry changed", ("committed entry changed",)),
    ("answers contradicted the order of effects in real time", ("not linearizable",)),
    ("a term that others knew went back", ("term went back",)),
    ("the cluster never served again", ("does not serve again",)),
    ("a node could not start from its own files", ("refuses to start", "cannot start")),
)


def kinds_of(seed: int, journal: str) -> set[str]:
    """What went wrong in one run that goes on to its end."""
    outcome = World(seed, journal=journal, stop=False).run()
    return {violation.kind for violation in outcome.violations}


def counts(journal: str, seeds: range, processes: int) -> collections.Counter[str]:
    """For each row, and for any of them, the number of seeds."""
    found: collections.Counter[str] = collections.Counter()
    with multiprocessing.Pool(processes) as pool:
        for kinds in pool.imap(functools.partial(kinds_of, journal=journal), seeds, chunksize=5):
            rows = [row for row, of_row in ROWS if kinds.intersection(of_row)]
            found.update(rows)
            found["any of these"] += bool(rows)
    return found


def table(seeds: range, processes: int) -> str:
    found = {journal: counts(journal, seeds, processes) for journal in JOURNALS}
    lines = [
        f"| of {len(seeds)} seeds, in how many | raftwal | PySyncObj's FileJournal |",
        "|---|---|---|",
    ]
    for row in [row for row, _ in ROWS] + ["any of these"]:
        lines.append(f"| {row} | {found['raftwal'][row]} | {found['filejournal'][row]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    print(table(range(given.first, given.first + given.seeds), given.processes))


if __name__ == "__main__":
    main()
