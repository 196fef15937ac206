"""Tools for those who build on raftwal, and test what they build.

`storage_suite` has the contract between a Raft library and its storage as tests;
`MemoryStorage` keeps that contract in memory; `UnsyncedDisk` spares a test its syncs.
"""

from raftwal.testing.memory_storage import MemoryStorage
from raftwal.testing.unsynced_disk import UnsyncedDisk

__all__ = ["MemoryStorage", "UnsyncedDisk"]
