"""Model objects to bytes and back: the payloads of records and snapshot files.

Written by hand where it is hot (entries, hard states) or where bytes must match
etcd's, which writes some fields even at zero and never packs repeated ones.  Read by
hand on the usual layout; anything else goes through protobuf itself, so what is
accepted is what protobuf accepts, less unknown fields.
"""

from __future__ import annotations

from raftwal.errors import RecordFormatError
from raftwal.model import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    Snapshot,
    SnapshotMetadata,
)
from raftwal.wire.schema import (
    PbEntry,
    PbHardState,
    PbSnapshot,
    PbSnapshotFile,
    PbSnapshotRecord,
    parse,
)
from raftwal.wire.varint import decode_varint, encode_varint

_ENTRY_TYPES = tuple(EntryType)


def encode_entry(entry: tuple[int, int, bytes | None, int]) -> bytes:
    """An entry as etcd writes it: type, term and index always, data unless ``None``."""
    term, index, data, entry_type = entry
    head = b"\x08%c\x10%b\x18%b" % (entry_type, encode_varint(term), encode_varint(index))
    if data is None:
        return head
    return b'%b"%b%b' % (head, encode_varint(len(data)), data)


def entry_bytes(entry: tuple[int, int, bytes | None, int]) -> int:
    """How many bytes `encode_entry` makes of it: what Raft counts when it limits a message."""
    term, index, data, _ = entry
    size = 4 + len(encode_varint(term)) + len(encode_varint(index))
    if data is None:
        return size
    return size + 1 + len(encode_varint(len(data))) + len(data)


def decode_entry(data: bytes) -> Entry:
    """The entry in a record's payload.

    Raises `RecordFormatError` for anything that is not one.
    """
    try:
        return _decode_usual_entry(data)
    except (ValueError, IndexError):
        pass
    message = parse(PbEntry, data)
    if message.Type not in (0, 1, 2):
        raise RecordFormatError(f"an entry of unknown type {message.Type}")
    return Entry(
        message.Term,
        message.Index,
        message.Data if message.HasField("Data") else None,
        _ENTRY_TYPES[message.Type],
    )


def _decode_usual_entry(data: bytes) -> Entry:
    if data[0] != 0x08 or data[2] != 0x10:
        raise ValueError
    end = len(data)
    entry_type = _ENTRY_TYPES[data[1]]
    term, position = decode_varint(data, 3, end)
    if data[position] != 0x18:
        raise ValueError
    index, position = decode_varint(data, position + 1, end)
    if position == end:
        return Entry(term, index, None, entry_type)
    if data[position] != 0x22:
        raise ValueError
    # protobuf takes no length of more than five bytes.
    length, position = decode_varint(data, position + 1, min(end, position + 6))
    if position + length != end:
        raise ValueError
    return Entry(term, index, data[position:], entry_type)


def encode_hard_state(state: HardState) -> bytes:
    """A hard state as etcd writes it: all three fields, always."""
    return b"\x08%b\x10%b\x18%b" % (
        encode_varint(state.term),
        encode_varint(state.vote),
        encode_varint(state.commit),
    )


def decode_hard_state(data: bytes) -> HardState:
    """Raises `RecordFormatError`."""
    try:
        return _decode_usual_hard_state(data)
    except (ValueError, IndexError):
        pass
    message = parse(PbHardState, data)
    return HardState(message.term, message.vote, message.commit)


def _decode_usual_hard_state(data: bytes) -> HardState:
    end = len(data)
    if data[0] != 0x08:
        raise ValueError
    term, position = decode_varint(data, 1, end)
    if data[position] != 0x10:
        raise ValueError
    vote, position = decode_varint(data, position + 1, end)
    if data[position] != 0x18:
        raise ValueError
    commit, position = decode_varint(data, position + 1, end)
    if position != end:
        raise ValueError
    return HardState(term, vote, commit)


def encode_conf_state(conf_state: ConfState) -> bytes:
    """A membership as etcd writes it: ids unpacked, ``auto_leave`` always."""
    parts = []
    for tag, ids in (
        (b"\x08", conf_state.voters),
        (b"\x10", conf_state.learners),
        (b"\x18", conf_state.voters_outgoing),
        (b"\x20", conf_state.learners_next),
    ):
        parts += [tag + encode_varint(node_id) for node_id in ids]
    parts.append(b"\x28\x01" if conf_state.auto_leave else b"\x28\x00")
    return b"".join(parts)


def _conf_state_of(message: object) -> ConfState:
    return ConfState(
        tuple(message.voters),  # type: ignore[attr-defined]  # protobuf messages are made at run time
        tuple(message.learners),  # type: ignore[attr-defined]
        tuple(message.voters_outgoing),  # type: ignore[attr-defined]
        tuple(message.learners_next),  # type: ignore[attr-defined]
        bool(message.auto_leave),  # type: ignore[attr-defined]
    )


def encode_snapshot_record(snapshot: SnapshotMetadata) -> bytes:
    """The payload of a snapshot record in the log; the membership only when given."""
    head = b"\x08%b\x10%b" % (encode_varint(snapshot.index), encode_varint(snapshot.term))
    if snapshot.conf_state is None:
        return head
    conf_state = encode_conf_state(snapshot.conf_state)
    return b"%b\x1a%b%b" % (head, encode_varint(len(conf_state)), conf_state)


def decode_snapshot_record(data: bytes) -> SnapshotMetadata:
    """Raises `RecordFormatError`."""
    message = parse(PbSnapshotRecord, data)
    conf_state = _conf_state_of(message.conf_state) if message.HasField("conf_state") else None
    return SnapshotMetadata(message.index, message.term, conf_state)


def snapshot_around(metadata: SnapshotMetadata, size: int) -> tuple[bytes, bytes]:
    """What a raft ``Snapshot`` message has before and after its ``size`` bytes of data.

    Raises ``ValueError`` for numbers that do not fit the format.
    """
    index, term, conf_state = metadata
    conf_bytes = encode_conf_state(conf_state or ConfState())
    message = b"\x0a%b%b\x10%b\x18%b" % (
        encode_varint(len(conf_bytes)),
        conf_bytes,
        encode_varint(index),
        encode_varint(term),
    )
    return b"\x0a" + encode_varint(size), b"\x12%b%b" % (encode_varint(len(message)), message)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """A raft ``Snapshot`` message: the inside of a ``.snap`` file."""
    before, after = snapshot_around(snapshot.metadata, len(snapshot.data))
    return b"".join((before, snapshot.data, after))


def decode_snapshot(data: bytes) -> Snapshot:
    """Raises `RecordFormatError`."""
    message = parse(PbSnapshot, data)
    metadata = message.metadata
    return Snapshot(
        SnapshotMetadata(metadata.index, metadata.term, _conf_state_of(metadata.conf_state)),
        message.data,
    )


def snapshot_file_head(crc: int, size: int) -> bytes:
    """What a ``.snap`` file has before its ``size`` bytes of data: their checksum, their size."""
    return b"\x08%b\x12%b" % (encode_varint(crc), encode_varint(size))


def encode_snapshot_file(crc: int, data: bytes) -> bytes:
    """A ``.snap`` file: the checksum of ``data``, then ``data``."""
    return snapshot_file_head(crc, len(data)) + data


def decode_snapshot_file(data: bytes) -> tuple[int, bytes]:
    """``(crc, data)`` of a ``.snap`` file.  Raises `RecordFormatError`."""
    message = parse(PbSnapshotFile, data)
    return message.crc, message.data
