"""Writes keys to the DCS of a Patroni cluster, and prints each that was acknowledged.

``dcs_writer.py PREFIX BYTES PASSWORD ADDRESS...``: a member in no cluster of its own, as
patronictl is.  It goes on until it is killed.
"""

import itertools
import sys
import time

from patroni.dcs.raft import KVStoreTTL

# The disks are small.
SECONDS_BETWEEN = 0.05

prefix, size, password, *addresses = sys.argv[1:]
store = KVStoreTTL(
    None,
    None,
    None,
    patronictl=True,
    partner_addrs=addresses,
    password=password,
    retry_timeout=5,
    commandsWaitLeader=False,
)
store.startAutoTick()
for number in itertools.count(1):
    key = f"{prefix}{number}"
    if store.set(key, f"{number}".ljust(int(size), "."), handle_raft_error=True):
        print(key, flush=True)
    time.sleep(SECONDS_BETWEEN)
