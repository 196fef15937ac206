"""A file system that writes down every call, and can fail any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from raftwal.fs import DISK, File

FILE_CALLS = ("read", "write", "sync_data", "sync", "truncate", "allocate", "try_lock")
NAME_CALLS = (
    "open",
    "open_read_only",
    "create",
    "make_directory",
    "list",
    "rename",
    "remove",
    "remove_tree",
    "sync_directory",
)
CHANGING_CALLS = (
    "write",
    "sync_data",
    "sync",
    "truncate",
    "allocate",
    "create",
    "make_directory",
    "rename",
    "sync_directory",
)


class WatchedDisk:
    """The real disk.  ``before`` is called with ``(call, path, arguments)`` ahead of each
    call and may raise; ``calls`` holds ``(call, file name)`` of all that were let through.
    """

    def __init__(self, before: Callable[[str, str, tuple], None] | None = None) -> None:
        self.before = before
        self.calls: list[tuple[str, str]] = []

    def watch(self, call: str, path: str, arguments: tuple) -> None:
        if self.before is not None:
            self.before(call, path, arguments)
        self.calls.append((call, os.path.basename(path)))

    def count(self, call: str, suffix: str = "") -> int:
        return sum(1 for name, path in self.calls if name == call and path.endswith(suffix))

    def __getattr__(self, name: str) -> Any:
        inner = getattr(DISK, name)
        if name not in NAME_CALLS:
            return inner

        def call(path: str, *arguments: Any) -> Any:
            self.watch(name, path, arguments)
            result = inner(path, *arguments)
            return WatchedFile(self, result) if name.startswith(("open", "create")) else result

        return call


class WatchedFile:
    def __init__(self, disk: WatchedDisk, file: File) -> None:
        self._disk = disk
        self._file = file
        self.path = file.path

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._file, name)
        if name not in FILE_CALLS:
            return inner

        def call(*arguments: Any) -> Any:
            self._disk.watch(name, self.path, arguments)
            return inner(*arguments)

        return call


class Failing:
    """Raises ``OSError(error)`` from the ``nth`` call that is of one of ``calls``."""

    def __init__(self, error: int, nth: int = 1, calls: tuple[str, ...] = CHANGING_CALLS) -> None:
        self.error = error
        self.left = nth
        self.calls = calls
        self.failed_at = ""

    def __call__(self, call: str, path: str, arguments: tuple) -> None:
        if call in self.calls:
            self.left -= 1
            if self.left == 0:
                self.failed_at = f"{call} {os.path.basename(path)}"
                raise OSError(self.error, os.strerror(self.error), path)
