"""One peer, one case, one answer: see integration/benchmarks/peers/protocol.py."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from integration.benchmarks.peers.protocol import Request
from integration.benchmarks.peers.python import reading, saving
from integration.benchmarks.peers.python.logs import CannotError, Peer

# A peer's module is loaded only for it: what it brings in would count as memory.
_PEERS = {
    "raftwal": "raftwal_log.PEER",
    "raftwal-pure": "raftwal_log.PEER",
    "file-journal": "file_journal.PEER",
    "sqlite": "sqlite_log.PEER",
    "lmdb": "key_values.LMDB",
    "rocksdb": "key_values.ROCKSDB",
}


def main(words: list[str]) -> None:
    request = _request(words)
    module, _, name = _PEERS[request.peer].partition(".")
    peer: Peer = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    try:
        said = _do(request, peer)
    except CannotError as reason:
        said = {"cannot": str(reason)}
    else:
        said["versions"] = peer.versions()
    print(json.dumps(said))


def _do(request: Request, peer: Peer) -> dict[str, Any]:
    block = Path(request.data).read_bytes()
    directory = os.path.join(request.dir, "log")
    match request.do:
        case "save":
            return saving.measure(request, peer, directory, block)
        case "read":
            return reading.measure_reading(peer, directory)
        case "replay":
            return reading.measure_replay(peer, directory)
        case "checksum":
            return reading.measure_checksum(request, peer, block)
    raise ValueError(f"{request.do!r} is nothing to do")


def _request(words: list[str]) -> Request:
    texts = dict(word.removeprefix("--").split("=", 1) for word in words)
    values: dict[str, Any] = {}
    for name, text in texts.items():
        kind = type(Request._field_defaults.get(name, ""))
        values[name] = text == "true" if kind is bool else kind(text)
    return Request(**values)


if __name__ == "__main__":
    main(sys.argv[1:])
