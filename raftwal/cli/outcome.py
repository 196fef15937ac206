"""How a run ends: exit codes, and the errors that lead to them."""

from __future__ import annotations

import sys

from raftwal.errors import CorruptionError, RaftwalError, TornTailError

SOUND = 0
DAMAGED = 1
"""Corrupt, or torn and not repaired."""
NOT_DONE = 2
"""Wrong use, or nothing could be judged: no log there, locked, not readable."""
INTERRUPTED = 130
OUTPUT_CLOSED = 141
"""What a shell reports for a program whose reader went away."""


def exit_code_of(error: Exception) -> int:
    """The exit code that an error which ended a run stands for."""
    return DAMAGED if isinstance(error, (CorruptionError, TornTailError)) else NOT_DONE


def complain(error: Exception, code: int) -> None:
    """Print an error for a human, on stderr: what, where, and what to do."""
    if isinstance(error, RaftwalError):
        is_corrupt = code == DAMAGED and not isinstance(error, TornTailError)
        kind = "corrupt: " if is_corrupt else ""
        where = f" ({error.where})" if error.where else ""
        text = f"{kind}{error.what}{where}"
        advice = error.advice
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
        if error.filename is not None:
            text = f"{text}: {error.filename}"
        advice = ""
    else:
        text, advice = str(error), ""
    print(f"raftwal: {text}", file=sys.stderr)
    if advice:
        print(f"raftwal: advice: {advice}.", file=sys.stderr)
