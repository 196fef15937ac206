"""Loaded into every Python process of the tests' environment: says what its DCS holds.

On SIGUSR2 it writes, as JSON and in one step, the content of the process's KVStoreTTL and
the state of its Raft node to the file that ``RAFTWAL_WITNESS`` names.  On SIGUSR1 it has
the node compact its log.
"""

import gc
import json
import os
import signal
import sys


def _stores():
    module = sys.modules.get("patroni.dcs.raft")
    if module is None:
        return []
    return [each for each in gc.get_objects() if type(each) is module.KVStoreTTL]


def _tell(*_):
    for store in _stores():
        while True:
            # The thread that ticks may apply a command in between.
            applied = store.raftLastApplied
            content = dict(store._KVStoreTTL__data)
            if store.raftLastApplied == applied:
                break
        status = {key: str(value) for key, value in store.getStatus().items()}
        target = os.environ["RAFTWAL_WITNESS"]
        with open(f"{target}.new", "w") as file:
            json.dump({"applied": applied, "content": content, "status": status}, file)
        os.replace(f"{target}.new", target)


def _compact(*_):
    for store in _stores():
        store.forceLogCompaction()


if os.environ.get("RAFTWAL_WITNESS"):
    signal.signal(signal.SIGUSR2, _tell)
    signal.signal(signal.SIGUSR1, _compact)
