"""Requests as etcd's servers put them into their log: ``InternalRaftRequest`` messages.

The field numbers are those of etcd's ``raft_internal.proto`` and ``rpc.proto``.
"""

from __future__ import annotations

from raftwal.wire.varint import encode_varint

_VARINT, _BYTES = 0, 2


def put(request_id: int, key: str, value: str, lease: int = 0) -> bytes:
    return _request(request_id, 4, _field(1, key) + _field(2, value) + _field(3, lease))


def delete(request_id: int, key: str) -> bytes:
    return _request(request_id, 5, _field(1, key))


def grant_lease(request_id: int, lease: int, seconds: int) -> bytes:
    return _request(request_id, 8, _field(1, seconds) + _field(2, lease))


def revoke_lease(request_id: int, lease: int) -> bytes:
    return _request(request_id, 9, _field(1, lease))


def _request(request_id: int, number: int, request: bytes) -> bytes:
    """The request itself, and a header (field 100) with the id of who waits for its answer."""
    return _field(number, request) + _field(100, _field(1, request_id))


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field as proto3 writes it: not at all when it is zero."""
    if not value:
        return b""
    if isinstance(value, int):
        return encode_varint(number << 3 | _VARINT) + encode_varint(value)
    data = value.encode() if isinstance(value, str) else value
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(data)) + data
