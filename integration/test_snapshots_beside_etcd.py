"""Snapshot files of raftwal and of the newest etcd: the same bytes, the same decisions.

``RAFTWAL_ETCD_SCRIPTS`` is how many examples each test draws, 150 by default.
"""

from __future__ import annotations

import io
import os
import random
import tempfile
from pathlib import Path

import google_crc32c
import pytest
from damage import Damage, in_one_segment
from etcd_packages import EtcdError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftwal import ConfState, RaftwalError, Snapshot, SnapshotMetadata, Snapshotter
from raftwal.wire.messages import encode_snapshot

drawn = settings(
    max_examples=int(os.environ.get("RAFTWAL_ETCD_SCRIPTS", "150")),
    derandomize="RAFTWAL_ETCD_SCRIPTS" not in os.environ,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
NUMBERS = st.one_of(st.integers(1, 20), st.integers(1, 2**64 - 1))
IDS = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)), max_size=4).map(tuple)
MEMBERS = st.builds(ConfState, IDS, IDS, IDS, IDS, st.booleans())
SNAPSHOTS = st.builds(
    Snapshot,
    st.builds(SnapshotMetadata, NUMBERS, NUMBERS, MEMBERS),
    st.one_of(st.binary(max_size=40), st.integers(0, 200_000).map(lambda n: b"state " * (n // 6))),
)
# A few terms and indexes, so that there are several files, in another order than they were made.
SEVERAL = st.lists(
    st.builds(
        Snapshot,
        st.builds(SnapshotMetadata, st.integers(1, 5), st.integers(1, 3), MEMBERS),
        st.binary(min_size=1, max_size=2000),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda snapshot: snapshot.metadata[:2],
)
FILE_DAMAGE = st.builds(
    Damage,
    st.sampled_from(
        [
            "truncate",
            "flip a bit",
            "set a byte",
            "zero a sector",
            "zero the rest",
            "garbage at the end",
            "empty a segment",
        ]
    ),
    st.just(0.0),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 1 << 16),
)


@pytest.fixture
def directories(tmp_path):
    return made(tmp_path)


def made(root: Path) -> tuple[Path, Path]:
    """raftwal's directory, and etcd's."""
    ours, etcds = root / "raftwal", root / "etcd"
    ours.mkdir()
    etcds.mkdir()
    return ours, etcds


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def file_name(snapshot: Snapshot) -> str:
    return f"{snapshot.metadata.term:016x}-{snapshot.metadata.index:016x}.snap"


def outcome(load, *arguments) -> Snapshot | None:
    """The snapshot, or ``None`` when there is none to load."""
    try:
        return load(*arguments)
    except (RaftwalError, EtcdError):
        return None


@drawn
@given(snapshot=SNAPSHOTS)
def test_the_same_snapshot_gives_the_same_file_and_each_loads_the_others(etcd, snapshot):
    with tempfile.TemporaryDirectory() as root:
        ours, etcds = made(Path(root))
        Snapshotter(ours).save(snapshot)
        etcd.snap_save(etcds, snapshot)
        assert files(ours) == files(etcds)
        assert etcd.snap_load(ours) == Snapshotter(etcds).load() == snapshot
        assert etcd.snap_read(ours / file_name(snapshot)) == snapshot


@drawn
@given(
    snapshots=SEVERAL,
    damages=st.lists(st.tuples(st.integers(0, 4), FILE_DAMAGE), max_size=3),
    vouched=st.sets(st.integers(0, 4)),
)
def test_of_damaged_files_both_load_the_same_and_set_the_same_aside(
    etcd, snapshots, damages, vouched
):
    """One difference: etcd reads, and sets aside, also what the log does not vouch for.

    raftwal tells that by the name, and leaves the file alone.
    """
    with tempfile.TemporaryDirectory() as root:
        ours, etcds = made(Path(root))
        for snapshot in snapshots:
            Snapshotter(ours).save(snapshot)
        for number, damage in damages:
            path = ours / file_name(snapshots[number % len(snapshots)])
            if data := path.read_bytes():
                path.write_bytes(in_one_segment(damage, data)[0])
        for name, data in files(ours).items():
            (etcds / name).write_bytes(data)
        records = [snapshots[number % len(snapshots)].metadata for number in sorted(vouched)]
        loaded = outcome(Snapshotter(ours).load_newest, records)
        assert loaded == outcome(etcd.snap_load_newest, etcds, records)
        names = {file_name(Snapshot(record)) for record in records}
        for name in files(etcds):
            original = name.removesuffix(".broken")
            if name.endswith(".broken") and original not in names:
                (etcds / name).rename(etcds / original)
        assert files(ours) == files(etcds)
        assert outcome(Snapshotter(ours).load) == outcome(etcd.snap_load, etcds)
        assert files(ours) == files(etcds)


def test_both_pass_over_files_that_are_no_snapshots(etcd, directories):
    for directory in directories:
        Snapshotter(directory).save(Snapshot(SnapshotMetadata(3, 1, ConfState((1,))), b"three"))
        (directory / "0000000000000001-0000000000000004.snap.tmp").write_bytes(b"half")
        (directory / "0000000000000001-0000000000000005.snap.broken").write_bytes(b"broken")
        (directory / "0000000000000006.snap.db").write_bytes(b"database")
        (directory / "db").write_bytes(b"backend")
    ours, etcds = directories
    assert Snapshotter(ours).load() == etcd.snap_load(etcds)
    assert files(ours) == files(etcds)


# Where they differ, and why.


def test_a_file_that_is_not_what_its_name_says_is_set_aside_by_raftwal_only(etcd, directories):
    """The name is what the log's record is compared with; etcd does not look at it."""
    snapshot = Snapshot(SnapshotMetadata(3, 1, ConfState((1,))), b"three")
    for directory in directories:
        path = Path(Snapshotter(directory).save(snapshot))
        path.rename(directory / "0000000000000001-0000000000000009.snap")
    ours, etcds = directories
    assert outcome(Snapshotter(ours).load) is None
    assert list(files(ours)) == ["0000000000000001-0000000000000009.snap.broken"]
    assert etcd.snap_load(etcds) == snapshot


def test_a_file_with_a_field_that_the_format_does_not_have_is_set_aside_by_raftwal_only(
    etcd, directories
):
    """What follows the message is not of it: something else was written into the file."""
    snapshot = Snapshot(SnapshotMetadata(3, 1, ConfState((1,))), b"three")
    for directory in directories:
        path = Path(Snapshotter(directory).save(snapshot))
        path.write_bytes(path.read_bytes() + b"\x28\x01")
    ours, etcds = directories
    assert outcome(Snapshotter(ours).load) is None
    assert etcd.snap_load(etcds) == snapshot


def test_a_snapshot_whose_checksum_is_zero_loads_in_raftwal_only(etcd, directories):
    """One snapshot in 2**32: etcd saves it, and then takes it for an empty one."""
    snapshot = with_checksum_zero()
    ours, etcds = directories
    Snapshotter(ours).save(snapshot)
    etcd.snap_save(etcds, snapshot)
    assert files(ours) == files(etcds)
    assert Snapshotter(etcds).load() == snapshot
    with pytest.raises(EtcdError, match="snap: empty snapshot"):
        etcd.snap_read(ours / file_name(snapshot))


def with_checksum_zero() -> Snapshot:
    """Which of some bits to flip: the checksum is linear in them, so that is an equation."""
    metadata = SnapshotMetadata(3, 1, ConfState((1,)))

    def checksum(data: bytes) -> int:
        return google_crc32c.value(encode_snapshot(Snapshot(metadata, data)))

    data = random.Random(1).randbytes(40)
    wanted = checksum(data)
    basis: dict[int, tuple[int, int]] = {}
    for bit in range(8 * len(data)):
        flipped = (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")
        change, bits = checksum(flipped) ^ wanted, 1 << bit
        while change and change.bit_length() in basis:
            other, others = basis[change.bit_length()]
            change, bits = change ^ other, bits ^ others
        if change:
            basis[change.bit_length()] = change, bits
    rest, flips = wanted, 0
    while rest:
        change, bits = basis[rest.bit_length()]
        rest, flips = rest ^ change, flips ^ bits
    data = (int.from_bytes(data, "little") ^ flips).to_bytes(len(data), "little")
    assert checksum(data) == 0
    return Snapshot(metadata, data)


# Databases beside the snapshots.


def test_databases_have_the_same_names_and_bytes_and_go_at_the_same_index(etcd, directories):
    ours, etcds = directories
    snapshotter = Snapshotter(ours)
    for index in (1, 5, 9, 2**64 - 1):
        data = b"%d " % index * 1000
        assert snapshotter.save_database(io.BytesIO(data), index) == len(data)
        assert etcd.snap_db_save(etcds, index, data) == len(data)
        # One that is there already stays.
        assert snapshotter.save_database(io.BytesIO(b"other"), index) == len(b"other")
        assert etcd.snap_db_save(etcds, index, b"other") == len(b"other")
    assert files(ours) == files(etcds)
    assert Path(snapshotter.database_path(5)).name == etcd.snap_db_path(etcds, 5).name
    snapshotter.release_databases(9)
    etcd.snap_db_release(etcds, SnapshotMetadata(9, 1))
    assert files(ours) == files(etcds)
    with pytest.raises(EtcdError, match="doesn't exist"):
        etcd.snap_db_path(etcds, 5)
    with pytest.raises(RaftwalError):
        snapshotter.database_path(5)
