"""``raftwal migrate``: from PySyncObj's FileJournal to a data directory, and back."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from raftwal.cli.output import in_words, print_json
from raftwal.errors import MigrationRefusedError, NotAWalError
from raftwal.model import MAX_UINT64

if TYPE_CHECKING:
    from raftwal.pysyncobj.migration import Migration

SUMMARY = "turn PySyncObj's FileJournal into a data directory, or back"
_DESCRIPTION = """\
Turn the files of a PySyncObj node into a data directory: the journal
(conf.journalFile), the .meta beside it, and the dump (conf.fullDumpFile).  With --back,
the other way.

Stop the node first.  SOURCE is never touched: what is made of it is written beside
TARGET, synced and read back before it gets its name, so that there is nothing or all of
it.  A file SOURCE.migrated then says that SOURCE is old.

Run it as the user that the node runs as.
"""
_EPILOG = """\
examples:
  raftwal migrate node1.journal node1.journal.raftwal --dump node1.dump \\
      --node 10.0.0.1:4321
  raftwal migrate --back node1.journal.raftwal node1.journal --dump node1.dump \
      --partner 10.0.0.2:4321 --partner 10.0.0.3:4321
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's arguments."""
    command = commands.add_parser(
        "migrate",
        help=SUMMARY,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(parser=command)
    add = command.add_argument
    add("source", metavar="SOURCE", help="the journal; with --back, the data directory")
    add("target", metavar="TARGET", help="the data directory; with --back, the journal")
    dump = command.add_mutually_exclusive_group(required=True)
    dump.add_argument("--dump", metavar="FILE", help="the node's conf.fullDumpFile")
    dump.add_argument("--no-dump", action="store_true", help="its conf has no fullDumpFile")
    add("--back", action="store_true", help="make a FileJournal of a data directory")
    add("--node", metavar="ID", help="the node's own address, as PySyncObj knows it")
    add(
        "--partner",
        metavar="ID",
        action="append",
        default=[],
        help="with --back: another node's address, once for each; gives the vote its name",
    )
    add(
        "--cluster-name",
        metavar="NAME",
        help="as in StorageSettings: kept in the directory and compared",
    )
    add(
        "--term",
        metavar="N",
        type=_term,
        help="for a node whose .meta is lost: a term that no node of the cluster is beyond",
    )
    add(
        "--accept-loss",
        action="store_true",
        help="go on without entries that the node knew and that are gone",
    )
    add(
        "--json",
        action="store_true",
        help="a JSON object of the kind 'migration'",
    )


def _check(command: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.back and not options.node:
        command.error("name the node whose files these are with --node")
    if options.partner and not options.back:
        command.error("--partner goes with --back alone")
    if options.back:
        for name in ("node", "cluster_name", "term", "accept_loss"):
            if getattr(options, name) not in (None, False):
                command.error(f"--{name.replace('_', '-')} does not go with --back")


def check_arguments(options: argparse.Namespace) -> None:
    """End the program for arguments that do not go together."""
    _check(options.parser, options)


def migrate(options: argparse.Namespace) -> None:
    """Migrate and say what was done.

    Raises what `from_file_journal` and `to_file_journal` raise.
    """
    # Here, so that PySyncObj is loaded for this command alone.
    from raftwal.pysyncobj import migration  # noqa: PLC0415

    _check_source(options)
    if options.back:
        done = migration.to_file_journal(
            options.source, options.target, options.dump, partners=options.partner
        )
    else:
        done = migration.from_file_journal(
            options.source,
            options.dump,
            options.target,
            node_id=options.node,
            cluster_name=options.cluster_name or "",
            term=options.term,
            accept_loss=options.accept_loss,
        )
    if options.json:
        print_json("migration", _facts(done))
    else:
        _print(done)


def _check_source(options: argparse.Namespace) -> None:
    source = options.source
    if not os.path.exists(source):
        raise NotAWalError("there is nothing to migrate: no such file", path=source, advice="")
    if options.back and not os.path.isdir(source):
        raise MigrationRefusedError(
            "--back takes a data directory, and this is a file",
            path=source,
            advice="Leave --back out to come from a FileJournal",
        )
    if not options.back and os.path.isdir(source):
        raise MigrationRefusedError(
            "a journal is a file, and this is a directory",
            path=source,
            advice="Give --back to make a FileJournal of a data directory",
        )


def _facts(done: Migration) -> dict[str, Any]:
    state, entries = done.state, done.state.entries
    dump = None if state.dump is None else state.dump.description
    return {
        "source": done.source,
        "target": done.target,
        "node_id": done.identity.node_id,
        "cluster_name": done.identity.cluster_name,
        "term": state.hard_state.term,
        "vote": done.vote,
        "commit": state.hard_state.commit,
        "snapshot_index": None if dump is None else dump.last_index,
        "snapshot_term": None if dump is None else dump.last[2],
        "nodes": None if dump is None else list(dump.node_ids),
        "entries": len(entries),
        "first_index": entries[0][1] if entries else None,
        "last_index": entries[-1][1] if entries else None,
        "notes": list(done.notes),
    }


def _print(done: Migration) -> None:
    state, entries = done.state, done.state.entries
    term, _, commit = state.hard_state
    vote = "no vote" if done.vote is None else f"vote for {done.vote}"
    span = f", index {entries[0][1]} to {entries[-1][1]}" if entries else ""
    print(f"node        {done.identity.node_id!r}, cluster {done.identity.cluster_name!r}")
    print(f"hard state  term {term}, {vote}, commit {commit}")
    if state.dump is None:
        print("snapshot    none")
    else:
        _, (_, index, snapshot_term), node_ids = state.dump.description
        nodes = ", ".join(node_ids)
        print(f"snapshot    index {index}, term {snapshot_term}, nodes {nodes}")
    print(f"entries     {in_words(len(entries), 'entry')}{span}")
    for note in done.notes:
        print(f"note        {note}")
    print(f"migrated    to {done.target}, and read back")


def _term(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < MAX_UINT64:
        raise argparse.ArgumentTypeError(f"not a term: {text!r}")
    return int(text)
