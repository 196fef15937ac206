"""What the command ``raftwal`` says of, and does to, directories that are torn or corrupt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from directories import entry_up_to_a_sector
from operated_directories import (
    contents,
    corrupt_entry,
    facts,
    fill,
    flip,
    make_data_dir,
    make_purged_data_dir,
    of_kind,
    open_storage,
    records,
    run,
    segments,
    tear,
)

from raftwal import WAL, Entry, HardState


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return make_data_dir(tmp_path / "node1")


@pytest.fixture
def purged(tmp_path: Path) -> Path:
    return make_purged_data_dir(tmp_path / "purged")


# A torn tail.


def test_a_torn_tail_is_shown_with_its_place(data_dir: Path) -> None:
    offset = tear(data_dir)
    result = run("dump", data_dir)
    assert result.returncode == 1
    assert "put 10 put 10" in result.stdout
    assert "torn tail" in result.stdout
    assert f"at byte {offset}" in result.stderr
    (torn,) = of_kind(facts("dump", data_dir, code=1), "torn_tail")
    assert torn["offset"] == offset
    assert torn["path"] == str(segments(data_dir)[-1])


def test_verify_reports_a_torn_tail_with_advice(data_dir: Path) -> None:
    offset = tear(data_dir)
    result = run("verify", data_dir)
    assert result.returncode == 1
    assert "verdict     torn" in result.stdout
    assert f"at byte {offset}" in result.stderr
    assert "raftwal repair" in result.stderr
    assert "corrupt" not in result.stderr


def test_repair_cuts_a_torn_tail_and_keeps_a_copy(data_dir: Path) -> None:
    offset = tear(data_dir)
    segment = segments(data_dir)[-1]
    before = segment.read_bytes()
    result = run("repair", data_dir)
    assert result.returncode == 0
    assert "12 bytes" in result.stdout
    assert f"{segment}.broken" in result.stdout
    assert result.stderr == ""
    assert Path(f"{segment}.broken").read_bytes() == before
    assert segment.read_bytes() == before[:offset]
    assert run("verify", data_dir).returncode == 0


def test_repair_for_a_program(data_dir: Path) -> None:
    offset = tear(data_dir)
    (row,) = facts("repair", data_dir)
    assert row["repaired"] is True
    assert row["offset"] == offset
    (row,) = facts("repair", data_dir)
    assert row["repaired"] is False


def test_repair_of_a_locked_log_is_refused(data_dir: Path) -> None:
    with open_storage(data_dir):
        os.truncate(segments(data_dir)[-1], int(records(data_dir)[-1]["offset"]) + 12)
        result = run("repair", data_dir)
    assert result.returncode == 2
    assert "open in another writer" in result.stderr


def test_a_log_that_a_node_has_open_can_be_looked_at(data_dir: Path) -> None:
    with open_storage(data_dir):
        assert run("dump", data_dir).returncode == 0
        assert run("verify", data_dir).returncode == 0


def lose_the_first_sector_of_the_last_save(data_dir: Path) -> tuple[int, int]:
    """As a crash may leave it; where the zeros begin, and where the next record does."""
    with open_storage(data_dir) as storage:
        filler = entry_up_to_a_sector(segments(data_dir)[-1].read_bytes(), 11, 2)
        storage.save(None, [filler])
        storage.save(
            HardState(2, 7, 11),
            [Entry(2, 12 + n, b"text" * size) for n, size in enumerate((9, 300, 5))],
        )
    *_, zeroed, _, follows, _ = (int(record["offset"]) for record in records(data_dir))
    assert zeroed % 512 == 0
    path = segments(data_dir)[-1]
    data = path.read_bytes()
    path.write_bytes(data[:zeroed] + bytes(512) + data[zeroed + 512 :])
    return zeroed, follows


def test_zeros_in_front_of_records_are_shown_as_what_they_may_be(data_dir: Path) -> None:
    zeroed, follows = lose_the_first_sector_of_the_last_save(data_dir)
    told = (
        f"torn tail: zeros at byte {zeroed}, and records that belong together follow at byte "
        f"{follows}; an interrupted write leaves this; if the machine did not crash, a sector "
        "was lost"
    )
    segment = segments(data_dir)[-1]
    before = segment.read_bytes()
    result = run("verify", data_dir)
    assert result.returncode == 1
    assert "11 entries, index 1 to 11" in result.stdout
    assert "verdict     torn" in result.stdout
    assert f"raftwal: {told} (in {segment}, at byte {zeroed})\n" in result.stderr
    assert "advice: Run 'raftwal repair'" in result.stderr
    assert "If the machine did not crash, keep the copy" in result.stderr
    assert told in run("dump", data_dir).stdout
    assert segment.read_bytes() == before
    result = run("repair", data_dir)
    assert result.returncode == 0
    assert told in result.stdout
    assert f"at byte {zeroed}\n" in result.stdout
    assert Path(f"{segment}.broken").read_bytes() == before
    assert segment.read_bytes() == before[:zeroed]
    assert "verdict     sound" in run("verify", data_dir).stdout


def test_a_repair_of_zeros_says_to_a_program_what_they_may_be(data_dir: Path) -> None:
    zeroed, _ = lose_the_first_sector_of_the_last_save(data_dir)
    (torn,) = of_kind(facts("dump", data_dir, code=1), "torn_tail")
    assert torn["offset"] == zeroed
    (row,) = facts("repair", data_dir)
    assert row["offset"] == zeroed
    assert row["reason"] == torn["what"]


# Corruption.


def test_dump_prints_what_comes_before_the_damage(data_dir: Path) -> None:
    offset = corrupt_entry(data_dir, 7)
    result = run("dump", data_dir)
    assert result.returncode == 1
    assert "put 6 put 6" in result.stdout
    assert "put 7 put 7" not in result.stdout
    assert "corrupt" in result.stderr
    assert f"{segments(data_dir)[0]}, at byte {offset}" in result.stderr
    rows = facts("dump", data_dir, code=1)
    assert [e["index"] for e in of_kind(rows, "entry")] == list(range(1, 7))
    assert [e["error"] for e in of_kind(rows, "error")] == ["CrcMismatchError"]


def test_records_end_where_the_damage_begins(data_dir: Path) -> None:
    offset = corrupt_entry(data_dir, 7)
    rows = records(data_dir, code=1)
    assert rows[-1]["offset"] < offset
    assert rows[-1]["type"] == "hard_state"


def test_verify_says_what_is_corrupt_where_and_what_to_do(data_dir: Path) -> None:
    offset = corrupt_entry(data_dir, 7)
    result = run("verify", data_dir)
    assert result.returncode == 1
    assert "verdict     damaged" in result.stdout
    assert f"{segments(data_dir)[0]}, at byte {offset}" in result.stderr
    assert "advice:" in result.stderr


def test_repair_leaves_a_corrupt_log_alone(data_dir: Path) -> None:
    corrupt_entry(data_dir, 7)
    before = contents(data_dir)
    result = run("repair", data_dir)
    assert result.returncode == 1
    assert "corrupt" in result.stderr
    assert contents(data_dir) == before


def test_a_missing_segment(purged: Path) -> None:
    with open_storage(purged, keep_segments=9) as storage:
        fill(storage, 201, 300)
    # What comes after the gap is not read as if it followed.
    segments(purged)[2].unlink()
    for command in ("dump", "verify"):
        result = run(command, purged)
        assert result.returncode == 1
        assert "segments are missing" in result.stderr
    rows = facts("dump", purged, code=1)
    assert len(of_kind(rows, "segment")) == len(segments(purged))
    assert of_kind(rows, "entry")
    assert run("repair", purged).returncode == 1


def test_a_broken_snapshot_file_is_found_and_left_in_place(data_dir: Path) -> None:
    (file,) = (data_dir / "snap").iterdir()
    flip(file, 20)
    before = contents(data_dir)
    result = run("verify", data_dir)
    assert result.returncode == 1
    assert "1 file, 1 broken" in result.stdout
    assert str(file) in result.stderr
    rows = facts("dump", data_dir, code=1)
    assert [s["file"] for s in of_kind(rows, "snapshot")] == [None, "broken"]
    assert contents(data_dir) == before


def test_an_older_snapshot_that_was_purged_is_no_harm(purged: Path) -> None:
    (purged / "snap" / f"{2:016x}-{170:016x}.snap").unlink()
    rows = of_kind(facts("dump", purged), "snapshot")
    assert [(s["index"], s["file"]) for s in rows] == [(170, "missing"), (190, "whole")]


def test_a_purged_log_without_its_snapshots_is_damaged(purged: Path) -> None:
    shutil.rmtree(purged / "snap")
    result = run("verify", purged)
    assert result.returncode == 1
    assert "no snapshot" in result.stderr
    assert run("verify", purged / "wal").returncode == 0


def test_snapshots_without_their_log_are_damage(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "wal")
    result = run("verify", data_dir)
    assert result.returncode == 1
    assert "no log that goes with them" in result.stderr


def test_a_commit_index_beyond_the_log(tmp_path: Path) -> None:
    with WAL.create(tmp_path / "wal") as wal:
        wal.save(HardState(1, 1, 5), [Entry(1, 1, b"one")])
    result = run("verify", tmp_path)
    assert result.returncode == 1
    assert "commits index 5" in result.stderr
