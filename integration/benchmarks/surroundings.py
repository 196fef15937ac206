"""What a figure depends on besides the code: machine, kernel, file system, versions."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import google_crc32c

_SYNCS = 50
_IN_MEMORY = ("tmpfs", "ramfs")
_ROOT = Path(__file__).parents[2]


class NotOnADiskError(ValueError):
    """A directory whose file system is in memory: a sync there costs nothing."""


def file_system(directory: Path) -> str:
    """The type of the file system that ``directory`` is on; ``unknown`` where nothing says."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    found = ("", "unknown")
    for line in mounts:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if directory.resolve().is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


def check_is_on_a_disk(directory: Path) -> None:
    """Raises `NotOnADiskError`."""
    kind = file_system(directory)
    if kind in _IN_MEMORY:
        raise NotOnADiskError(
            f"{directory} is on {kind}, where a sync costs nothing: "
            "name a directory on a disk with --dir"
        )


def sync_milliseconds(directory: Path) -> float:
    """The median time of a data sync behind a small write at a file's end."""
    path = directory / "synced"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(bytes(120))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(times) * 1e3


def describe(directory: Path) -> dict[str, str]:
    """Names and values, for people."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} logical",
        "memory": f"{_memory_gib():.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(directory),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "raftwal": f"{version('raftwal')}{_commit()}",
        "PySyncObj": version("pysyncobj"),
        "google-crc32c": f"{version('google-crc32c')} ({google_crc32c.implementation})",
    }


def load_average() -> str:
    """Of the last minute: what else ran."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _commit() -> str:
    try:
        command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({done.stdout.strip()})"
