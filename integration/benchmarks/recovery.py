"""How long a node needs to have its log back, beside reading the same files plainly.

Each start is a process of its own: ``python -m integration.benchmarks.recovery STEP ...``
does one and prints what it took.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
from pysyncobj import pickle
from pysyncobj.journal import FileJournal

from integration.benchmarks.cluster_node import configuration
from integration.benchmarks.figures import Report, Spread, ratios
from integration.benchmarks.journals import KINDS
from raftwal import Entry, HardState, Identity, RaftStorage
from raftwal.testing import UnsyncedDisk

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:1"
PARTNERS = ("127.0.0.1:2", "127.0.0.1:3")
"""Nobody listens there: the nodes start alone, and have only what is on their disk."""
_TERM = 1
_NO_OP = b"\x01"
_AT_ONCE = 10_000
_PIECE = 1 << 20
_DEADLINE_SECONDS = 600.0


class Step(NamedTuple):
    """Something to time.  ``files`` says whose files it reads, ``base`` which step it is
    compared with.
    """

    title: str
    files: str
    base: str
    run: Callable[[Path, int], Any]


class Timing(NamedTuple):
    """Seconds, and the most memory that the process had, in bytes."""

    step: str
    round: int
    seconds: float
    memory: int


def entries(count: int, payload_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """What a leader has in its log after ``count`` commands: command, index, term."""
    yield _NO_OP, 1, 0
    payload = "0123456789abcdef" * (payload_bytes // 16 + 1)
    for number in range(count):
        command = (0, (number, payload[number % 16 :][:payload_bytes]))
        yield b"\x00" + pickle.dumps(command), number + 2, _TERM


def prepare(directory: Path, count: int, payload_bytes: int) -> None:
    """The same log in both forms, as nodes that were shut down leave them."""
    (directory / "filejournal").mkdir()
    journal = FileJournal(str(directory / "filejournal" / "journal"))
    storage = RaftStorage.open(
        directory / "raftwal",
        identity=Identity(ADDRESS, ""),
        node=f"prepared in {directory}",
        keep_entries=False,
        fs=UnsyncedDisk(),
    )
    waiting: list[Entry] = []
    for command, index, term in entries(count, payload_bytes):
        journal.add(command, index, term)
        waiting.append(Entry(term, index, command))
        if len(waiting) == _AT_ONCE or index == count + 1:
            storage.save(HardState(_TERM, 0, index), waiting)
            waiting.clear()
    journal.setRaftCommitIndex(count + 1)
    journal.setCurrentTerm(_TERM, None)
    journal._destroy()
    storage.close()
    # What is still to be written would otherwise be, while the first steps run.
    for path in _files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def measure(
    directory: Path,
    count: int,
    rounds: int,
    *,
    cold: bool,
    told: Callable[[Timing], None] = lambda timing: None,
) -> list[Timing]:
    """Every step in turn, ``rounds`` times, each in a process of its own."""
    timings = []
    for number in range(rounds):
        for name in STEPS:
            timings.append(_timing(directory, count, name, number, cold))
            told(timings[-1])
    return timings


def _timing(directory: Path, count: int, name: str, number: int, cold: bool) -> Timing:
    for path in _files(directory):
        with path.open("rb") as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(_PIECE):
                    pass
    done = subprocess.run(
        [sys.executable, "-m", "integration.benchmarks.recovery", name, str(directory), str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    answer = json.loads(done.stdout)
    return Timing(name, number, answer["seconds"], answer["memory"])


def tell(report: Report, directory: Path, timings: Sequence[Timing]) -> None:
    """A table with a row for each step."""
    for files in ("filejournal", "raftwal"):
        size = sum(path.stat().st_size for path in _files(directory / files))
        report.line(f"{files}'s files: {size / 1e6:.0f} MB")
    report.line()

    def seconds(name: str) -> list[float]:
        return [timing.seconds for timing in timings if timing.step == name]

    rows = []
    for name, step in STEPS.items():
        memory = max(timing.memory for timing in timings if timing.step == name)
        same = name == step.base
        rows.append(
            [
                step.title,
                str(Spread.of(seconds(name))),
                "1" if same else f"{ratios(seconds(name), seconds(step.base))}",
                "" if same else STEPS[step.base].title,
                f"{memory / 1e6:.0f}",
            ]
        )
    report.table(["step", "seconds", "times as long", "as", "memory, MB"], rows)
    report.line()


def _files(directory: Path) -> list[Path]:
    """All but the segment that is kept ready, which holds nothing."""
    found = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return [path for path in found if path.suffix != ".tmp"]


def _read(files: str) -> Callable[[Path, int], None]:
    def read(directory: Path, count: int) -> None:
        for path in _files(directory / files):
            with path.open("rb", buffering=0) as file:
                while file.read(_PIECE):
                    pass

    return read


def _read_and_check(directory: Path, count: int) -> None:
    crc = 0
    for path in _files(directory / "raftwal"):
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                crc = google_crc32c.extend(crc, piece)


def _open_file_journal(directory: Path, count: int) -> Any:
    journal = FileJournal(str(directory / "filejournal" / "journal"))
    _check(len(journal) == count + 1, f"{len(journal)} entries")
    return journal


def _open_storage(directory: Path, count: int) -> Any:
    storage = RaftStorage.open(directory / "raftwal")
    found = len(storage.recovered.entries)
    _check(found == count + 1, f"{found} entries")
    return storage


def _start_node(kind: str) -> Callable[[Path, int], Any]:
    def start(directory: Path, count: int) -> Any:
        conf = configuration(leads=False, batches=True)
        conf.autoTick = False
        node = KINDS[kind].make(ADDRESS, PARTNERS, str(directory / kind), conf)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while node.applied < count:
            _check(time.monotonic() < deadline, f"{node.applied} commands applied")
            node.doTick()
        return node

    return start


STEPS: dict[str, Step] = {
    "read-filejournal": Step(
        "read FileJournal's file", "filejournal", "read-filejournal", _read("filejournal")
    ),
    "open-filejournal": Step("FileJournal(...)", "filejournal", "read-filejournal",
                             _open_file_journal),
    "start-filejournal": Step("SyncObj on it, all applied", "filejournal", "read-filejournal",
                              _start_node("filejournal")),
    "read-raftwal": Step("read raftwal's log", "raftwal", "read-raftwal", _read("raftwal")),
    "check-raftwal": Step("read and checksum it, as one piece", "raftwal", "read-raftwal",
                          _read_and_check),
    "open-raftwal": Step("RaftStorage.open", "raftwal", "open-filejournal", _open_storage),
    "start-raftwal": Step("DurableSyncObj, all applied", "raftwal", "start-filejournal",
                          _start_node("raftwal")),
}  # fmt: skip


def _check(is_so: bool, found: str) -> None:
    if not is_so:
        raise RuntimeError(f"not all of the log is there: {found}")


def _most_memory() -> int:
    """The most that this process had resident, in bytes; 0 where nothing says."""
    # Not getrusage(): it begins with what the process that started this one had.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    return int(found[1]) * 1024 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="One step of the recovery benchmark.")
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("directory", type=Path)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    started = time.perf_counter()
    opened = STEPS[given.step].run(given.directory, given.count)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "memory": _most_memory()}), flush=True)
    if opened is not None and hasattr(opened, "close"):
        opened.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
