"""The PySyncObj adapter: a SyncObj whose term, vote, log and snapshots survive anything.

`DurableSyncObj` is for one's own application, `install` for one that one does not own.
"""

from raftwal.pysyncobj.durable import DurableSyncObj
from raftwal.pysyncobj.installation import install
from raftwal.pysyncobj.node import StorageSettings

__all__ = ["DurableSyncObj", "StorageSettings", "install"]
