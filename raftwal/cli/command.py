"""The command line: arguments, and what becomes of every error."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence

import raftwal
from raftwal.cli import migrate as migrating
from raftwal.cli.directory import find_directory
from raftwal.cli.dump import Range, dump
from raftwal.cli.outcome import (
    DAMAGED,
    INTERRUPTED,
    NOT_DONE,
    OUTPUT_CLOSED,
    SOUND,
    complain,
    exit_code_of,
)
from raftwal.cli.records import dump_records
from raftwal.cli.repair import repair
from raftwal.cli.verify import verify
from raftwal.errors import RaftwalError, SnapshotNotFoundError
from raftwal.model import MAX_UINT64
from raftwal.native import implementation

_DESCRIPTION = """\
Look into a Raft write-ahead log, check it, mend it.

DIR is a data directory (with wal/ and snap/ in it, as raftwal and etcd lay it
out) or the wal/ directory itself.  Logs that etcd wrote are read as well.

dump    print what is there: metadata, hard state, segments, snapshots, entries
verify  check every record of the log and every snapshot file
repair  cut off a torn tail, the normal trace of a crash; the segment is copied
        to <name>.broken first; damage of any other kind is left alone
migrate turn the files of a PySyncObj node into a data directory, or back; see
        'raftwal migrate --help'

dump and verify change nothing and take no lock.  Run them on a node that is
stopped: a record that is being written at that moment looks like a torn tail.
"""

_EPILOG = """\
exit codes:
  0  the log is sound (for repair: it is now); it was migrated
  1  it is corrupt, or it has a torn tail that was not repaired
  2  wrong use, or nothing could be judged: no log there, no permission, locked

examples:
  raftwal verify /var/lib/app/node1
  raftwal dump /var/lib/app/node1 --first 1000 --last 1010
  raftwal dump /var/lib/app/node1/wal --records
  raftwal dump /var/lib/app/node1 --json | jq 'select(.kind == "entry") | .index'
  raftwal repair /var/lib/app/node1 && raftwal verify /var/lib/app/node1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, or raises ``SystemExit`` for wrong use."""
    # What the library would warn of, a command says itself.
    logging.getLogger("raftwal").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(_parse(arguments))
    except BrokenPipeError:
        _discard_output()
        code = OUTPUT_CLOSED
    except KeyboardInterrupt:
        _discard_output()
        code = INTERRUPTED
    except OSError as error:
        # The output's disk may be full, too.
        _discard_output()
        with contextlib.suppress(OSError):
            complain(error, NOT_DONE)
        code = NOT_DONE
    except MemoryError:
        _discard_output()
        print("raftwal: not enough memory for this log", file=sys.stderr)
        code = NOT_DONE
    return code


def _run(options: argparse.Namespace) -> int:
    problems: list[RaftwalError] = []
    try:
        if options.command == "migrate":
            migrating.migrate(options)
            _flush()
            return SOUND
        directory = find_directory(options.directory)
        if options.command == "repair":
            repair(directory, as_json=options.json)
        elif options.command == "verify":
            problems = verify(directory, as_json=options.json)
        else:
            print_them = dump_records if options.records else dump
            problems = print_them(
                directory,
                Range(options.first, options.last, options.no_entries),
                from_snapshot=options.from_snapshot,
                as_json=options.json,
            )
    except SnapshotNotFoundError as error:
        # Raised for --from-snapshot only: the operator asked for one that is not there.
        complain(error, NOT_DONE)
        return NOT_DONE
    except RaftwalError as error:
        code = exit_code_of(error)
        complain(error, code)
        return code
    # What was printed stands before what is wrong with it, where both go to one place.
    _flush()
    for problem in problems:
        complain(problem, exit_code_of(problem))
    if not problems:
        return SOUND
    return DAMAGED if DAMAGED in map(exit_code_of, problems) else NOT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    try:
        options = _parser().parse_args(arguments)
        if options.command == "migrate":
            migrating.check_arguments(options)
    except SystemExit:
        # A reader of --help that went away shows here, not in the interpreter's exit.
        _flush()
        raise
    return options


def _flush() -> None:
    # There is no stdout at all when it was closed before the start.
    if sys.stdout is not None:
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="raftwal",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"raftwal {raftwal.__version__} ({implementation()})"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in (
        ("dump", "print what the log holds"),
        ("verify", "check every record and every snapshot file"),
        ("repair", "cut off a torn tail"),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.  See 'raftwal --help' for more.",
        )
        command.add_argument("directory", metavar="DIR", help="a data directory, or its wal/")
        command.add_argument(
            "--json",
            action="store_true",
            help="one JSON object a line, each with a 'kind'; bytes in base64",
        )
        if name == "dump":
            _add_dump_options(command)
    migrating.add_parser(commands)
    return parser


def _add_dump_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--records",
        action="store_true",
        help="every record in file order, those that were overwritten too, with segment, "
        "offset, type and CRC",
    )
    command.add_argument(
        "--from-snapshot",
        metavar="INDEX",
        type=_index,
        help="what a node sees that starts from the snapshot with this index; "
        "only the segments that it needs are read",
    )
    command.add_argument(
        "--first", metavar="INDEX", type=_index, default=0, help="the first entry to print"
    )
    command.add_argument(
        "--last", metavar="INDEX", type=_index, default=MAX_UINT64, help="the last entry to print"
    )
    command.add_argument("--no-entries", action="store_true", help="print no entries")


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_UINT64:
        raise argparse.ArgumentTypeError(f"not a log index: {text!r}")
    return int(text)


def _discard_output() -> None:
    """Leave nothing for the interpreter to flush, and fail at, on its way out."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
