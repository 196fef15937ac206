"""Faults in a process's system calls, and the record of those calls: ``strace`` on it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from conftest import missing, program

CALLS = "fdatasync,fsync,pwrite64,fallocate,ftruncate,sendto"
DEADLINE_SECONDS = 30
PAGE_BYTES = 4096


def command(trace: Path, injections: Iterable[str], more_calls: str = "") -> list[str]:
    """``strace`` with faults; each thread counts its calls by itself.

    ``more_calls`` are recorded, too.
    """
    inject = [word for fault in injections for word in ("-e", f"inject={fault}")]
    options = ["-f", "-yy", "-qq", "-s", "0", "-e", f"trace={CALLS},{more_calls}", "-o", str(trace)]
    return [program("strace"), *options, *inject]


def require_ptrace() -> None:
    """Whether ``strace`` works here; see `conftest.missing`."""
    done = subprocess.run(
        [program("strace"), "-o", "/dev/null", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        missing(f"permission to ptrace: {done.stderr.strip()}")


class InjectedFaults:
    """Faults in the calls of a process that runs, from entry to exit of this context.

    ``faults`` are as after strace's ``inject=``.
    """

    def __init__(self, pid: int, trace: Path, *faults: str) -> None:
        self._trace = trace
        # Loud, unlike `command`: it says when it is attached.
        arguments = [word for word in command(trace, faults) if word != "-qq"]
        self._strace = subprocess.Popen(
            [*arguments, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> InjectedFaults:
        said = self._strace.stderr.readline()
        if "attached" not in said:
            self.__exit__()
            if "not permitted" in said:
                missing(f"permission to ptrace: {said.strip()}")
            raise AssertionError(f"strace did not attach: {said.strip()}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Detach; the process goes on."""
        self._strace.send_signal(signal.SIGINT)
        try:
            # It says something about every thread it meets: read, so that it can end.
            self._strace.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._strace.kill()
            self._strace.communicate()
            raise

    def injected(self) -> list[str]:
        """The calls that were tampered with, in order."""
        return [line for line in self._lines() if "(INJECTED)" in line]

    def position(self) -> int:
        """How many lines there are by now, for `since`."""
        return len(self._lines())

    def since(self, position: int) -> list[str]:
        """The calls that ended after that."""
        return self._lines()[position:]

    def after_the_last(self) -> list[str]:
        """The calls that ended after the last one that was made to fail."""
        lines = self._lines()
        last = max(number for number, line in enumerate(lines) if "(INJECTED)" in line)
        return lines[last + 1 :]

    def _lines(self) -> list[str]:
        return self._trace.read_text().splitlines()


def sent_to(lines: Iterable[str], addresses: Iterable[str]) -> list[str]:
    """The sends over a connection that has one of the addresses at either end."""
    ends = "|".join(map(re.escape, addresses))
    connection = re.compile(rf"sendto\(.*(\[({ends})->|->({ends})\])")
    return [line for line in lines if connection.search(line)]


def written_or_synced(lines: Iterable[str], directory: Path) -> list[str]:
    """The writes to files in a directory, and the syncs."""
    call = re.compile(rf"(fdatasync|fsync|pwrite64)\(\d+<{re.escape(str(directory))}/")
    return [line for line in lines if call.search(line)]


def but_zeros_ahead(calls: Iterable[str]) -> list[str]:
    """Those that do not write whole pages to the segment that comes next: these promise nothing."""
    to_next = re.compile(r"pwrite64\(\d+<.*/wal/\d+\.tmp>.*, (\d+), \d+(\)| <unfin)")
    found = [(call, to_next.search(call)) for call in calls]
    return [call for call, zeros in found if zeros is None or int(zeros[1]) % PAGE_BYTES]
