"""Tools for those who build on raftwal, and test what they build.

`SimulatedDisk` loses power, fails and fills up on demand, and `InlineExecutor` takes the
threads out; `storage_suite` has the contract between a Raft library and its storage as
tests; `MemoryStorage` keeps that contract in memory; `UnsyncedDisk` spares a test its syncs.
"""

from raftwal.testing import storage_suite
from raftwal.testing.inline_executor import InlineExecutor
from raftwal.testing.memory_storage import MemoryStorage
from raftwal.testing.simulated_disk import Fault, PowerCutError, SimulatedDisk
from raftwal.testing.unsynced_disk import UnsyncedDisk

__all__ = [
    "Fault",
    "InlineExecutor",
    "MemoryStorage",
    "PowerCutError",
    "SimulatedDisk",
    "UnsyncedDisk",
    "storage_suite",
]
