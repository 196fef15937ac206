"""The operator's tool: ``raftwal dump``, ``verify``, ``repair``, ``migrate``.

It reads bytes and prints them.  What entries and snapshots hold is never run: ``migrate``
alone opens a dump, and puts something that does nothing for every name in it.
"""

from raftwal.cli.command import main

__all__ = ["main"]
