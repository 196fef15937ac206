"""The PySyncObj adapter: a SyncObj whose term, vote, log and snapshots survive anything.

`DurableSyncObj` is for one's own application, `install` for one that one does not own.
`running`, `lifespan` and `committed` are for asyncio programs.

Importing it raises `raftwal.errors.UnsupportedPySyncObjError` where PySyncObj is not one
that the adapter knows.
"""

import sys

from raftwal.errors import UnsupportedPySyncObjError
from raftwal.pysyncobj.compatibility import check_pysyncobj

try:
    check_pysyncobj()
except UnsupportedPySyncObjError as error:
    # While Python looks for what "python -m" names: a command line, not a caller.
    if sys.argv[:1] == ["-m"]:
        sys.exit(f"raftwal: {error}")
    raise

# Below the check: what they import of PySyncObj may not be there.
from raftwal.pysyncobj.awaiting import committed, raises_to_caller
from raftwal.pysyncobj.durable import DurableSyncObj
from raftwal.pysyncobj.installation import install
from raftwal.pysyncobj.lifetime import (
    lifespan,
    running,
    until_leader,
    until_ready,
)
from raftwal.pysyncobj.settings import StorageSettings

__all__ = [
    "DurableSyncObj",
    "StorageSettings",
    "committed",
    "install",
    "lifespan",
    "raises_to_caller",
    "running",
    "until_leader",
    "until_ready",
]
