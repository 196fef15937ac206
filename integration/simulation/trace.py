"""What happened in a run, for a reader; and one number that tells two runs apart."""

from __future__ import annotations

import zlib
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integration.simulation.clock import Clock

_KEPT = 20_000


class Trace:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[tuple[float, str, Any]] = deque(maxlen=_KEPT)
        self.digest = 0
        """Changes with every message, every event and their times."""

    def note(self, name: str, what: str) -> None:
        now = self._clock.now
        self._events.append((now, name, what))
        self.digest = zlib.crc32(f"{now:.9f} {name} {what}".encode(), self.digest)

    def message(self, source: str, target: str, message: Any, data: bytes) -> None:
        now = self._clock.now
        self.digest = zlib.crc32(data, self.digest ^ int(now * 1e6) & 0xFFFFFFFF)
        self._events.append((now, source, (target, message)))

    def lines(self, last: int, *, heartbeats: bool = False) -> list[str]:
        """The last of what happened, without the heartbeats if they are not asked for."""
        lines = []
        for time, name, what in self._events:
            if isinstance(what, tuple):
                if not heartbeats and _is_heartbeat(what[1]):
                    continue
                what = f"-> {what[0]}: {_described(what[1])}"  # noqa: PLW2901  # the same, readable
            lines.append(f"{time:10.4f}  {name:4} {what}")
        return lines[-last:]


def _is_heartbeat(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    if message.get("type") == "append_entries":
        return not message.get("entries") and "serialized" not in message
    return message.get("type") == "next_node_idx" and message["success"] and not message["reset"]


def _described(message: Any) -> str:
    if not isinstance(message, dict):
        return repr(message)
    parts = [str(message.get("type"))]
    for key, value in message.items():
        if key == "type":
            continue
        if key == "entries":
            shown = (
                ", ".join(f"{index}@{term}" for _, index, term in (value[0], value[-1]))
                if value
                else ""
            )
            parts.append(f"entries=[{shown}]")
        elif key in ("command", "data"):
            parts.append(f"{key}={len(value)} bytes")
        elif key == "serialized" and value is not None:
            parts.append(f"snapshot={len(value[0])} bytes first={value[1]} last={value[2]}")
        else:
            parts.append(f"{key}={value!r}")
    return " ".join(parts)
