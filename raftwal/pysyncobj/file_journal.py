"""The bytes of PySyncObj's FileJournal: the journal file, and the ``.meta`` beside it.

::

    name (24 bytes, zero-padded) | PySyncObj's version (8) | format (u32) | end (u32)
    length (u32) | index (u64) | term (u64) | command | length (u32)
    ...

All numbers are little-endian; ``length`` counts index, term and command; ``end`` is where
the last record ends.  What lies beyond it is room, or records that were cut off.  There is
no checksum, and PySyncObj checks nothing: what can be checked here is.

The ``.meta`` is a pickled dictionary with the term, the vote and the commit index.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from raftwal.errors import FileJournalError, MigrationRefusedError, ReadFailedError
from raftwal.fs import File, FileSystem
from raftwal.model import MAX_UINT64
from raftwal.pysyncobj.journal import JournalEntry

NAME = b"PYSYNCOBJ"
FORMAT_VERSION = 1
_HEADER = struct.Struct("<24s8sII")
_LENGTH = struct.Struct("<I")
_INDEX_AND_TERM = struct.Struct("<QQ")
# Whatever PySyncObj commits begins with its type: regular, no-op, membership, version.
COMMAND_TYPES = range(4)
_PICKLE_PROTOCOL = 2
_PIECE_BYTES = 1 << 20


class JournalContents(NamedTuple):
    """The entries of a journal file, up to the ``damage`` where there is some."""

    entries: list[JournalEntry]
    written_by: str
    """The version of PySyncObj that made the file."""
    damage: FileJournalError | None


class Meta(NamedTuple):
    """What a ``.meta`` holds; ``term`` is ``None`` where none was ever recorded."""

    term: int | None
    vote: str | None
    commit: int


def read_journal(fs: FileSystem, path: str) -> JournalContents:
    """Read a journal file, every record checked as far as the format allows.

    Raises `FileJournalError` for what is no journal file at all, `ReadFailedError`.
    """
    try:
        file = fs.open_read_only(path)
        try:
            return _read_journal(_Pieces(file), file.size(), path)
        finally:
            file.close()
    except OSError as error:
        raise ReadFailedError(
            f"cannot read the journal: {error.strerror or error}", path=path
        ) from error


def _read_journal(pieces: _Pieces, size: int, path: str) -> JournalContents:
    header = pieces.read(0, _HEADER.size)
    if len(header) < _HEADER.size:
        raise FileJournalError(
            f"not a FileJournal: {size} bytes, and its header alone takes {_HEADER.size}",
            path=path,
        )
    name, version, format_version, end = _HEADER.unpack(header)
    if name.rstrip(b"\0") != NAME:
        raise FileJournalError("not a FileJournal: it does not begin as one", path=path, offset=0)
    if format_version != FORMAT_VERSION:
        raise FileJournalError(
            f"a FileJournal of format {format_version}; this raftwal knows format {FORMAT_VERSION}",
            path=path,
            offset=32,
        )
    if end < _HEADER.size:
        raise FileJournalError(f"the journal says that it ends at byte {end}", path=path, offset=36)
    entries: list[JournalEntry] = []
    damage: FileJournalError | None = None
    if end > size:
        damage = FileJournalError(
            f"the journal says that it ends at byte {end}, and has {size}", path=path, offset=36
        )
    offset = _HEADER.size
    try:
        while offset < min(end, size):
            entry, length = _read_record(pieces, offset, min(end, size), path)
            _check_follows(entry, entries[-1] if entries else None, offset, path)
            entries.append(entry)
            offset += length
    except FileJournalError as error:
        damage = damage or error
    return JournalContents(entries, version.rstrip(b"\0").decode("ascii", "replace"), damage)


def _read_record(pieces: _Pieces, offset: int, end: int, path: str) -> tuple[JournalEntry, int]:
    smallest = _LENGTH.size + _INDEX_AND_TERM.size + 1 + _LENGTH.size
    if end - offset < smallest:
        raise FileJournalError(
            f"a record that begins {end - offset} bytes before the end, and takes at least "
            f"{smallest}",
            path=path,
            offset=offset,
        )
    (length,) = _LENGTH.unpack(pieces.read(offset, _LENGTH.size))
    whole = length + 2 * _LENGTH.size
    if length == 0:
        raise FileJournalError("zeros where a record should be", path=path, offset=offset)
    if whole < smallest or offset + whole > end:
        raise FileJournalError(
            f"a record of {whole} bytes, with {end - offset} to the end", path=path, offset=offset
        )
    record = pieces.read(offset + _LENGTH.size, length + _LENGTH.size)
    (again,) = _LENGTH.unpack_from(record, length)
    if again != length:
        raise FileJournalError(
            f"a record that gives its length as {length} in front and as {again} behind",
            path=path,
            offset=offset,
        )
    index, term = _INDEX_AND_TERM.unpack_from(record)
    return (record[_INDEX_AND_TERM.size : length], index, term), whole


def _check_follows(
    entry: JournalEntry, before: JournalEntry | None, offset: int, path: str
) -> None:
    command, index, term = entry
    what = ""
    if before is not None and index != before[1] + 1:
        what = f"entry {index} behind entry {before[1]}"
    elif before is not None and term < before[2]:
        what = f"an entry of term {term} behind one of term {before[2]}"
    elif not 1 <= index < MAX_UINT64:
        what = f"an entry with index {index}"
    elif command[0] not in COMMAND_TYPES:
        what = f"a command of type {command[0]}, which PySyncObj never writes"
    if what:
        raise FileJournalError(what, path=path, offset=offset, index=index)


class _Pieces:
    """A file, read in large pieces at rising offsets."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._offset = 0
        self._piece = b""

    def read(self, offset: int, length: int) -> bytes:
        start = offset - self._offset
        if start < 0 or start + length > len(self._piece):
            self._piece = self._file.read(offset, max(length, _PIECE_BYTES))
            self._offset, start = offset, 0
        return self._piece[start : start + length]


def write_journal(
    fs: FileSystem, path: str, entries: Sequence[JournalEntry], written_by: str
) -> None:
    """Write a journal file and sync it; its name is for the caller to make durable.

    Raises `MigrationRefusedError` before anything is written when the format cannot hold
    the entries, and ``OSError``.
    """
    overhead = 2 * _LENGTH.size + _INDEX_AND_TERM.size
    end = _HEADER.size + sum(len(command) + overhead for command, _, _ in entries)
    if end >= 1 << 32:
        raise MigrationRefusedError(
            f"the entries take {end} bytes, and a FileJournal has at most 4 GiB",
            path=path,
            advice="Have the node take a snapshot (forceLogCompaction) and stop it, then try again",
        )
    file = fs.create(path)
    try:
        buffer = bytearray(_HEADER.pack(NAME, written_by.encode("ascii")[:7], FORMAT_VERSION, end))
        offset = 0
        for command, index, term in entries:
            length = _LENGTH.pack(_INDEX_AND_TERM.size + len(command))
            buffer += length + _INDEX_AND_TERM.pack(index, term) + command + length
            if len(buffer) >= _PIECE_BYTES:
                file.write(offset, bytes(buffer))
                offset += len(buffer)
                buffer.clear()
        file.write(offset, bytes(buffer))
        file.sync()
    finally:
        file.close()


def decode_meta(content: bytes, path: str) -> Meta:
    """What is in a ``.meta``.  Nothing but plain values is unpickled.

    Raises `FileJournalError`.
    """
    try:
        fields = _PlainValues(io.BytesIO(content)).load()
    except Exception as error:
        raise FileJournalError(
            f"not a .meta of a FileJournal, or one that is damaged: {error}", path=path
        ) from error
    if not isinstance(fields, dict):
        raise FileJournalError("a .meta that is no dictionary", path=path)
    term, vote = fields.get("currentTerm"), fields.get("votedForNodeId")
    commit = fields.get("raftCommitIndex", 1)
    for name, number in (("term", 0 if term is None else term), ("commit index", commit)):
        if not isinstance(number, int) or not 0 <= number < MAX_UINT64:
            raise FileJournalError(f"a .meta with the {name} {number!r}", path=path)
    if vote is not None and not isinstance(vote, str):
        raise FileJournalError(
            f"a vote for {vote!r}: raftwal knows node ids that are strings", path=path
        )
    return Meta(term, vote, commit)


def encode_meta(meta: Meta) -> bytes:
    """As PySyncObj writes it."""
    fields: dict[str, Any] = {"currentTerm": meta.term, "votedForNodeId": meta.vote}
    if meta.commit:
        fields["raftCommitIndex"] = meta.commit
    return pickle.dumps(fields, _PICKLE_PROTOCOL)


class _PlainValues(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
