"""The messages: declared at run time as the .proto files say, encoded as protobuf would."""

import contextlib
from pathlib import Path

import pytest
from directories import EMPTY_SNAPSHOT_RECORD
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from hypothesis import given, settings
from hypothesis import strategies as st

import raftwal.wire
from raftwal import ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata
from raftwal.errors import RecordFormatError
from raftwal.wire import frames, messages, schema
from raftwal.wire.varint import decode_varint, encode_varint

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

PROTO_DIRECTORY = Path(raftwal.wire.__file__).parent
UINT64 = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 127, 128, 1 << 63]))
UINT32 = st.integers(0, (1 << 32) - 1)
BYTES = st.binary(max_size=300)
ENTRIES = st.builds(
    Entry, UINT64, st.integers(1, (1 << 64) - 1), st.none() | BYTES, st.sampled_from(EntryType)
)
IDS = st.lists(UINT64, max_size=5).map(tuple)
CONF_STATES = st.builds(ConfState, IDS, IDS, IDS, IDS, st.booleans())
HARD_STATES = st.builds(HardState, UINT64, UINT64, UINT64)


@pytest.mark.parametrize("name", schema.FILES)
def test_declared_as_the_proto_file_says(name, tmp_path):
    """Fields, numbers, types and labels of every message."""
    compiled_path = tmp_path / "compiled"
    arguments = ["protoc", f"-I{PROTO_DIRECTORY}", f"--descriptor_set_out={compiled_path}", name]
    assert protoc.main(arguments) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(compiled_path.read_bytes()).file[0]
    declared = schema.file_descriptor(name)
    assert compiled.package == declared.package
    assert list(compiled.dependency) == list(declared.dependency)
    assert described(compiled) == described(declared)
    assert compiled.syntax in ("", "proto2") and declared.syntax == "proto2"
    assert len(compiled.message_type) >= 5


def described(file):
    return {
        message.name: [
            (field.number, field.name, field.type, field.label, field.type_name)
            for field in message.field
        ]
        for message in file.message_type
    }


def conf_message(conf_state):
    return schema.PbConfState(**conf_state._asdict())


def entry_message(entry):
    message = schema.PbEntry(Type=entry.type, Term=entry.term, Index=entry.index)
    if entry.data is not None:
        message.Data = entry.data
    return message


@given(ENTRIES)
def test_entry(entry):
    data = messages.encode_entry(entry)
    assert data == entry_message(entry).SerializeToString(deterministic=True)
    assert messages.decode_entry(data) == entry
    assert type(messages.decode_entry(data).type) is EntryType


@given(ENTRIES)
def test_entry_with_zero_fields_left_out(entry):
    """Newer etcd leaves out what is zero; both layouts say the same."""
    message = schema.PbEntry(Index=entry.index)
    if entry.type:
        message.Type = entry.type
    if entry.term:
        message.Term = entry.term
    if entry.data:
        message.Data = entry.data
    found = messages.decode_entry(message.SerializeToString())
    assert found == entry._replace(data=entry.data or None)


@given(HARD_STATES)
def test_hard_state(state):
    message = schema.PbHardState(**state._asdict())
    data = messages.encode_hard_state(state)
    assert data == message.SerializeToString(deterministic=True)
    assert messages.decode_hard_state(data) == state
    short = schema.PbHardState(**{name: value for name, value in state._asdict().items() if value})
    assert messages.decode_hard_state(short.SerializeToString()) == state


@given(UINT64, UINT64, st.none() | CONF_STATES)
def test_snapshot_record(index, term, conf_state):
    message = schema.PbSnapshotRecord(index=index, term=term)
    if conf_state is not None:
        message.conf_state.CopyFrom(conf_message(conf_state))
    snapshot = SnapshotMetadata(index, term, conf_state)
    data = messages.encode_snapshot_record(snapshot)
    assert data == message.SerializeToString(deterministic=True)
    assert messages.decode_snapshot_record(data) == snapshot


@given(UINT64, UINT64, CONF_STATES, BYTES)
def test_snapshot(index, term, conf_state, state):
    message = schema.PbSnapshot(data=state)
    message.metadata.index, message.metadata.term = index, term
    message.metadata.conf_state.CopyFrom(conf_message(conf_state))
    snapshot = Snapshot(SnapshotMetadata(index, term, conf_state), state)
    data = messages.encode_snapshot(snapshot)
    assert data == message.SerializeToString(deterministic=True)
    assert messages.decode_snapshot(data) == snapshot


@given(UINT32, BYTES)
def test_snapshot_file(crc, content):
    data = messages.encode_snapshot_file(crc, content)
    assert data == schema.PbSnapshotFile(crc=crc, data=content).SerializeToString()
    assert messages.decode_snapshot_file(data) == (crc, content)


@given(st.sampled_from(sorted(frames.RECORD_TYPES)), UINT32, st.none() | BYTES)
def test_frame(record_type, crc, content):
    """The length field, protobuf's own Record, and zeros up to a multiple of 8."""
    if record_type == frames.CRC:
        content = None
    message = schema.PbRecord(type=record_type, crc=crc)
    if content is not None:
        message.data = content
    record = message.SerializeToString(deterministic=True)
    frame = frames.encode_frame(record_type, content, crc)
    padding = -len(record) % 8
    field = len(record) | ((0x80 | padding) << 56 if padding else 0)
    assert frame == field.to_bytes(8, "little") + record + bytes(padding)
    assert frames.decode_length_field(frame, 0) == (len(record), padding)
    assert frames.decode_record(frame, 8, 8 + len(record)) == (record_type, crc, content)


@given(st.sampled_from([1, 2, 3, 5]), UINT32, BYTES)
def test_record_in_any_layout_that_protobuf_takes(record_type, crc, content):
    """Fields in another order, or a zero checksum left out."""
    parts = [schema.PbRecord(data=content), schema.PbRecord(type=record_type)]
    if crc:
        parts.insert(1, schema.PbRecord(crc=crc))
    data = b"".join(part.SerializeToString() for part in parts)
    assert frames.decode_record(data, 0, len(data)) == (record_type, crc, content)


@given(UINT64, st.binary(max_size=3), st.binary(max_size=3))
def test_varint(value, before, after):
    data = before + encode_varint(value) + after
    end = len(data) - len(after)
    assert decode_varint(data, len(before), len(data)) == (value, end)
    with pytest.raises(ValueError):
        decode_varint(data, len(before), end - 1)


@pytest.mark.parametrize("value", [-1, -(1 << 63), 1 << 64, 1 << 70])
def test_varint_that_does_not_fit_is_refused(value):
    with pytest.raises(ValueError):
        encode_varint(value)


@pytest.mark.parametrize("data", [b"\xff" * 10, b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02"])
def test_varint_of_more_than_64_bits_is_refused(data):
    with pytest.raises(ValueError):
        decode_varint(data, 0, len(data))


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(data):
    """Nothing but `RecordFormatError` comes out of the decoders."""
    for decode in (
        messages.decode_entry,
        messages.decode_hard_state,
        messages.decode_snapshot_record,
        messages.decode_snapshot,
        messages.decode_snapshot_file,
        lambda data: frames.decode_record(data, 0, len(data)),
    ):
        with contextlib.suppress(RecordFormatError):
            decode(data)


@pytest.mark.parametrize(
    "message",
    [schema.PbEntry, schema.PbHardState, schema.PbSnapshotRecord, schema.PbRecord],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_unknown_fields_are_refused(message):
    """A checksum does not cover a record's type: this is what shows a wrong one."""
    with pytest.raises(RecordFormatError, match="unknown fields"):
        schema.parse(message, b"\x78\x01")


def test_unknown_field_inside_a_membership_is_refused():
    with pytest.raises(RecordFormatError, match="unknown fields"):
        messages.decode_snapshot_record(EMPTY_SNAPSHOT_RECORD + b"\x1a\x02\x78\x01")


def test_membership_may_be_packed():
    """Newer writers of the same message may pack repeated numbers."""
    packed = EMPTY_SNAPSHOT_RECORD + b"\x1a\x05\x0a\x03\x01\x02\x03"
    assert messages.decode_snapshot_record(packed).conf_state.voters == (1, 2, 3)
