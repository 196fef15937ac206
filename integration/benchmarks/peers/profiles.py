"""Where raftwal's time goes: the measured loops under cProfile, as text."""

from __future__ import annotations

import cProfile
import io
import pstats
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.benchmarks.peers.protocol import data_offset, made_data
from integration.benchmarks.peers.python import raftwal_log
from integration.benchmarks.peers.runs import remove

_ENTRIES = 100_000
_SIZE = 128
_TOP = 12


def profiles(directory: Path, share: float = 1.0) -> dict[str, str]:
    """By what was done: the functions that took longest by themselves."""
    count = max(1024, int(_ENTRIES * share))
    taken = {}
    for batch in (1, 1024):
        place = directory / "profiled"
        remove(place)
        block = made_data()
        entries = [
            (index, block[offset : offset + _SIZE])
            for index in range(1, count + 1)
            for offset in [data_offset(index, len(block), _SIZE)]
        ]
        writer = raftwal_log.RaftwalWriter(str(place), sync=False)
        batches = writer.prepared(entries, batch)

        def save(writer: Any = writer, batches: list[Any] = batches) -> None:
            for each in batches:
                writer.save(each)

        name = f"saving {count:,} entries of {_SIZE} B in batches of {batch:,}, without sync"
        taken[name] = _profiled(save)
        writer.close()
    name = f"reading {count:,} entries of {_SIZE} B"
    taken[name] = _profiled(lambda: raftwal_log.PEER.read(str(place)))
    remove(place)
    return taken


def _profiled(work: Callable[[], object]) -> str:
    profile = cProfile.Profile()
    profile.runcall(work)
    text = io.StringIO()
    stats = pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime")
    stats.print_stats(_TOP)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    # From the heads of the columns on; what stands before names files of this machine.
    start = next(number for number, line in enumerate(lines) if "tottime" in line)
    total = next(line.strip() for line in lines if "function calls" in line)
    return re.sub(" at 0x[0-9a-f]+", "", "\n".join([total, *lines[start:]])).strip()
