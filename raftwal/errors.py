"""Every error that a caller of raftwal can meet.

Each says what happened, where (file, byte offset, log index, as far as they apply)
and what the operator can do.  All derive from `RaftwalError`, and from the built-in
exception that fits, so that ``except OSError`` and ``except ValueError`` work too.

::

    RaftwalError
    ├── CorruptionError (ValueError)     something on disk that does not check
    │   ├── RecordFormatError            a record that is not of the format
    │   ├── RecordLengthError            a length field that cannot be right
    │   ├── CrcMismatchError             a record or a chain whose checksum is wrong
    │   ├── TruncatedSegmentError        a segment, not the last, that ends early
    │   ├── ZeroedDataError              zeros where records were, or should be
    │   ├── LostRecordsError             a damaged record that later saves followed
    │   ├── SegmentHeaderError           a segment that does not start as one must
    │   ├── MissingSegmentError          a gap in the segment numbers
    │   ├── MetadataConflictError        two segments with different metadata
    │   ├── EntryGapError                an entry index that leaves a gap
    │   ├── EntryTermError               an entry whose term contradicts the log
    │   ├── HardStateOrderError          a hard state that contradicts the log
    │   ├── CommitBeyondLogError         a commit index above the last entry
    │   ├── SnapshotMismatchError        the snapshot's index, with another term
    │   ├── SnapshotNotFoundError        no record of the snapshot to start from
    │   ├── SnapshotAheadOfLogError      snapshots, but no log that goes with them
    │   ├── SnapshotFileError            a snapshot file that does not check
    │   └── FileJournalError             PySyncObj's own files, damaged
    │       └── LostEntriesError         and without entries that the node knew
    ├── TornTailError (ValueError)       the normal trace of a crash; can be repaired
    ├── NotAWalError (FileNotFoundError) no log in this directory
    ├── NoSnapshotError (FileNotFoundError)
    ├── LockedError (BlockingIOError)    another writer has the log open
    ├── ReadFailedError (OSError)        the system could not read
    ├── WriteFailedError (OSError)       a write or sync failed, now or earlier
    ├── ClosedError (ValueError)         a call on a closed log or storage
    ├── NotReadYetError (RuntimeError)   an append before ``read_all()``
    ├── InvalidEntryError (ValueError)   a save that was refused; nothing was written
    ├── InvalidSnapshotError (ValueError) a snapshot that was refused; nothing was written
    ├── SnapshotOutOfDateError (ValueError) there is a newer snapshot already
    ├── CompactedError (LookupError)     an index below what the storage still holds
    ├── UnavailableError (LookupError)   an index above the last entry
    ├── InvalidSettingError (ValueError) an argument that cannot be
    ├── CommittedEntryContradictedError (ValueError) another node lost what it had promised
    ├── CommandError (RuntimeError)      an awaited call that was not acknowledged
    │   ├── CommandNotAppliedError       it was not applied, and will not be
    │   └── CommandOutcomeUnknownError   it may have been applied, or may yet be
    │       └── CommandTimeoutError (TimeoutError)
    ├── NodeNotReadyError (RuntimeError) a node that was waited for in vain
    ├── IdentityMismatchError (ValueError)
    ├── MigrationRefusedError (ValueError) what is there cannot become the other form
    ├── MigrationTargetExistsError (FileExistsError)
    └── UnsupportedPySyncObjError (ImportError)
"""

from __future__ import annotations


class RaftwalError(Exception):
    """The base of every error that raftwal raises.

    ``path``, ``offset`` (bytes from the start of the file) and ``index`` (of a log
    entry) are ``None`` where they do not apply.  ``advice`` is one sentence for the
    operator.
    """

    default_advice = ""

    def __init__(
        self,
        what: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        index: int | None = None,
        advice: str | None = None,
    ) -> None:
        self.what = what
        self.path = path
        self.offset = offset
        self.index = index
        self.advice = self.default_advice if advice is None else advice
        super().__init__(what)

    def __str__(self) -> str:
        where = self.where
        text = f"{self.what} ({where})" if where else self.what
        return f"{text}. {self.advice}" if self.advice else text

    @property
    def where(self) -> str:
        """File, offset and index in one phrase; empty when none applies."""
        parts = []
        if self.path is not None:
            parts.append(f"in {self.path}")
        if self.offset is not None:
            parts.append(f"at byte {self.offset}")
        if self.index is not None:
            parts.append(f"index {self.index}")
        return ", ".join(parts)


class CorruptionError(RaftwalError, ValueError):
    """Something on disk does not check, and it is not the torn tail of a crash.

    Nothing is skipped, guessed or cut: the files are left as they were found.
    """

    default_advice = (
        "Keep a copy of the directory; take this node out of the cluster, empty its "
        "data directory and let it rejoin from its peers"
    )


class RecordFormatError(CorruptionError):
    """A record, or its payload, is not of the format, though it is all there."""


class RecordLengthError(CorruptionError):
    """A length field claims more bytes than its file has, and no torn write explains that.

    It is not in the last segment, or the record behind it is whole, and shorter.
    """


class CrcMismatchError(CorruptionError):
    """A record's bytes are not those that its checksum was made of."""


class TruncatedSegmentError(CorruptionError):
    """A segment that is not the last one ends inside a record."""


class ZeroedDataError(CorruptionError):
    """Zeros stand where records were: either nothing but zeros, or records beyond them
    that no interrupted write leaves.
    """


class LostRecordsError(CorruptionError):
    """A record in the last segment is not whole, and a later write stands behind it.

    A later write begins when the one before it is durable, so this is no torn tail:
    what is missing had been acknowledged.
    """


class SegmentHeaderError(CorruptionError):
    """A segment does not start with a CRC record and the metadata record."""


class MissingSegmentError(CorruptionError):
    """The numbers of the segments are not consecutive: a file is missing."""

    default_advice = (
        "Look for the missing segment (was it moved, or purged by hand?) and put it "
        "back; otherwise empty this node's data directory and let it rejoin"
    )


class MetadataConflictError(CorruptionError):
    """Two segments hold different metadata: files of different logs are mixed."""


class EntryGapError(CorruptionError):
    """An entry's index is more than one above the last: entries are missing."""


class EntryTermError(CorruptionError):
    """An entry's term is below that of the entry before it.

    Raft never writes that, so one of the records is not what was written.
    """


class HardStateOrderError(CorruptionError):
    """A hard state's term is below an earlier one, or below that of an entry that
    replaced another.

    Raft never goes back to a lower term, so one of the records is not what was written.
    """


class CommitBeyondLogError(CorruptionError):
    """The hard state commits an index that neither the log nor a snapshot holds."""


class SnapshotMismatchError(CorruptionError):
    """The log has a record of this snapshot index, but with another term."""


class SnapshotNotFoundError(CorruptionError):
    """The log has no record of the snapshot that it was to be read from."""

    default_advice = (
        "Start from a snapshot that the log vouches for: raftwal.valid_snapshots() "
        "or 'raftwal dump' lists them"
    )


class SnapshotAheadOfLogError(CorruptionError):
    """There are snapshots, but the log that vouches for them is gone or too short."""

    default_advice = (
        "Put the log back beside its snapshots, or move both away so that this node "
        "starts empty and rejoins"
    )


class SnapshotFileError(CorruptionError):
    """A snapshot file is empty, does not parse, or fails its checksum."""


class FileJournalError(CorruptionError):
    """A FileJournal of PySyncObj's own, its ``.meta`` or its dump does not check.

    PySyncObj syncs none of them and gives none but the dump a checksum: a power cut can
    leave them torn or of different times.
    """

    default_advice = (
        "Move the node's files away while the rest of the cluster is in step and start it "
        "alone: it gets everything from its peers"
    )


class LostEntriesError(FileJournalError):
    """A FileJournal lacks entries that the node knew, and may have acknowledged."""

    default_advice = (
        "Move the node's files away while the rest of the cluster is in step and start it "
        "alone: it gets everything from its peers.  Where there is no other node, "
        "'raftwal migrate --accept-loss' goes on from what there is"
    )


class TornTailError(RaftwalError, ValueError):
    """The last segment ends in a record that was still on its way when the node died.

    Normal after a crash.  ``offset`` is the end of the last whole record.  Where zeros
    stand there, and behind them records that one interrupted write explains, ``what``
    says so: a disk that loses a sector leaves the same.
    """

    default_advice = "Run 'raftwal repair' or raftwal.repair(); RaftStorage.open does it itself"


class NotAWalError(RaftwalError, FileNotFoundError):
    """The directory does not exist, or holds no segment to read from."""

    default_advice = "Check the path; WAL.create and RaftStorage.open make a new log"


class NoSnapshotError(RaftwalError, FileNotFoundError):
    """No snapshot file is whole and vouched for."""

    default_advice = ""


class LockedError(RaftwalError, BlockingIOError):
    """Another writer, in this process or another, has the log open."""

    default_advice = "Stop the other process, or give this node a directory of its own"


class ReadFailedError(RaftwalError, OSError):
    """The operating system could not read a file; ``__cause__`` is its error."""

    default_advice = "Check the disk and the permissions"


class WriteFailedError(RaftwalError, OSError):
    """A write or a sync failed, now or earlier; the log refuses every further call.

    After a failed fsync the kernel may have dropped the data and report success the
    next time, so nothing is retried (Rebello et al., "Can Applications Recover from
    fsync Failures?", USENIX ATC 2020).  ``__cause__`` is the system's error.
    """

    default_advice = "Mend the cause (free space, replace the disk), then restart the node"


class ClosedError(RaftwalError, ValueError):
    """The log or the storage was closed, or is open for reading only."""


class NotReadYetError(RaftwalError, RuntimeError):
    """A log opened to append must be read to its end first."""

    default_advice = "Call read_all() before the first save()"


class InvalidEntryError(RaftwalError, ValueError):
    """What was to be saved cannot follow what is there.  Nothing was written."""

    default_advice = ""


class InvalidSnapshotError(RaftwalError, ValueError):
    """A snapshot whose metadata cannot be.  Nothing was written."""

    default_advice = ""


class SnapshotOutOfDateError(RaftwalError, ValueError):
    """There is a snapshot of this index or a later one.  Nothing was written.

    etcd's ``raft.ErrSnapOutOfDate``.
    """


class CompactedError(RaftwalError, LookupError):
    """The index is below what the storage holds: a snapshot has taken its place.

    etcd's ``raft.ErrCompacted``; a leader sends its snapshot instead.
    """


class UnavailableError(RaftwalError, LookupError):
    """The index is above the last entry.

    etcd's ``raft.ErrUnavailable``, and what etcd's ``MemoryStorage`` panics about.
    """


class InvalidSettingError(RaftwalError, ValueError):
    """An argument that cannot be: a segment of no bytes, metadata that are not bytes."""


class CommittedEntryContradictedError(RaftwalError, ValueError):
    """A leader sent another entry for an index that is committed here.

    In Raft a committed entry never changes, so some node has lost what it had promised.
    This one stops rather than go on with a state that differs from its peers'.
    """

    default_advice = (
        "Find the node that lost its log (one without raftwal, most likely); compare the "
        "states, choose the one to keep, and empty the data directories of the others"
    )


class CommandError(RaftwalError, RuntimeError):
    """A replicated call that was awaited, and not acknowledged.

    ``reason`` is the name that PySyncObj has for it in ``FAIL_REASON``, or ``TIMEOUT``,
    or ``NOT_RUNNING``.  ``__cause__`` is the node's storage failure, if it has one.
    """

    def __init__(self, what: str, *, reason: str, path: str | None = None) -> None:
        super().__init__(what, path=path)
        self.reason = reason


class CommandNotAppliedError(CommandError):
    """The command is committed nowhere and never will be: to call again is safe.

    ``QUEUE_FULL``, ``MISSING_LEADER``, ``NOT_LEADER``, ``DISCARDED``: a second call may
    well succeed.  ``REQUEST_DENIED``: a change of membership that would change nothing,
    or that a new leader cannot take yet; or this node's storage has failed, and another
    node may take it.  ``NOT_RUNNING``: the node was destroyed.
    """

    default_advice = "Nothing was written: calling again is safe"


class CommandOutcomeUnknownError(CommandError):
    """The command may be committed, or become so later.

    ``LEADER_CHANGED``, ``UNKNOWN_OUTCOME``, ``TIMEOUT``.  To call again is safe for a
    command that may happen twice.
    """

    default_advice = "Read back what became of it, or call again if it may happen twice"


class CommandTimeoutError(CommandOutcomeUnknownError, TimeoutError):
    """There was no answer in time.  The command stays where it is and may yet be applied."""


class NodeNotReadyError(RaftwalError, RuntimeError):
    """The node was not ready in time, or never will be; the text says why.

    ``__cause__`` is the node's storage failure, if that is the reason.
    """


class IdentityMismatchError(RaftwalError, ValueError):
    """The directory belongs to another node, another cluster or another format."""

    default_advice = "Give this node its own directory"


class MigrationRefusedError(RaftwalError, ValueError):
    """What is there cannot be turned into the other form whole, or must not.

    Nothing was written.
    """

    default_advice = ""


class MigrationTargetExistsError(RaftwalError, FileExistsError):
    """There is something where a migration was to put what it makes.  Nothing was written."""

    default_advice = "Name another place, or move what is there away"


class UnsupportedPySyncObjError(RaftwalError, ImportError):
    """The installed PySyncObj lacks something that the adapter builds on."""

    default_advice = "Install a supported PySyncObj: pip install 'pysyncobj==0.3.17'"
