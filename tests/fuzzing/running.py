"""Running many inputs, in this process or in several, up to the first that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, NamedTuple

import structlog

from fuzzing.inputs import TARGETS, Input, Inputs

CHUNK = 1200
# No input takes a hundredth of a second.  One that takes this long does not end.
_SECONDS_TO_END = 120


class Failure(NamedTuple):
    """An input that failed, and how."""

    input: Input
    number: int
    report: str


@contextlib.contextmanager
def without_events() -> Iterator[None]:
    """raftwal logs each opening and each repair: at thousands a second nobody reads that."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)


def run_range(seed: int, numbers: range, seconds_to_end: int = 0) -> Failure | None:
    """The first failure among these inputs.

    With ``seconds_to_end``, an input that takes as long is a failure, too; that takes the
    process's one alarm clock.
    """
    inputs = Inputs(seed)
    with without_events():
        for number in numbers:
            one = inputs[number]
            if seconds_to_end:
                signal.signal(signal.SIGALRM, _stop)
                signal.alarm(seconds_to_end)
            report = run_one(one)
            if seconds_to_end:
                signal.alarm(0)
            if report is not None:
                return Failure(one, number, report)
    return None


def _stop(*_: Any) -> None:
    raise RuntimeError("the input does not come to an end")


def run_one(one: Input) -> str | None:
    """How the input fails, or ``None``."""
    try:
        one.target(one.data)
    except Exception:
        return traceback.format_exc()
    return None


def run_in_processes(
    seed: int, count: int, processes: int, progress: Callable[[int, float], None]
) -> Failure | None:
    """Inputs 0 to ``count``, on several cores; ``progress`` is told how many are done."""
    started = time.monotonic()
    chunks = (range(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK))
    done = 0
    with ProcessPoolExecutor(processes) as pool:
        running = {}
        for chunk in chunks:
            running[pool.submit(run_range, seed, chunk, _SECONDS_TO_END)] = len(chunk)
            if len(running) < 2 * processes:
                continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done += running.pop(future)
                if future.result() is not None:
                    pool.shutdown(cancel_futures=True)
                    return future.result()
            progress(done, time.monotonic() - started)
        for future, length in running.items():
            done += length
            if future.result() is not None:
                pool.shutdown(cancel_futures=True)
                return future.result()
    progress(done, time.monotonic() - started)
    return None


def replay(path: str) -> list[str]:
    """How a file of the corpus, or one that a run saved, fails; its directory says its kind."""
    kind = os.path.basename(os.path.dirname(os.path.abspath(path)))
    with open(path, "rb") as file:
        data = file.read()
    with without_events():
        reports = [run_one(Input(kind, target, data)) for target in TARGETS[kind]]
    return [report for report in reports if report is not None]
