"""The message classes of ``raft.proto`` and ``wal.proto``, declared at run time.

They live in a descriptor pool of their own: an application that has etcd's generated
modules loaded may register messages of the same names in the default pool.  Declaring
them here also frees raftwal from the version checks of generated code, so that any
protobuf runtime in the supported range will do.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from raftwal.errors import RecordFormatError
from raftwal.wire.varint import decode_varint

_FIELD = descriptor_pb2.FieldDescriptorProto

_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}

# file -> package, imports, {message: [(number, name, type, repeated)]}
FILES: dict[str, tuple[str, list[str], dict[str, list[tuple[int, str, str, bool]]]]] = {
    "raft.proto": (
        "raftwal.raft",
        [],
        {
            "Entry": [
                (1, "Type", "int32", False),
                (2, "Term", "uint64", False),
                (3, "Index", "uint64", False),
                (4, "Data", "bytes", False),
            ],
            "HardState": [
                (1, "term", "uint64", False),
                (2, "vote", "uint64", False),
                (3, "commit", "uint64", False),
            ],
            "ConfState": [
                (1, "voters", "uint64", True),
                (2, "learners", "uint64", True),
                (3, "voters_outgoing", "uint64", True),
                (4, "learners_next", "uint64", True),
                (5, "auto_leave", "bool", False),
            ],
            "SnapshotMetadata": [
                (1, "conf_state", ".raftwal.raft.ConfState", False),
                (2, "index", "uint64", False),
                (3, "term", "uint64", False),
            ],
            "Snapshot": [
                (1, "data", "bytes", False),
                (2, "metadata", ".raftwal.raft.SnapshotMetadata", False),
            ],
        },
    ),
    "wal.proto": (
        "raftwal.wal",
        ["raft.proto"],
        {
            "Record": [
                (1, "type", "int64", False),
                (2, "crc", "uint32", False),
                (3, "data", "bytes", False),
            ],
            "SnapshotRecord": [
                (1, "index", "uint64", False),
                (2, "term", "uint64", False),
                (3, "conf_state", ".raftwal.raft.ConfState", False),
            ],
            "SnapshotFile": [
                (1, "crc", "uint32", False),
                (2, "data", "bytes", False),
            ],
            "Identity": [
                (1, "format_version", "uint32", False),
                (2, "node_id", "string", False),
                (3, "cluster_name", "string", False),
            ],
            "PySyncObjSnapshot": [
                (1, "format_version", "uint32", False),
                (2, "previous", ".raftwal.raft.Entry", False),
                (3, "last", ".raftwal.raft.Entry", False),
                (4, "dump", "bytes", False),
                (5, "node_ids", "string", True),
            ],
        },
    ),
}


def file_descriptor(file_name: str) -> descriptor_pb2.FileDescriptorProto:
    """The declaration of one file as protobuf's own descriptor message."""
    package, imports, messages = FILES[file_name]
    file = descriptor_pb2.FileDescriptorProto(name=file_name, package=package, syntax="proto2")
    file.dependency.extend(imports)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, name, type_name, repeated in fields:
            field = message.field.add(name=name, number=number)
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if type_name.startswith("."):
                field.type = _FIELD.TYPE_MESSAGE
                field.type_name = type_name
            else:
                field.type = _SCALARS[type_name]
    return file


_pool = descriptor_pool.DescriptorPool()
for _file_name in FILES:
    _pool.Add(file_descriptor(_file_name))


def _message_class(full_name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(full_name))


PbEntry = _message_class("raftwal.raft.Entry")
PbHardState = _message_class("raftwal.raft.HardState")
PbConfState = _message_class("raftwal.raft.ConfState")
PbSnapshot = _message_class("raftwal.raft.Snapshot")
PbRecord = _message_class("raftwal.wal.Record")
PbSnapshotRecord = _message_class("raftwal.wal.SnapshotRecord")
PbSnapshotFile = _message_class("raftwal.wal.SnapshotFile")
PbIdentity = _message_class("raftwal.wal.Identity")
PbPySyncObjSnapshot = _message_class("raftwal.wal.PySyncObjSnapshot")


_Shape = dict[int, "str | _Shape"]
"""What follows each key (number and wire type) that a message may have: a type's name, or
a message."""


def _shapes() -> dict[str, _Shape]:
    shapes: dict[str, _Shape] = {}
    for package, _, messages in FILES.values():
        for message_name, fields in messages.items():
            shape = shapes[f"{package}.{message_name}"] = {}
            for number, _, type_name, repeated in fields:
                if type_name.startswith("."):
                    shape[number << 3 | _LENGTH] = shapes[type_name[1:]]
                elif type_name in ("bytes", "string"):
                    shape[number << 3 | _LENGTH] = type_name
                else:
                    shape[number << 3] = type_name
                    if repeated:
                        shape[number << 3 | _LENGTH] = "packed"
    return shapes


# The wire type of what begins with its length; that of a number is 0.
_LENGTH = 2
_SHAPES = _shapes()


def parse(message_class: Any, data: bytes) -> Any:
    """Parse ``data`` strictly: a field that the schema does not have is an error, and so is
    text that is not UTF-8.

    A checksum does not cover a record's type, so a flipped bit can present an entry
    as a hard state.  Unknown fields are what gives that away.

    Raises `RecordFormatError`, without a place: the caller knows that.
    """
    message = message_class()
    descriptor = message_class.DESCRIPTOR
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf's backends raise different types
        raise RecordFormatError(f"bytes that are not a {descriptor.name} message") from error
    what = _outside_schema(_SHAPES[descriptor.full_name], data, 0, len(data))
    if what is not None:
        raise RecordFormatError(f"a {descriptor.name} message with {what}")
    return message


def _outside_schema(shape: _Shape, data: bytes, position: int, end: int) -> str | None:
    """What a message that parses has beyond its declaration, or ``None``.

    protobuf's own list of unknown fields takes a hundred times the bytes that they have.
    """
    while position < end:
        key, position = decode_varint(data, position, end)
        kind = shape.get(key)
        if kind is None:
            return "unknown fields"
        if key & 7 != _LENGTH:
            while data[position] & 0x80:
                position += 1
            position += 1
            continue
        length, position = decode_varint(data, position, end)
        what = None
        if kind == "string":
            try:
                data[position : position + length].decode()
            except UnicodeDecodeError:
                what = "text that is not UTF-8"
        elif not isinstance(kind, str):
            what = _outside_schema(kind, data, position, position + length)
        if what is not None:
            return what
        position += length
    return None
