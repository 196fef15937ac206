"""Whose log it is: kept in the metadata of every segment."""

from __future__ import annotations

from typing import NamedTuple

from raftwal.errors import RecordFormatError
from raftwal.wire.schema import PbIdentity, parse

FORMAT_VERSION = 1


class Identity(NamedTuple):
    """Whose data directory it is, kept in the metadata of every segment."""

    node_id: str
    cluster_name: str = ""
    format_version: int = FORMAT_VERSION

    def encode(self) -> bytes:
        """The bytes that go into the log's metadata."""
        message = PbIdentity(
            format_version=self.format_version,
            node_id=self.node_id,
            cluster_name=self.cluster_name,
        )
        return bytes(message.SerializeToString(deterministic=True))

    @classmethod
    def decode(cls, metadata: bytes | None) -> Identity | None:
        """The identity in a log's metadata, or ``None`` when it holds something else."""
        try:
            message = parse(PbIdentity, metadata or b"")
        except RecordFormatError:
            return None
        if not message.HasField("format_version"):
            return None
        return cls(message.node_id, message.cluster_name, message.format_version)
