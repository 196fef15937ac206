"""A node in a process of its own that writes down every promise before it leaves.

``python promising_node.py ADDRESS PARTNERS DATA_DIR PROMISES SEED``: reads commands from
standard input, a line each, and answers on standard output.  The file PROMISES gets a
JSON object per promise, appended before the message is given to the socket, so that it
outlives a SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading

from clusters import KV, fast_conf
from pysyncobj.transport import TCPTransport

_written = threading.Lock()


def answer(*words: object) -> None:
    with _written:
        print(*words, flush=True)


def promise_log(path: str):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda **promise: os.write(fd, json.dumps(promise).encode() + b"\n")


def write_down(log, transport, node, message) -> None:
    """The promise in a message that is about to leave, if there is one in it."""
    kind = message["type"]
    if kind == "request_vote":
        log(vote_in=message["term"], vote_for=transport._selfNode.id)
    elif kind == "response_vote":
        log(vote_in=message["term"], vote_for=node.id)
    elif kind == "next_node_idx" and message["success"]:
        log(
            acknowledged=message["next_node_idx"] - 1,
            term=transport._syncObj.raftCurrentTerm,
        )
    elif kind == "append_entries":
        log(leads_in=message["term"])


def transport_that_writes_down(log):
    class Recorded(TCPTransport):
        def send(self, node, message):
            write_down(log, self, node, message)
            return super().send(node, message)

    return Recorded


def main() -> None:
    address, partners, data_dir, promises, seed = sys.argv[1:]
    random.seed(seed)
    log = promise_log(promises)
    node = KV(
        address,
        partners.split(","),
        data_dir,
        fast_conf(logCompactionMinEntries=100, logCompactionMinTime=3600),
        transport=transport_that_writes_down(log),
        segment_bytes=1 << 14,
    )
    recovered = node.recovered
    log(
        started_in=node.raftCurrentTerm,
        last_index=node._durable_node.storage.last_index,
        commit=recovered.hard_state.commit,
    )
    stop = threading.Event()

    def tick() -> None:
        was_ready = False
        while not stop.is_set():
            node.doTick(0.005)
            if not was_ready and node.ready() is None:
                was_ready = True
                answer("ready")
        node.destroy()

    ticking = threading.Thread(target=tick)
    ticking.start()
    snapshot = recovered.snapshot
    answer("started", snapshot.metadata.index if snapshot else 0, len(recovered.entries))
    for line in sys.stdin:
        command, *words = line.split()
        if command == "put":
            key, value = words
            node.put(
                key,
                value,
                callback=lambda _, reason, key=key: answer(
                    "acknowledged" if reason == 0 else "refused", key
                ),
            )
        elif command == "leader":
            answer("leader", node._getLeader() or "none")
        elif command == "values":
            answer("values", node.raftLastApplied, json.dumps(dict(node.values)))
    stop.set()
    ticking.join()


if __name__ == "__main__":
    main()
