"""The peers: what they are called, what they are written in, and what they take to be there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class KnownPeer(NamedTuple):
    """``program`` is one of those that `building` makes; ``package`` a Python package it needs."""

    title: str
    program: str
    package: str = ""
    environment: Mapping[str, str] = {}


OWN = "raftwal"
PURE = "raftwal-pure"
REFERENCE = "etcd"
"""The peer that the aims are about."""

PEERS: dict[str, KnownPeer] = {
    OWN: KnownPeer("raftwal", "python"),
    PURE: KnownPeer("raftwal, pure Python", "python", environment={"RAFTWAL_PURE_PYTHON": "1"}),
    REFERENCE: KnownPeer("etcd 3.7", "go"),
    "etcd-3.4": KnownPeer("etcd 3.4", "go-etcd-3.4"),
    "raft-wal": KnownPeer("hashicorp/raft-wal", "go"),
    "raft-boltdb": KnownPeer("hashicorp/raft-boltdb", "go"),
    "tidwall": KnownPeer("tidwall/wal", "go"),
    "raft-engine": KnownPeer("raft-engine", "rust"),
    "file-journal": KnownPeer("PySyncObj's FileJournal", "python", "pysyncobj"),
    "sqlite": KnownPeer("SQLite", "python"),
    "lmdb": KnownPeer("LMDB", "python", "lmdb"),
    "rocksdb": KnownPeer("RocksDB", "python", "rocksdict"),
}
ALONE = (OWN, PURE)
WITH_CHECKSUM = (OWN, PURE, REFERENCE)
"""Those whose program has a CRC-32C to measure: raftwal's, google-crc32c's and Go's."""


def title(name: str) -> str:
    return PEERS[name].title
