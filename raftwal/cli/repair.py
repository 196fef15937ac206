"""``raftwal repair``: cut a torn tail off, and nothing else."""

from __future__ import annotations

from raftwal.cli.directory import Directory
from raftwal.cli.output import in_words, print_json
from raftwal.wal.checking import repair as repair_log


def repair(directory: Directory, *, as_json: bool) -> None:
    """Repair the log and say what was done.

    Raises the subclasses of `CorruptionError`, having touched nothing, `LockedError`,
    `ReadFailedError`, `WriteFailedError`.
    """
    report = repair_log(directory.log)
    if as_json:
        print_json("repair", {"path": directory.log, **report._asdict()})
    elif report.repaired:
        removed = in_words(report.removed_bytes, "byte")
        print(report.reason)
        print(f"cut the torn tail off {report.segment} at byte {report.offset}")
        print(f"{removed} went, those preallocated for later records included")
        print(f"the segment as it was is in {report.set_aside}")
    else:
        print(f"nothing to repair: {directory.log} ends cleanly")
