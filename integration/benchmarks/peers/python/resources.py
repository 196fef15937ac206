"""Processor time and memory of this process."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Memory:
    """What the process holds, from now on: the peak so far is forgotten."""

    def __init__(self) -> None:
        # Where that cannot be, the peak is that of the whole process so far, which is more.
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
        self.before = _status_bytes("VmRSS")

    def figures(self) -> dict[str, int]:
        return {"rss_before": self.before, "rss_peak": _status_bytes("VmHWM")}


def _status_bytes(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0
