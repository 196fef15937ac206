"""From PySyncObj's FileJournal to a raftwal data directory, and back.

Both ways alike: the source is read and never touched; what is made of it is written
beside the target under another name, synced, and read back; then a marker beside the
source says that it is old, and what was made gets its name.  After a crash at any point
there is nothing that a node could start from, or all of it, and the next try begins anew.

The node must not run meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from pysyncobj.version import VERSION

from raftwal.errors import (
    FileJournalError,
    InvalidSettingError,
    MigrationRefusedError,
    RaftwalError,
    WriteFailedError,
)
from raftwal.events import log
from raftwal.fs import DISK, FileSystem
from raftwal.identity import Identity
from raftwal.pysyncobj.dump import DumpDescription, StoredDump
from raftwal.pysyncobj.dump_file import describe, described
from raftwal.pysyncobj.file_journal import (
    Meta,
    decode_meta,
    encode_meta,
    read_journal,
    write_journal,
)
from raftwal.pysyncobj.in_making import DirectoryInMaking, FilesInMaking
from raftwal.pysyncobj.journal import FIRST_COMMIT_INDEX
from raftwal.pysyncobj.migration_marker import check_newer
from raftwal.pysyncobj.node_directory import (
    DirectorySettings,
    content_of_stored,
    held,
    open_directory,
    recover_directory,
    write_directory,
)
from raftwal.pysyncobj.node_files import (
    DescribeDump,
    NodeFiles,
    Reading,
    Reconciliation,
    read_files,
    vote_name,
)
from raftwal.pysyncobj.node_state import Content, NodeState, StateDump, content_of
from raftwal.snapshot_files import write_and_sync
from raftwal.wal.segments import DEFAULT_SEGMENT_BYTES

_SCRATCH = "dump-to-read.tmp"

Deserializer = Callable[[str], Sequence[Any]]
"""An application's own (``conf.deserializer``): given a dump's path, it loads the state and
returns what PySyncObj gave to the serializer beside it."""


class Migration(NamedTuple):
    """What was migrated.  ``vote`` is the name of the node that ``state`` has a vote for,
    as far as it is known; ``notes`` are sentences for the operator.
    """

    source: str
    target: str
    identity: Identity
    state: NodeState
    vote: str | None
    notes: tuple[str, ...]


def from_file_journal(
    journal_file: str | os.PathLike[str],
    dump_file: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str],
    *,
    node_id: str,
    cluster_name: str = "",
    term: int | None = None,
    accept_loss: bool = False,
    deserializer: Deserializer | None = None,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    fs: FileSystem = DISK,
    executor: Executor | None = None,
) -> Migration:
    """Make ``data_dir`` of a journal, the ``.meta`` beside it, and a dump.

    ``dump_file`` is the node's ``conf.fullDumpFile``, ``node_id`` its own address as
    PySyncObj knows it.  ``term`` stands in for a ``.meta`` that is lost: one that no node
    of the cluster is beyond.  With ``accept_loss``, entries that the node knew and that
    are gone are noted instead of refused.

    Raises `FileJournalError`, `LostEntriesError`, `MigrationRefusedError`,
    `MigrationTargetExistsError`, `LockedError`, `ReadFailedError`, `WriteFailedError`;
    there is then nothing new.
    """
    files = _files(journal_file, dump_file)
    target = os.path.abspath(data_dir)
    settings = DirectorySettings(Identity(node_id, cluster_name), segment_bytes, fs, executor)
    making = DirectoryInMaking(fs, files.journal, target)
    with making:
        scratch = os.path.join(making.path, _SCRATCH)
        describe_dump = describe if deserializer is None else _told_by(deserializer, fs, scratch)
        reading = read_files(fs, files, describe_dump)
        digest = reading.digest()
        check_newer(files.journal, digest, making.finished)
        reconciliation = Reconciliation(reading, term=term, accept_loss=accept_loss)
        state = reconciliation.state()
        with content_of(fs, files.dump) as content:
            write_directory(making.path, state, content, settings)
        if read_files(fs, files, _again(reading, describe_dump)).digest() != digest:
            raise MigrationRefusedError(
                "the files changed while they were read: a node is running on them",
                path=files.journal,
                advice="Stop the node first",
            )
        _check_same(recover_directory(making.path, settings), state, target)
        making.publish(digest)
    notes = (*reconciliation.notes, *_notes_on_dump(reading, state, node_id), *making.notes)
    names = [node_id]
    if isinstance(reading.meta, Meta) and reading.meta.vote is not None:
        names.append(reading.meta.vote)
    vote = _name_of_vote(state, names)
    return _done(Migration(files.journal, target, settings.identity, state, vote, notes))


def _told_by(deserializer: Deserializer, fs: FileSystem, scratch: str) -> DescribeDump:
    """Have the application's deserializer read a copy of the dump."""

    def describe_dump(content: Content, path: str) -> DumpDescription:
        _write_file(fs, scratch, content)
        try:
            return described(tuple(deserializer(scratch)), path)
        except RaftwalError:
            raise
        except Exception as error:
            raise MigrationRefusedError(
                f"the application's deserializer could not read the dump: {error!r}",
                path=path,
                advice="Run the version of the application that wrote it",
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                fs.remove(scratch)

    return describe_dump


def _again(reading: Reading, describe_dump: DescribeDump) -> DescribeDump:
    """The same dump says the same.  A deserializer is the application's, and called once."""
    known = reading.dump
    if isinstance(known, StateDump):
        return lambda content, path: known.description
    return describe_dump


def _notes_on_dump(reading: Reading, state: NodeState, node_id: str) -> Iterator[str]:
    if reading.files.dump is not None and reading.dump is None:
        yield f"there is no dump {reading.files.dump}: the journal holds everything"
    if state.dump is not None and node_id not in state.dump.description.node_ids:
        nodes = ", ".join(state.dump.description.node_ids)
        yield (
            f"{node_id} is not among the dump's nodes ({nodes}): right for a node that joined "
            "later, wrong for one of another name"
        )


def _name_of_vote(state: NodeState, names: Iterable[str]) -> str | None:
    members = () if state.dump is None else state.dump.description.node_ids
    return vote_name(state.hard_state.vote, [*names, *members])


def to_file_journal(
    data_dir: str | os.PathLike[str],
    journal_file: str | os.PathLike[str],
    dump_file: str | os.PathLike[str] | None,
    *,
    partners: Iterable[str] = (),
    fs: FileSystem = DISK,
) -> Migration:
    """Make a journal, the ``.meta`` beside it, and a dump of a data directory.

    ``dump_file`` is what ``conf.fullDumpFile`` will be; plain PySyncObj starts from them.
    A log keeps votes by number.  The name is looked for among the node itself, those in the
    snapshot, and the ``partners``; where it is none of them, the vote is for a name that no
    node has, and the vote of the term stays spent.

    Raises the subclasses of `CorruptionError`, `MigrationRefusedError`,
    `MigrationTargetExistsError`, `NotAWalError`, `LockedError`, `ReadFailedError`,
    `WriteFailedError`; there is then nothing new.
    """
    source = os.path.abspath(data_dir)
    files = _files(journal_file, dump_file)
    with held(fs, source), open_directory(fs, source) as directory:
        state, identity, stored = directory
        making = FilesInMaking(fs, source, files)
        digest = state.digest()
        check_newer(source, digest, making.finished)
        vote = _name_of_vote(state, [identity.node_id, *partners])
        with making:
            _write_files(fs, making, state, vote, stored)
            making.publish(digest)
    return _done(Migration(source, files.journal, identity, state, vote, tuple(making.notes)))


def _write_files(
    fs: FileSystem,
    making: FilesInMaking,
    state: NodeState,
    vote: str | None,
    stored: StoredDump | None,
) -> None:
    """Write the three files, synced, and read them back."""
    made = making.files
    entries = list(state.entries)
    if stored is not None:
        description = stored.description
        if made.dump is None:
            raise MigrationRefusedError(
                f"there is a snapshot of index {description.last_index}, and no dump file is "
                "named for it",
                path=making.source,
                advice="Name conf.fullDumpFile: without one PySyncObj cannot start from a snapshot",
            )
        content = content_of_stored(stored)
        _check_opens(content, description, making.source)
        # PySyncObj throws a journal away that does not begin with these two.
        entries = [description.previous, description.last, *entries]
        _write_file(fs, made.dump, content)
    meta = Meta(state.hard_state.term, vote, max(state.hard_state.commit, FIRST_COMMIT_INDEX))
    _write_file(fs, made.meta, [encode_meta(meta)])
    write_journal(fs, made.journal, entries, VERSION)
    _check_same(read_journal(fs, made.journal)[::2], (entries, None), made.journal)
    with content_of(fs, made.meta) as written:
        _check_same(decode_meta(b"".join(written or ()), made.meta), meta, made.meta)
    with content_of(fs, made.dump) as written:
        sha256 = None if state.dump is None else state.dump.sha256
        _check_same(None if written is None else written.sha256(), sha256, made.journal)


def _check_opens(content: Content, description: DumpDescription, source: str) -> None:
    """PySyncObj compares what is in the dump with the journal, and finds what we put there."""
    try:
        found = describe(content, source)
    except MigrationRefusedError:
        # Of the application's own serializer: nobody but the application can open it.
        return
    if found[:2] != description[:2]:
        raise FileJournalError(
            f"the snapshot says that it ends with entry {description.last_index}, and the dump "
            f"in it ends with entry {found.last_index}",
            path=source,
            index=description.last_index,
        )


def _write_file(fs: FileSystem, path: str, chunks: Iterable[bytes]) -> None:
    file = fs.create(path)
    try:
        write_and_sync(file, chunks)
    finally:
        file.close()


def _check_same(found: object, expected: object, path: str) -> None:
    if found != expected:
        raise WriteFailedError(
            "what was read back is not what was written",
            path=path,
            advice="Check the disk and try again: the source is as it was",
        )


def _files(
    journal_file: str | os.PathLike[str], dump_file: str | os.PathLike[str] | None
) -> NodeFiles:
    journal = os.path.abspath(journal_file)
    dump = None if dump_file is None else os.path.abspath(dump_file)
    if dump in (journal, f"{journal}.meta"):
        raise InvalidSettingError("journal and dump are one file", path=dump)
    return NodeFiles.of(journal, dump)


def _done(migration: Migration) -> Migration:
    state = migration.state
    log.info(
        "migrated",
        source=migration.source,
        target=migration.target,
        node=migration.identity.node_id,
        term=state.hard_state.term,
        commit=state.hard_state.commit,
        snapshot_index=0 if state.dump is None else state.dump.description.last_index,
        last_index=state.last_index,
        notes=list(migration.notes),
    )
    return migration
