"""What the demo prints while it runs: lines, and progress bars where there is a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

_WIDTH_OF_A_FILE = 80


class Bar:
    """How far one step has come."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total)
        self._lock = threading.Lock()
        self._done = 0

    def set(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    def advance(self) -> None:
        """One more.  From any thread."""
        with self._lock:
            self._done += 1
            self._progress.update(self._task, completed=self._done)


class Screen:
    """Prints for a person at a terminal, and plain lines into anything else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        is_terminal = stream.isatty()
        self.console = Console(
            file=stream, highlight=False, width=None if is_terminal else _WIDTH_OF_A_FILE
        )
        self._is_terminal = is_terminal
        self._started_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the screen was made."""
        return time.monotonic() - self._started_at

    def say(self, text: str) -> None:
        self.console.print(f"{self.seconds:5.1f} s  {text}", markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """A bar while the step runs, and a line with its count when it is done."""
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self.console,
            transient=True,
            disable=not self._is_terminal,
        )
        with progress:
            yield Bar(progress, what, total)
        self.say(f"{total} {what}" if total else what)
