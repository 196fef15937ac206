"""A node's data directory, written from its state and read back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import NamedTuple

from raftwal.errors import (
    CommitBeyondLogError,
    MigrationRefusedError,
    SnapshotAheadOfLogError,
    SnapshotFileError,
    SnapshotNotFoundError,
)
from raftwal.fs import FileSystem
from raftwal.identity import Identity
from raftwal.metrics import StorageMetrics
from raftwal.model import START_OF_LOG, Entry, EntryType, HardState
from raftwal.pysyncobj.dump import DumpChunks, StoredDump
from raftwal.pysyncobj.file_journal import COMMAND_TYPES
from raftwal.pysyncobj.journal import JournalEntry
from raftwal.pysyncobj.node_state import Content, NodeState, StateDump
from raftwal.recovery import SNAPSHOT_DIRECTORY, WAL_DIRECTORY
from raftwal.snapshot_files import SnapshotReader
from raftwal.snapshots import Snapshotter
from raftwal.spool import SizedChunks
from raftwal.storage import RaftStorage
from raftwal.wal.creation import lock_segments
from raftwal.wal.interpreting import LogContents
from raftwal.wal.log import WAL
from raftwal.wal.reading import read_whole_log
from raftwal.wal.segments import list_segments

_BATCH_BYTES = 1 << 22


class DirectorySettings(NamedTuple):
    """How a directory is written: see `raftwal.RaftStorage.open`."""

    identity: Identity
    segment_bytes: int
    fs: FileSystem
    executor: Executor | None

    def open(self, directory: str) -> RaftStorage:
        """The directory's storage; its metrics go nowhere."""
        return RaftStorage.open(
            directory,
            identity=self.identity,
            segment_bytes=self.segment_bytes,
            keep_entries=False,
            keep_snapshot_data=False,
            metrics=StorageMetrics(),
            fs=self.fs,
            executor=self.executor,
        )


def write_directory(
    directory: str, state: NodeState, content: SizedChunks | None, settings: DirectorySettings
) -> None:
    """Make a data directory that holds ``state``, all of it synced; ``content`` is the dump's.

    Raises `WriteFailedError` and what else `RaftStorage.save` raises.
    """
    with settings.open(directory) as storage:
        term, vote, _ = state.hard_state
        covered = 0
        if state.dump is not None and content is not None:
            description = state.dump.description
            chunks = DumpChunks(description, content)
            storage.save_snapshot_stream(description.metadata, chunks)
            storage.record_snapshot(description.metadata)
            covered = description.last_index
        # The commit index that vouches for the snapshot comes before what follows on it.
        storage.save(HardState(term, vote, covered))
        for batch in _batches(state.entries):
            storage.save(None, batch)
        storage.save(state.hard_state)
        storage.sync()


def _batches(entries: Sequence[JournalEntry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for command, index, term in entries:
        batch.append(Entry(term, index, command))
        size += len(command)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def recover_directory(directory: str, settings: DirectorySettings) -> NodeState:
    """What a node that is started on a directory recovers from it.

    Raises as `RaftStorage.open` does.
    """
    with settings.open(directory) as storage:
        recovered = storage.recovered
        dump = None
        reader = storage.open_snapshot()
        if reader is not None:
            with StoredDump(reader) as stored:
                dump = _facts_of(stored)
        return NodeState(recovered.hard_state, dump, _commands(recovered.entries, directory))


def _facts_of(stored: StoredDump) -> StateDump:
    return StateDump(stored.description, stored.size, content_of_stored(stored).sha256())


def content_of_stored(stored: StoredDump) -> Content:
    """The bytes of a dump in a snapshot's file."""
    return Content(stored.read, stored.size)


@contextmanager
def held(fs: FileSystem, directory: str) -> Iterator[None]:
    """Keep nodes from opening a data directory meanwhile.

    Raises `NotAWalError`, `LockedError`, `ReadFailedError`, `WriteFailedError`.
    """
    wal = os.path.join(directory, WAL_DIRECTORY)
    files = lock_segments(fs, wal, list_segments(fs, wal)[-1:])
    try:
        yield
    finally:
        for _, file in files:
            file.close()


class OpenDirectory(NamedTuple):
    """A directory that is read: ``stored`` is the dump that ``state`` describes."""

    state: NodeState
    identity: Identity
    stored: StoredDump | None


@contextmanager
def open_directory(fs: FileSystem, directory: str) -> Iterator[OpenDirectory]:
    """What a node would recover, read without a change to the directory.

    A torn tail is passed over, as its repair would do: no promise rests on it.

    Raises the subclasses of `CorruptionError`, `MigrationRefusedError` for a log that is
    no PySyncObj node's, `ReadFailedError`.
    """
    wal = os.path.join(directory, WAL_DIRECTORY)
    survey, _ = read_whole_log(fs, wal)
    identity = Identity.decode(survey.metadata)
    if identity is None:
        raise _of_other_software(directory, "its metadata do not say whose it is")
    stored, contents = _newest_start(fs, directory, survey)
    try:
        dump = None if stored is None else _facts_of(stored)
        yield OpenDirectory(_state_of(contents, dump, directory), identity, stored)
    finally:
        if stored is not None:
            stored.close()


def _newest_start(
    fs: FileSystem, directory: str, survey: LogContents
) -> tuple[StoredDump | None, LogContents]:
    """The newest whole snapshot that the log vouches for, and the log from there on."""
    wal = os.path.join(directory, WAL_DIRECTORY)
    snapshotter = Snapshotter(os.path.join(directory, SNAPSHOT_DIRECTORY), fs=fs)
    vouched = {(one.term, one.index) for one in survey.valid_snapshots if one.index > 0}
    for name in snapshotter.names():
        if name not in vouched:
            continue
        try:
            reader = snapshotter.open(name)
        except SnapshotFileError:
            # Recovery takes the one before it, too.
            continue
        try:
            contents = WAL.open_for_read(wal, reader.metadata, fs=fs).read_all()
            return _stored_dump(reader), contents
        except SnapshotNotFoundError:
            reader.close()
        except BaseException:
            reader.close()
            raise
    return None, WAL.open_for_read(wal, START_OF_LOG, fs=fs).read_all()


def _stored_dump(reader: SnapshotReader) -> StoredDump:
    try:
        return StoredDump(reader)
    except SnapshotFileError as error:
        # The file is whole, and of other software or of another version.
        raise MigrationRefusedError(error.what, path=reader.path, advice=error.advice) from error


def _state_of(contents: LogContents, dump: StateDump | None, directory: str) -> NodeState:
    entries = _commands(contents.entries[contents.stale_entries :], directory)
    state = NodeState(contents.hard_state, dump, entries)
    covered = 0 if dump is None else dump.description.last_index
    if entries and entries[0][1] != covered + 1:
        raise SnapshotAheadOfLogError(
            f"the log starts at index {entries[0][1]}, and no snapshot from there on is "
            "whole and vouched for",
            path=directory,
            index=entries[0][1],
        )
    term, _, commit = state.hard_state
    if commit > state.last_index:
        raise CommitBeyondLogError(
            f"the log commits index {commit} but ends at {state.last_index}",
            path=directory,
            index=commit,
        )
    if state.last_term > term:
        # Entries of a new term reached the disk and the hard state behind them did not.
        # No vote of that term can have left this node.
        state = state._replace(hard_state=HardState(state.last_term, 0, commit))
    return state


def _commands(entries: list[Entry], directory: str) -> list[JournalEntry]:
    commands: list[JournalEntry] = []
    for term, index, data, kind in entries:
        if not data or kind is not EntryType.NORMAL or data[0] not in COMMAND_TYPES:
            raise _of_other_software(directory, f"entry {index} is no command")
        commands.append((data, index, term))
    return commands


def _of_other_software(directory: str, why: str) -> MigrationRefusedError:
    return MigrationRefusedError(
        f"the log is not that of a PySyncObj node: {why}",
        path=directory,
        advice="Only what raftwal's PySyncObj adapter wrote can become a FileJournal",
    )
