"""The operator's tool: ``raftwal dump``, ``raftwal verify``, ``raftwal repair``.

It reads bytes and prints them.  What entries and snapshots hold is never unpickled or
run.
"""

from raftwal.cli.command import main

__all__ = ["main"]
