"""One node of a measured cluster, as a process.

Reads requests from standard input and answers on standard output, each a JSON object a
line: ``{"do": NAME, ...}``; see `Node`.  Ends when its input does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from typing import Any

from prometheus_client import REGISTRY
from pysyncobj import SyncObjConf

from integration.benchmarks.journals import KINDS
from integration.benchmarks.loads import Load

# Long, so that a journal that keeps its node busy for seconds starts no election; the node
# that is to lead calls one soon, and then has no use for its timeout.
_ELECTION_SECONDS = {True: (0.35, 0.5), False: (60.0, 90.0)}
_CONNECTION_SECONDS = 120.0


def configuration(*, leads: bool, batches: bool) -> SyncObjConf:
    """PySyncObj's defaults, but for elections, connections and compaction."""
    shortest, longest = _ELECTION_SECONDS[leads]
    return SyncObjConf(
        appendEntriesUseBatch=batches,
        raftMinTimeout=shortest,
        raftMaxTimeout=longest,
        connectionTimeout=_CONNECTION_SECONDS,
        leaderFallbackTimeout=_CONNECTION_SECONDS,
        connectionRetryTime=0.1,
        # A compaction in the middle would be measured with one kind and not with another.
        logCompactionMinEntries=1 << 40,
        logCompactionMinTime=1 << 40,
    )


class Node:
    """What a node answers: its public methods are the requests, by name."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._load: Load | None = None

    def status(self) -> dict[str, Any]:
        status = self._node.getStatus()
        return {
            "leads": self._node._isLeader(),
            "ready": self._node.isReady(),
            "term": self._node.raftCurrentTerm,
            "connected": status["partner_nodes_count"]
            and sum(status[f"partner_node_status_server_{node.id}"] == 2 for node in self._others),
            "applied": self._node.applied,
            "digest": self._node.digest,
            "cpu": time.process_time(),
            "threads": _cpu_of_threads(),
            "syncs": self._syncs(),
        }

    def saturate(
        self, payload_bytes: int, window: int, warm_up: float, seconds: float
    ) -> dict[str, Any]:
        return self._load_of(payload_bytes).saturate(window, warm_up, seconds)._asdict()

    def one_at_a_time(self, payload_bytes: int, seconds: float) -> dict[str, Any]:
        return self._load_of(payload_bytes).one_at_a_time(seconds)._asdict()

    def steadily(self, payload_bytes: int, rate: float, seconds: float) -> dict[str, Any]:
        return self._load_of(payload_bytes).steadily(rate, seconds)._asdict()

    def _load_of(self, payload_bytes: int) -> Load:
        if self._load is None:
            self._load = Load(self._node, payload_bytes)
        return self._load

    @property
    def _others(self) -> set[Any]:
        return self._node.otherNodes

    def _syncs(self) -> int:
        journal = self._node._SyncObj__raftLog
        if hasattr(journal, "syncs"):
            return int(journal.syncs)
        return sum(
            int(sample.value)
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if sample.name == "raftwal_wal_fsync_duration_seconds_count"
        )


def _delay_syncs(seconds: float) -> None:
    sync = os.fdatasync

    def sync_slowly(descriptor: int) -> None:
        sync(descriptor)
        time.sleep(seconds)

    os.fdatasync = sync_slowly


def _cpu_of_threads() -> dict[str, float]:
    """Seconds of each thread that runs, by its name."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--partner", action="append", default=[])
    parser.add_argument("--dir", required=True)
    parser.add_argument("--batches", choices=("on", "off"), required=True)
    parser.add_argument("--leads", action="store_true", help="calls the first election")
    parser.add_argument("--sync-delay", type=float, default=0.0, help="seconds more for a sync")
    given = parser.parse_args()
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if given.sync_delay:
        _delay_syncs(given.sync_delay)
    conf = configuration(leads=given.leads, batches=given.batches == "on")
    node = KINDS[given.kind].make(given.address, given.partner, given.dir, conf)
    requests = Node(node)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(requests, request.pop("do"))(**request)
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        node.destroy_synchronous()
    return 0


if __name__ == "__main__":
    sys.exit(main())
