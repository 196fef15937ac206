"""The command ``raftwal``, run as an operator runs it.

Exit codes: 0 sound, 1 corrupt or torn, 2 wrong use or nothing that could be judged.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from operated_directories import (
    contents,
    facts,
    make_data_dir,
    make_purged_data_dir,
    of_kind,
    open_storage,
    records,
    run,
    snapshot_at,
)

import raftwal
from raftwal import WAL, Entry, HardState, Identity
from raftwal.native import implementation


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return make_data_dir(tmp_path / "node1")


@pytest.fixture
def purged(tmp_path: Path) -> Path:
    return make_purged_data_dir(tmp_path / "purged")


# Help and wrong use.


def test_version() -> None:
    said = run("--version").stdout
    assert said == f"raftwal {raftwal.__version__} ({implementation()})\n"


def test_help_names_commands_exit_codes_and_examples() -> None:
    text = run("--help").stdout
    for word in ("dump", "verify", "repair", "exit codes", "examples"):
        assert word in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mend", "."],
        ["dump"],
        ["dump", ".", "--first", "-1"],
        ["dump", ".", "--last", "nine"],
        ["dump", ".", "--from-snapshot", str(1 << 64)],
    ],
)
def test_wrong_arguments_are_wrong_use(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "usage:" in result.stderr


@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_what_is_not_a_log_is_wrong_use(command: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no log")
    (tmp_path / "empty").mkdir()
    (tmp_path / "node" / "wal").mkdir(parents=True)
    for name in ("nowhere", "file", "empty", "node"):
        result = run(command, tmp_path / name)
        assert result.returncode == 2
        assert result.stdout == ""
        assert "there is no log" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_no_permission(command: str, data_dir: Path) -> None:
    (data_dir / "wal").chmod(0)
    try:
        result = run(command, data_dir)
    finally:
        (data_dir / "wal").chmod(0o700)
    assert result.returncode == 2
    assert "ermission" in result.stderr


# A sound log.


def test_dump_for_a_human(data_dir: Path) -> None:
    text = run("dump", data_dir).stdout
    assert "node 'node1:4321', cluster 'blue', format version 1" in text
    assert "term 2, vote 7, commit 9" in text
    assert "0000000000000000-0000000000000000.wal" in text
    assert "voters 1,2,3" in text
    assert "put 10 put 10" in text


def test_dump_for_a_program(data_dir: Path) -> None:
    rows = facts("dump", data_dir)
    (metadata,) = of_kind(rows, "metadata")
    assert metadata["identity"] == Identity("node1:4321", "blue")._asdict()
    assert of_kind(rows, "hard_state") == [
        {"kind": "hard_state", "term": 2, "vote": 7, "commit": 9}
    ]
    assert [s["first_index"] for s in of_kind(rows, "segment")] == [0]
    assert [(s["index"], s["vouched"], s["file"]) for s in of_kind(rows, "snapshot")] == [
        (0, True, None),
        (5, True, "whole"),
    ]
    assert [(f["index"], f["state"]) for f in of_kind(rows, "snapshot_file")] == [(5, "whole")]
    entries = of_kind(rows, "entry")
    assert [entry["index"] for entry in entries] == list(range(1, 11))
    assert base64.b64decode(entries[2]["data"]) == b"put 3 " * 10
    assert entries[2]["length"] == 60


def test_dump_of_the_log_alone_says_nothing_of_snapshot_files(data_dir: Path) -> None:
    rows = facts("dump", data_dir / "wal")
    assert [s["file"] for s in of_kind(rows, "snapshot")] == [None, None]
    assert not of_kind(rows, "snapshot_file")


def test_a_snapshot_above_the_commit_index_is_not_vouched_for(data_dir: Path) -> None:
    with open_storage(data_dir) as storage:
        storage.save_snapshot(snapshot_at(10))
    rows = of_kind(facts("dump", data_dir), "snapshot")
    assert [(s["index"], s["vouched"]) for s in rows] == [(0, True), (5, True), (10, False)]
    assert run("verify", data_dir).returncode == 0


def test_entries_can_be_chosen(data_dir: Path) -> None:
    def shown(*options: str) -> list[int]:
        return [e["index"] for e in of_kind(facts("dump", data_dir, *options), "entry")]

    assert shown("--first", "4", "--last", "6") == [4, 5, 6]
    assert shown("--no-entries") == []
    assert shown("--from-snapshot", "5") == [6, 7, 8, 9, 10]


def test_from_a_snapshot_that_the_log_has_no_record_of(data_dir: Path) -> None:
    result = run("dump", data_dir, "--from-snapshot", "6")
    assert result.returncode == 2
    assert "no record of a snapshot 6" in result.stderr


def test_records_stand_in_file_order_with_those_overwritten(tmp_path: Path) -> None:
    with WAL.create(tmp_path / "wal", b"whose") as wal:
        wal.save(HardState(1, 1, 0), [Entry(1, 1, b"one"), Entry(1, 2, b"old")])
        wal.save(HardState(2, 1, 0), [Entry(2, 2, b"new")])
    rows = records(tmp_path)
    assert [row["type"] for row in rows] == [
        "crc",
        "metadata",
        "snapshot",
        "entry",
        "entry",
        "hard_state",
        "entry",
        "hard_state",
    ]
    assert [r["entry"]["term"] for r in rows if r["type"] == "entry"] == [1, 1, 2]
    offsets = [row["offset"] for row in rows]
    assert offsets == sorted(offsets)
    entries = of_kind(facts("dump", tmp_path), "entry")
    assert [(e["term"], e["index"]) for e in entries] == [(1, 1), (2, 2)]
    assert "index 2, term 2, normal: new" in run("dump", tmp_path, "--records").stdout


def test_data_is_shown_as_plain_ascii(tmp_path: Path) -> None:
    data = b"\x1b[31m\\\xff" + b"x" * 1000
    with WAL.create(tmp_path / "wal", "grün".encode()) as wal:
        wal.save(HardState(1, 1, 1), [Entry(1, 1, data), Entry(1, 2, None)])
    text = run("dump", tmp_path, env={**os.environ, "LC_ALL": "C"}).stdout
    assert r"\x1b[31m\\\xffxxx" in text
    assert "..." in text
    assert text.isascii()
    assert "\x1b" not in text


def test_a_purged_log(purged: Path) -> None:
    rows = facts("dump", purged)
    indexes = [entry["index"] for entry in of_kind(rows, "entry")]
    assert indexes[0] > 1
    assert indexes == list(range(indexes[0], 201))
    assert run("verify", purged).returncode == 0
    after = of_kind(facts("dump", purged, "--from-snapshot", "190"), "entry")
    assert [entry["index"] for entry in after] == list(range(191, 201))
    assert run("dump", purged, "--from-snapshot", "0").returncode == 2


def test_verify_of_a_sound_log(data_dir: Path) -> None:
    result = run("verify", data_dir)
    assert result.returncode == 0
    assert "verdict     sound" in result.stdout
    assert "10 entries, index 1 to 10" in result.stdout
    assert result.stderr == ""
    (summary,) = facts("verify", data_dir)
    assert summary["verdict"] == "sound"
    assert summary["last_index"] == 10


def test_repair_of_a_sound_log_changes_nothing(data_dir: Path) -> None:
    before = contents(data_dir)
    result = run("repair", data_dir)
    assert result.returncode == 0
    assert "nothing to repair" in result.stdout
    assert contents(data_dir) == before


def test_a_file_of_another_name_is_no_news_on_stdout(data_dir: Path) -> None:
    (data_dir / "wal" / "notes.txt").write_text("by the operator")
    assert len(facts("verify", data_dir)) == 1


# The other end of the pipe.


@pytest.mark.skipif(os.name != "posix", reason="pipes of a shell")
@pytest.mark.parametrize("options", ["dump {} --json", "dump {} --records", "verify {}", "--help"])
def test_a_reader_that_goes_away(options: str, purged: Path) -> None:
    with open_storage(purged) as storage:
        storage.save(None, [Entry(2, 201 + n, b"x" * 50) for n in range(5000)])
    command = f"'{sys.executable}' -m raftwal {options.format(purged)} | head -1"
    result = subprocess.run(
        command, shell=True, check=False, capture_output=True, text=True, timeout=60
    )
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written(data_dir: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "raftwal", "dump", str(data_dir)],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert result.returncode == 2
    assert result.stderr == "raftwal: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="a shell's way to close stdout")
def test_no_output_at_all(data_dir: Path) -> None:
    result = subprocess.run(
        f"'{sys.executable}' -m raftwal verify '{data_dir}' >&-",
        shell=True,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
