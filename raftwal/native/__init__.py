"""The native twin of the log's hot loops, where it was built.

It is left out where there was no compiler, and unused where the environment variable
``RAFTWAL_PURE_PYTHON`` is set to anything.  The Python code that it stands beside is the
reference: `raftwal.wire.entries`, `raftwal.wal.admission`, `raftwal.wal.cut_rule`,
`raftwal.wal.records`.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

PURE_PYTHON = "RAFTWAL_PURE_PYTHON"
"""The environment variable that keeps the native twin from being used."""


def _load() -> ModuleType | None:
    if os.environ.get(PURE_PYTHON):
        return None
    try:
        return importlib.import_module("raftwal.native._codec")
    except ImportError:
        return None


codec = _load()
"""The functions of ``raftwal/native/_codec.pyi``, or ``None``."""


def implementation() -> str:
    """Which implementation runs, for ``raftwal --version`` and for bug reports."""
    if codec is None:
        return "pure Python"
    return f"native, CRC-32C by {codec.CRC_METHOD}"
