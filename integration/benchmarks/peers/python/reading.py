"""Reading back, measured; and the checksum alone."""

from __future__ import annotations

import time
import zlib
from typing import Any

from integration.benchmarks.peers.protocol import Request, is_digested
from integration.benchmarks.peers.python.logs import CannotError, Pair, Peer
from integration.benchmarks.peers.python.resources import Memory, cpu_seconds

_CHECKSUM_SECONDS = 0.2
_CHECKSUMMED_AT_ONCE = 1 << 20


def measure_reading(peer: Peer, directory: str) -> dict[str, Any]:
    """All entries held, as a node does, and looked at afterwards."""
    memory = Memory()
    cpu, started = cpu_seconds(), time.perf_counter()
    entries = peer.read(directory)
    figures = {"seconds": time.perf_counter() - started, "cpu": cpu_seconds() - cpu}
    figures.update(memory.figures())
    seen = _Seen()
    for entry in entries:
        seen.take(peer.pair_of(entry))
    return {**figures, **seen.figures()}


def measure_replay(peer: Peer, directory: str) -> dict[str, Any]:
    """Each entry looked at and let go.  Raises `CannotError`."""
    memory = Memory()
    seen, pair_of = _Seen(), peer.pair_of
    cpu, started = cpu_seconds(), time.perf_counter()
    for entry in peer.replay(directory):
        seen.take(pair_of(entry))
    figures = {"seconds": time.perf_counter() - started, "cpu": cpu_seconds() - cpu}
    return {**figures, **memory.figures(), **seen.figures()}


class _Seen:
    def __init__(self) -> None:
        self._entries = self._bytes = self._digest = 0

    def take(self, entry: Pair) -> None:
        index, data = entry
        self._entries += 1
        self._bytes += len(data)
        if is_digested(index):
            self._digest = zlib.crc32(data, self._digest)

    def figures(self) -> dict[str, int]:
        return {"entries": self._entries, "bytes": self._bytes, "digest": self._digest}


def measure_checksum(request: Request, peer: Peer, block: bytes) -> dict[str, Any]:
    """Raises `CannotError`."""
    if peer.checksum is None:
        raise CannotError("it has no CRC-32C of its own to call")
    extend, piece = peer.checksum, block[: request.size]
    times, crc = 0, 0
    several = range(max(1, _CHECKSUMMED_AT_ONCE // len(piece)))
    started = time.perf_counter()
    while time.perf_counter() - started < _CHECKSUM_SECONDS:
        for _ in several:
            crc = extend(crc, piece)
        times += len(several)
    return {"seconds": time.perf_counter() - started, "bytes": times * len(piece)}
