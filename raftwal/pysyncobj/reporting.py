"""What a node takes of disk and memory, for its status and its metrics."""

from __future__ import annotations

import weakref

from raftwal.metrics import StorageMetrics
from raftwal.pysyncobj.journal import DurableJournal
from raftwal.usage import disk_usage


def report_memory(journal: DurableJournal, metrics: StorageMetrics) -> None:
    """Have the gauges of memory worked out at each scrape, for as long as there is a node."""
    # A registry outlives it.
    reference = weakref.ref(journal)

    def entries() -> float:
        held = reference()
        return 0.0 if held is None else float(len(held))

    def size() -> float:
        held = reference()
        return 0.0 if held is None else float(held.memory_bytes())

    metrics.memory_entries.set_function(entries)
    metrics.memory_bytes.set_function(size)


def usage_facts(data_dir: str, journal: DurableJournal) -> dict[str, int | None]:
    """``log_disk_bytes`` and ``snapshot_disk_bytes``: what the disk has set aside (see
    `raftwal.usage`), ``None`` where it does not say; ``log_memory_bytes``: what the
    commands in memory take.
    """
    try:
        usage = disk_usage(data_dir)
    except OSError:
        usage = None
    return {
        "log_disk_bytes": None if usage is None else usage.log_bytes,
        "snapshot_disk_bytes": None if usage is None else usage.snapshot_bytes,
        "log_memory_bytes": journal.memory_bytes(),
    }
