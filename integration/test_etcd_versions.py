"""Every release line of etcd, from 3.4 to the newest: the same log, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest
from beside_etcd import EtcdWays, RaftwalWays, Refused, Ways
from directories import contents_of
from etcd_packages import LINES, EtcdError, EtcdPackages
from log_scripts import (
    Append,
    Commit,
    Data,
    EtcdLog,
    RaftwalLog,
    Receive,
    ReopenStep,
    Save,
    SaveSnapshot,
    Script,
    Snapshot,
    Sync,
    Vote,
    calls_of,
    seeded_steps,
    write,
)

import raftwal
from raftwal import ConfState, Entry, EntryType, HardState, SnapshotMetadata, Snapshotter

NORMAL = EntryType.NORMAL
SEEDS = (1, 2, 3, 4)


def text(size: int, count: int = 1, kind: EntryType = NORMAL) -> list[Data]:
    return [Data(size, "text", kind)] * count


def appended(*sizes: int) -> Append:
    """Entries of these sizes, and a hard state that commits some of what is there."""
    return Append([Data(size, "random", NORMAL) for size in sizes], 0, True, 2)


def script(*steps: object, metadata: bytes | None = b"node 1", segment_bytes: int = 4096) -> Script:
    return Script(metadata, segment_bytes, calls_of(list(steps)))


SCRIPTS = {
    "nothing": script(),
    "no metadata": script(appended(5), metadata=None),
    "empty metadata": script(appended(5), metadata=b""),
    "data that is empty, and none": script(Append([*text(0), *text(-1), *text(1)], 0, True, 1)),
    "every type": script(*(Append(text(9, 2, kind), 0, True, 1) for kind in EntryType)),
    "no hard state": script(*(Append(text(300, 3), 0, False, 0) for _ in range(12))),
    "hard states only": script(Vote(0, 7), Vote(7, 2**64 - 1), Vote(14, 0), Vote(0, 1)),
    "commit index only": script(appended(9, 9, 9, 9), Commit(1), Commit(1), Sync(), Commit(1)),
    "replaced entries": script(appended(*[60] * 9), Append(text(70, 2), 5, True, 0), appended(80)),
    "a cut with every save": script(*[appended(20)] * 9, segment_bytes=1),
    "many segments": script(*[appended(700, 10, 500)] * 30),
    "around a sector": script(*(appended(size) for size in range(470, 500))),
    "larger than what is kept back": script(
        *[appended(size, 10) for size in (131_000, 131_072, 140_000, 270_000)],
        segment_bytes=1 << 17,
    ),
    "its own snapshots": script(*[appended(400, 400), Snapshot(1)] * 9),
    "a received snapshot": script(appended(9, 9), Receive(5), appended(9), Commit(3), Snapshot(0)),
    "opened again": script(
        *[appended(600), ReopenStep(0, 4096, False, False), appended(700, 700, 700)] * 6
    ),
    **{f"seed {seed}": script(*seeded_steps(seed, 25)) for seed in SEEDS},
}


@pytest.fixture(scope="module", params=LINES)
def etcd(request):
    with EtcdPackages(request.param) as packages:
        yield packages


def without_membership(written: Script) -> Script:
    """3.4's snapshot records have none."""
    calls = [
        SaveSnapshot(call.snapshot._replace(conf_state=None))
        if isinstance(call, SaveSnapshot)
        else call
        for call in written.calls
    ]
    return written._replace(calls=calls)


def answers(ways: Ways, directory: Path, starts: list[SnapshotMetadata]) -> dict[str, object]:
    """What is read from the beginning and from each snapshot, refusals without their reason."""
    found: dict[str, object] = {"open to append": ways.open_to_append(directory, starts[-1])}
    for start in [None, *starts]:
        found[f"read from {start}"] = ways.read(directory, start)
    return {
        name: "refused" if isinstance(answer, Refused) else answer for name, answer in found.items()
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_line_and_raftwal_write_the_same_files_and_read_each_others(etcd, tmp_path, name):
    written = SCRIPTS[name]
    if etcd.line == "3.4":
        written = without_membership(written)
    ours, etcds = tmp_path / "raftwal", tmp_path / "etcd"
    write(RaftwalLog(), ours, written)
    write(EtcdLog(etcd), etcds, written)
    assert contents_of(ours) == contents_of(etcds)

    vouched = raftwal.valid_snapshots(etcds)
    assert vouched == etcd.valid_snapshots(ours)
    # raftwal reads what etcd wrote, etcd what raftwal wrote; the bytes being the same or not.
    assert answers(RaftwalWays(), etcds, vouched) == answers(EtcdWays(etcd), ours, vouched)
    states = [raftwal.verify(etcds, start).hard_state for start in vouched[-1:]]
    if etcd.line != "3.4":
        assert states == [etcd.verify(ours, start) for start in vouched[-1:]]
    assert etcd.repair(ours)
    assert not raftwal.repair(etcds).repaired


def test_each_line_reads_memberships_that_raftwal_records(etcd, tmp_path):
    """3.4 passes over them; the later ones have them."""
    write(RaftwalLog(), tmp_path / "log", SCRIPTS["its own snapshots"])
    recorded = raftwal.valid_snapshots(tmp_path / "log")
    assert recorded[-1].conf_state is not None
    if etcd.line == "3.4":
        recorded = [snapshot._replace(conf_state=None) for snapshot in recorded]
    assert etcd.valid_snapshots(tmp_path / "log") == recorded
    assert etcd.read(tmp_path / "log", recorded[-1]).entries


def test_a_record_without_membership_is_read_by_each_line_and_written_by_the_oldest(etcd, tmp_path):
    """3.5 and later refuse to write one; the log takes it, the storage always gives one."""
    snapshot = SnapshotMetadata(1, 1)
    calls = [Save(HardState(1, 7, 1), [Entry(1, 1, b"")]), SaveSnapshot(snapshot)]
    written = Script(b"node 1", 4096, calls)
    write(RaftwalLog(), tmp_path / "raftwal", written)
    assert etcd.valid_snapshots(tmp_path / "raftwal")[-1] == snapshot
    assert etcd.read(tmp_path / "raftwal", snapshot).hard_state == HardState(1, 7, 1)
    if etcd.line == "3.4":
        write(EtcdLog(etcd), tmp_path / "etcd", written)
        assert contents_of(tmp_path / "etcd") == contents_of(tmp_path / "raftwal")
    else:
        etcd.create(tmp_path / "etcd", b"node 1", 4096)
        with pytest.raises(EtcdError, match="missing ConfState"):
            etcd.save_snapshot(snapshot)
        etcd.close()


@pytest.mark.parametrize(
    "snapshot",
    [
        raftwal.Snapshot(SnapshotMetadata(1, 1, ConfState()), b""),
        raftwal.Snapshot(SnapshotMetadata(7, 2, ConfState((1, 2, 3))), b"state"),
        raftwal.Snapshot(
            SnapshotMetadata(2**63, 2**64 - 1, ConfState((2**64 - 1, 0), (5,), (6,), (7, 8), True)),
            bytes(range(256)) * 500,
        ),
    ],
    ids=["empty", "small", "everything"],
)
def test_each_line_writes_and_reads_the_same_snapshot_file(etcd, tmp_path, snapshot):
    ours, etcds = tmp_path / "raftwal", tmp_path / "etcd"
    etcds.mkdir()
    Snapshotter(ours).save(snapshot)
    etcd.snap_save(etcds, snapshot)
    assert contents_of(ours) == contents_of(etcds)
    assert etcd.snap_load(ours) == Snapshotter(etcds).load() == snapshot
    vouched = [snapshot.metadata]
    assert etcd.snap_load_newest(ours, vouched) == Snapshotter(etcds).load_newest(vouched)
