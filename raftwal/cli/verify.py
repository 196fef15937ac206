"""``raftwal verify``: whether every record and every snapshot file is sound."""

from __future__ import annotations

from raftwal.cli.directory import Directory
from raftwal.cli.dump import print_problems_as_json
from raftwal.cli.output import in_words, print_json
from raftwal.cli.survey import Survey, survey
from raftwal.errors import RaftwalError, TornTailError


def verify(directory: Directory, *, as_json: bool) -> list[RaftwalError]:
    """Check all of it and print a summary; returns what is wrong."""
    result = survey(directory)
    if as_json:
        print_problems_as_json(result.problems)
        print_json("summary", {"verdict": _verdict(result), "path": directory.log, **_sums(result)})
    else:
        _print_summary(directory, result)
    return result.problems


def _verdict(result: Survey) -> str:
    if not result.problems:
        return "sound"
    if all(isinstance(problem, TornTailError) for problem in result.problems):
        return "torn"
    return "damaged"


def _sums(result: Survey) -> dict[str, int | None]:
    contents = result.contents
    entries = contents.entries
    files = result.snapshot_files
    return {
        "segments": len(result.segments),
        "entries": len(entries),
        "first_index": entries[0].index if entries else None,
        "last_index": entries[-1].index if entries else None,
        "term": contents.hard_state.term,
        "vote": contents.hard_state.vote,
        "commit": contents.hard_state.commit,
        "snapshot_files": None if files is None else len(files),
        "broken_snapshot_files": None
        if files is None
        else sum(1 for file in files if file.error is not None),
    }


def _print_summary(directory: Directory, result: Survey) -> None:
    contents = result.contents
    entries = contents.entries
    span = f", index {entries[0].index} to {entries[-1].index}" if entries else ""
    state = contents.hard_state
    verdict = _verdict(result)
    read = "" if verdict == "sound" else " (what could be read)"
    print(f"log         {directory.log}{read}")
    print(f"segments    {len(result.segments)}")
    print(f"entries     {in_words(len(entries), 'entry')}{span}")
    print(f"hard state  term {state.term}, vote {state.vote}, commit {state.commit}")
    files = result.snapshot_files
    if files is None:
        print("snapshots   not checked: give the directory above the log to check them too")
    else:
        broken = sum(1 for file in files if file.error is not None)
        print(f"snapshots   {in_words(len(files), 'file')}, {broken} broken")
    print(f"verdict     {verdict}")
