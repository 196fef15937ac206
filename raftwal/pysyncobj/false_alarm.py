"""A warning of PySyncObj's that is not true of a durable node.

PySyncObj logs "truncating already-applied log entries" at CRITICAL whenever an
append_entries overlaps what was applied, many times a second on a busy node, and cuts
the log.  raftwal's journal does not cut where the entries are the same (see
`DurableJournal.deleteEntriesFrom`), and says so itself where they are not.
"""

from __future__ import annotations

import logging
import threading

_MESSAGE = "truncating already-applied log entries"

_thread = threading.local()


def set_ticking(is_ticking: bool) -> None:
    """Say whether what this thread logs now comes from a durable node."""
    _thread.is_ticking = is_ticking


def _is_true(record: logging.LogRecord) -> bool:
    return not (getattr(_thread, "is_ticking", False) and str(record.msg).startswith(_MESSAGE))


def silence() -> None:
    """Drop the warning where it is false.  Idempotent."""
    logging.getLogger("pysyncobj.syncobj").addFilter(_is_true)
