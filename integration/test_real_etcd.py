"""raftwal and a real etcd server read each other's files."""

from __future__ import annotations

import shutil

import etcd_member
import pytest
from etcd_server import EtcdServer

import raftwal
from raftwal import WAL, HardState


@pytest.fixture
def server(tmp_path):
    made = EtcdServer(tmp_path)
    yield made
    made.kill()


def fill(server: EtcdServer) -> dict[str, str]:
    """Puts and deletes, enough for a snapshot (one in every fifty entries)."""
    expected = {}
    for number in range(130):
        server.put(f"key{number % 60}", f"value{number}")
        expected[f"key{number % 60}"] = f"value{number}"
    for number in range(5):
        server.delete(f"key{number}")
        del expected[f"key{number}"]
    return expected


def test_raftwal_reads_what_a_killed_etcd_server_left(server):
    server.start()
    fill(server)
    status = server.status()
    server.kill()
    snapshot, log = etcd_member.read_member(server.member_dir)
    assert snapshot.metadata.index >= 100
    assert log.entries[0].index == snapshot.metadata.index + 1
    assert log.entries[-1].index == status.commit
    assert log.hard_state.term == status.term
    assert log.hard_state.vote == status.member_id
    report = raftwal.verify(server.wal_dir)
    assert report.torn_tail is None
    assert any(b"value129" in (entry.data or b"") for entry in log.entries)


def test_etcd_starts_from_a_log_that_raftwal_wrote_and_serves_what_is_in_it(server, tmp_path):
    server.start()
    expected = fill(server)
    server.kill()

    whole = WAL.open_for_read(server.wal_dir).read_all()
    server.data_dir.rename(tmp_path / "original")
    server.member_dir.mkdir(parents=True, mode=0o700)
    server.data_dir.chmod(0o700)
    shutil.copytree(tmp_path / "original/member/snap", server.snap_dir)
    # The backend goes too: etcd has to rebuild it from the log alone.
    snapshots = list((server.snap_dir).iterdir())
    for path in snapshots:
        path.unlink()
    with WAL.create(server.wal_dir, whole.metadata, segment_bytes=8192) as wal:
        state = whole.hard_state
        for start in range(0, len(whole.entries), 7):
            batch = whole.entries[start : start + 7]
            wal.save(HardState(state.term, state.vote, batch[-1].index), batch)
    assert len(server.segments()) > 1

    server.start()
    assert server.everything() == expected
    server.put("after", "written by etcd behind raftwal's entries")
    server.kill()
    log = WAL.open_for_read(server.wal_dir).read_all()
    assert len(log.entries) > len(whole.entries)
    assert log.entries[: len(whole.entries)] == whole.entries


def test_etcd_goes_on_where_raftwal_appended_to_its_own_log(server):
    """raftwal opens etcd's log to append, saves a hard state, and etcd accepts it."""
    server.start()
    expected = fill(server)
    server.kill()
    snapshot, log = etcd_member.read_member(server.member_dir)
    last = log.entries[-1].index
    with WAL.open(server.wal_dir, snapshot.metadata) as wal:
        wal.read_all()
        state = log.hard_state
        wal.save(HardState(state.term + 1, 0, last))
    server.start()
    assert server.everything() == expected
    assert server.status().term > state.term
