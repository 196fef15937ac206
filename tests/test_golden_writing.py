"""The same calls give the same bytes as etcd's own package."""

import pytest
from directories import contents_of
from golden_directories import SCRIPTED, bytes_of, entry_of, script, state_of, unpack

from raftwal import WAL, SnapshotMetadata


def perform(calls, directory):
    wal = None
    for call in calls:
        match call["op"]:
            case "create":
                wal = WAL.create(
                    directory, bytes_of(call["metadata"]), segment_bytes=call["segment_bytes"]
                )
            case "save":
                wal.save(state_of(call["state"]), [entry_of(entry) for entry in call["entries"]])
            case "snapshot":
                wal.save_snapshot(SnapshotMetadata(call["index"], call["term"]))
            case "sync":
                wal.sync()
            case "close":
                wal.close()
            case unknown:
                raise AssertionError(f"a call this test does not know: {unknown}")


@pytest.mark.parametrize("name", SCRIPTED)
def test_same_calls_give_the_files_that_etcd_wrote(name, tmp_path):
    """Names, sizes and contents, and no prepared ``*.tmp`` is left after close."""
    perform(script(name), tmp_path / "ours")
    ours, etcds = contents_of(tmp_path / "ours"), contents_of(unpack(name, tmp_path))
    assert list(ours) == list(etcds)
    for file_name, (size, data) in etcds.items():
        assert ours[file_name][0] == size, file_name
        assert ours[file_name][1] == data, file_name


def test_there_are_golden_scripts():
    assert len(SCRIPTED) >= 5
    assert any(call["op"] == "snapshot" for name in SCRIPTED for call in script(name))
