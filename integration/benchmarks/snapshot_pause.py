"""How long the thread that ticks is held up by a snapshot of a large state.

``python -m integration.benchmarks.snapshot_pause --values 10000000 --runs 3``

Each run is a process of its own: one node, a dictionary of so many small values, commands all
the while, a snapshot.  Printed are the longest time between two ticks while it is taken, the
same without a snapshot, the fork's share of it, what a command takes, and by how much the memory
of node and child together grows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

from integration.benchmarks.figures import Report, Spread
from integration.benchmarks.surroundings import describe, load_average
from raftwal.pysyncobj import DurableSyncObj, StorageSettings

KINDS = {
    "raftwal": "raftwal",
    "raftwal-no-fork": "raftwal, useFork=False",
    "pysyncobj": "PySyncObj's own dump",
}
# What is printed: its name, its name in a run's result, the factor between them.
_FIGURES = (
    ("longest time between two ticks, ms", "gap", 1e3),
    ("the same without a snapshot, ms", "gap_before", 1e3),
    ("the fork, ms", "fork", 1e3),
    ("the fork, ms of processor time", "fork_work", 1e3),
    ("slowest command, ms", "command", 1e3),
    ("the same without a snapshot, ms", "command_before", 1e3),
    ("the snapshot, s", "seconds", 1.0),
    ("its file, MiB", "bytes", 2.0**-20),
)
_MEMORY_FIGURES = (
    ("memory of the node, MiB", "memory_before", 2.0**-20),
    ("more while it is taken, MiB", "memory_grows", 2.0**-20),
)
_QUIET_SECONDS = 5.0
_COMMAND_SECONDS = 0.02
_MOST_SECONDS = 1200.0


class _Measured:
    """What a node of either kind has: values, and the times of its ticks."""

    def _prepare(self) -> None:
        self.values: dict[int, str] = {}

    @replicated
    def fill(self, count: int) -> None:
        self.values = {number: f"v{number}" for number in range(count)}

    @replicated
    def put(self, key: int, value: str) -> None:
        self.values[key] = value


_ticks: list[float] = []
_is_undisturbed = False


def _note_tick() -> None:
    if _is_undisturbed and not _ticks:
        # Of this thread alone; the child that it forks is an ordinary process.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
    _ticks.append(time.perf_counter())


class _DurableNode(_Measured, DurableSyncObj):
    def _onTick(self, timeToWait: float = 0.0) -> None:
        _note_tick()
        super()._onTick(timeToWait)


class _PlainNode(_Measured, SyncObj):
    def _onTick(self, timeToWait: float = 0.0) -> None:
        _note_tick()
        super()._onTick(timeToWait)


def _made(kind: str, directory: Path, compression: int) -> Any:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    conf = SyncObjConf(
        autoTickPeriod=0.01,
        useFork=kind != "raftwal-no-fork",
        logCompactionMinEntries=1 << 40,
        logCompactionMinTime=1 << 40,
    )
    if kind == "pysyncobj":
        conf.journalFile = str(directory / "journal")
        conf.fullDumpFile = str(directory / "dump")
        node: Any = _PlainNode(address, [], conf)
    else:
        settings = StorageSettings(snapshot_compression=compression)
        node = _DurableNode(address, [], conf, data_dir=str(directory / "node"), settings=settings)
    node._prepare()
    return node


def _longest_gap(since: float) -> float:
    times = [tick for tick in _ticks if tick >= since]
    return max(after - before for before, after in itertools.pairwise(times))


class _TimedFork:
    """``os.fork``, and how long it held its thread up: on the clock, and at work."""

    def __init__(self) -> None:
        self.seconds = self.work = 0.0
        self._fork = os.fork
        os.fork = self

    def __call__(self) -> int:
        started, worked = time.perf_counter(), time.thread_time()
        pid = self._fork()
        if pid:
            self.seconds = time.perf_counter() - started
            self.work = time.thread_time() - worked
        return pid


class _Commands:
    """One after another, as long as it runs."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        key = 0
        while not self._stop.wait(_COMMAND_SECONDS):
            started = time.perf_counter()
            key += 1
            self._node.put(key, "new", sync=True, timeout=120)
            self.seconds.append(time.perf_counter() - started)

    def __enter__(self) -> _Commands:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(kind: str, values: int, compression: int, directory: Path) -> dict[str, float]:
    """One run, in this process."""
    node = _made(kind, directory, compression)
    node.fill(values, sync=True, timeout=_MOST_SECONDS)
    time.sleep(1)
    print("READY", flush=True)
    sys.stdin.readline()
    found: dict[str, float] = {}
    fork = _TimedFork()
    with _Commands(node) as commands:
        started = time.perf_counter()
        time.sleep(_QUIET_SECONDS)
        found["gap_before"] = _longest_gap(started)
        found["command_before"] = max(commands.seconds)
        commands.seconds.clear()
        print("TAKING", flush=True)
        started = time.perf_counter()
        node.forceLogCompaction()
        while node._SyncObj__lastSerializedEntry is None:
            time.sleep(0.02)
            if time.perf_counter() - started > _MOST_SECONDS:
                raise TimeoutError("no snapshot")
        time.sleep(0.1)
        found["seconds"] = time.perf_counter() - started
        found["gap"] = _longest_gap(started)
        found["command"] = max(commands.seconds)
    found["fork"], found["fork_work"] = fork.seconds, fork.work
    files = [*directory.glob("dump"), *directory.glob("node/snap/*.snap")]
    found["bytes"] = sum(file.stat().st_size for file in files)
    node.destroy()
    return found


def _memory_of(pid: int) -> int:
    """Of a process and its children: what is shared is counted once."""
    total = 0
    for one in [pid, *_children_of(pid)]:
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def _children_of(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, task.read_text().split())
        except OSError:
            continue


def measure_in_a_process(arguments: list[str], *, watches_memory: bool) -> dict[str, float]:
    """One run.  Whoever asks the kernel for a process's memory holds its fork up, so the
    memory is watched in a run of its own.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--one", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    before, most = 0, [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            most[0] = max(most[0], _memory_of(process.pid))

    result: dict[str, float] = {}
    watching = threading.Thread(target=watch)
    for line in process.stdout:
        if line.startswith("READY"):
            before = most[0] = _memory_of(process.pid)
            process.stdin.write("\n")
            process.stdin.flush()
        elif line.startswith("TAKING") and watches_memory:
            watching.start()
        elif line.startswith("{"):
            result = json.loads(line)
    done.set()
    if watches_memory:
        watching.join()
    if process.wait() != 0 or not result:
        raise SystemExit(f"a run ended with {process.returncode}")
    return {**result, "memory_before": before, "memory_grows": most[0] - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--compression", type=int, default=1)
    parser.add_argument(
        "--undisturbed",
        action="store_true",
        help="the thread that ticks comes before whatever else runs on the machine "
        "(real-time priority, which takes a privilege)",
    )
    parser.add_argument("--dir", type=Path, default=Path("build") / "benchmarks")
    parser.add_argument("--one", metavar="KIND", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    if given.one:
        global _is_undisturbed  # noqa: PLW0603  # of this process, which makes one run
        _is_undisturbed = given.undisturbed
        with tempfile.TemporaryDirectory(dir=given.dir) as directory:
            found = measure(given.one, given.values, given.compression, Path(directory))
        print(json.dumps(found), flush=True)
        # The state is not worth the time that it takes to free it.
        os._exit(0)
    report = Report()
    report.facts(describe(given.dir.resolve()))
    report.line(f"{given.values:,} values; load average {load_average()}")
    runs: dict[str, list[dict[str, float]]] = {}
    memory: dict[str, list[dict[str, float]]] = {}
    for kind in given.kinds:
        arguments = [
            kind,
            f"--values={given.values}",
            f"--compression={given.compression}",
            f"--dir={given.dir}",
            *(["--undisturbed"] if given.undisturbed else []),
        ]
        runs[kind] = [
            measure_in_a_process(arguments, watches_memory=False) for _ in range(given.runs)
        ]
        memory[kind] = [measure_in_a_process(arguments, watches_memory=True)]
    report.table(
        ["median (least to greatest)", *(KINDS[kind] for kind in runs)],
        [
            [what, *(str(Spread.of([run[name] * factor for run in of[kind]])) for kind in runs)]
            for of, figures in ((runs, _FIGURES), (memory, _MEMORY_FIGURES))
            for what, name, factor in figures
        ],
    )


if __name__ == "__main__":
    main()
