"""Any bytes as a record, a payload, a snapshot file, PySyncObj's envelope or an identity."""

from __future__ import annotations

import struct
from typing import Any

import google_crc32c

from fuzzing import log_model
from fuzzing.memory_files import MemoryFiles
from fuzzing.message_mutation import fields_of
from raftwal import (
    ConfState,
    Entry,
    HardState,
    Identity,
    Snapshot,
    SnapshotMetadata,
    Snapshotter,
)
from raftwal.errors import NoSnapshotError, RecordFormatError, SnapshotFileError
from raftwal.pysyncobj.dump import Dump
from raftwal.snapshots import SnapshotName
from raftwal.wire import schema
from raftwal.wire.frames import decode_length_field, decode_record
from raftwal.wire.messages import (
    decode_entry,
    decode_hard_state,
    decode_snapshot,
    decode_snapshot_file,
    decode_snapshot_record,
    encode_entry,
    encode_hard_state,
    encode_snapshot,
    encode_snapshot_file,
    encode_snapshot_record,
)

SNAP = "/snap"


def _decoded(decode: Any, *arguments: Any) -> Any:
    try:
        return decode(*arguments)
    except RecordFormatError:
        return None


def record(data: bytes) -> None:
    """The bytes as a length field, as a Record message, and as each of the payloads."""
    _check_length_field(data)
    found = _decoded(decode_record, data, 0, len(data))
    assert found == log_model.record_of(data)
    # What stands around it is none of its business.
    assert found == _decoded(decode_record, b"\x08" + data + b"\x1a\0", 1, 1 + len(data))
    for decode, model, encode in (
        (decode_entry, log_model.entry, encode_entry),
        (decode_hard_state, log_model.hard_state, encode_hard_state),
        (decode_snapshot_record, log_model.snapshot_record, encode_snapshot_record),
        (decode_snapshot, _snapshot, encode_snapshot),
        (decode_snapshot_file, _snapshot_file, lambda pair: encode_snapshot_file(*pair)),
    ):
        value = _decoded(decode, data)
        assert value == model(data), decode
        if value is not None:
            assert decode(encode(value)) == value
    for value in (_decoded(decode_entry, data), _decoded(decode_hard_state, data)):
        assert value is None or type(value) in (Entry, HardState)


def _check_length_field(data: bytes) -> None:
    if len(data) < 8:
        return
    (field,) = struct.unpack_from("<Q", data)
    length, top = field & (1 << 56) - 1, field >> 56
    found = _decoded(decode_length_field, data, 0)
    if top == (0x80 + -length % 8 if length % 8 else 0):
        assert found == (length, -length % 8)
    else:
        assert found is None


def _snapshot(data: bytes) -> Snapshot | None:
    parsed = log_model.message(schema.PbSnapshot, data)
    if parsed is None:
        return None
    metadata = parsed.metadata
    members = log_model.conf_state(metadata.conf_state)
    return Snapshot(SnapshotMetadata(metadata.index, metadata.term, members), parsed.data)


def _snapshot_file(data: bytes) -> tuple[int, bytes] | None:
    parsed = log_model.message(schema.PbSnapshotFile, data)
    return None if parsed is None else (parsed.crc, parsed.data)


def snapshot_file(data: bytes) -> None:
    """The bytes as a file whose name fits what is in it, if that can be told."""
    pair = _snapshot_file(data)
    content = _snapshot(pair[1]) if pair is not None else None
    is_whole = content is not None and bool(pair[1]) and google_crc32c.extend(0, pair[1]) == pair[0]
    metadata = content.metadata if content is not None else SnapshotMetadata(5, 2)
    name = SnapshotName(metadata.term, metadata.index)
    files = {str(name): data}
    fs = MemoryFiles(files, SNAP)
    snapshotter = Snapshotter(SNAP, fs=fs)
    # By its name alone: another index is another file.
    other = SnapshotName(metadata.term, metadata.index ^ 1)
    strange = MemoryFiles({str(other): data}, SNAP)
    for found in (
        _snapshot_or_none(lambda: _read_in_pieces(snapshotter, name)),
        _snapshot_or_none(lambda: snapshotter.read(name)),
        _snapshot_or_none(snapshotter.load),
        _snapshot_or_none(lambda: snapshotter.load_newest([metadata])),
    ):
        assert found == (content if is_whole else None)
    assert fs.contents() == (files if is_whole else {f"{name}.broken": data})
    assert _snapshot_or_none(Snapshotter(SNAP, fs=strange).load) is None
    assert strange.contents() == {f"{other}.broken": data}


def _read_in_pieces(snapshotter: Snapshotter, name: SnapshotName) -> Snapshot:
    with snapshotter.open(name) as reader:
        return Snapshot(reader.metadata, b"".join(reader.chunks()))


def _snapshot_or_none(load: Any) -> Snapshot | None:
    try:
        return load()
    except (SnapshotFileError, NoSnapshotError) as error:
        str(error)
        return None


def pysyncobj_snapshot(data: bytes) -> None:
    """The bytes as the envelope around PySyncObj's dump."""
    snapshot = Snapshot(SnapshotMetadata(5, 2, ConfState()), data)
    parsed = log_model.message(schema.PbPySyncObjSnapshot, data)
    try:
        dump = Dump.of_snapshot(snapshot)
    except SnapshotFileError as error:
        str(error)
        assert parsed is None or parsed.format_version != 1 or not _is_text(data, 5)
        return
    assert parsed.format_version == 1
    assert _is_text(data, 5)
    for found, wanted in ((dump.previous, parsed.previous), (dump.last, parsed.last)):
        assert found == (wanted.Data, wanted.Index, wanted.Term)
    assert dump.content == parsed.dump
    assert dump.node_ids == tuple(parsed.node_ids)
    again = dump.to_snapshot()
    assert Dump.of_snapshot(again) == dump
    assert again.metadata[:2] == (dump.last_index, parsed.last.Term)


def identity(data: bytes) -> None:
    """The bytes as a log's metadata, which may hold anything."""
    found = Identity.decode(data)
    parsed = log_model.message(schema.PbIdentity, data)
    if parsed is None or not parsed.HasField("format_version") or not _is_text(data, 2, 3):
        assert found is None
    else:
        assert found == (parsed.node_id, parsed.cluster_name, parsed.format_version)
        assert Identity.decode(found.encode()) == found


def _is_text(data: bytes, *numbers: int) -> bool:
    """Whether each field of these numbers is UTF-8: protobuf hands out bytes where it is not."""
    for key, value in fields_of(data) or ():
        if key >> 3 in numbers and isinstance(value, bytes):
            try:
                value.decode()
            except UnicodeDecodeError:
                return False
    return True
