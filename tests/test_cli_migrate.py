"""``raftwal migrate``, run as an operator runs it.

Exit codes: 0 migrated, 1 the source is damaged, 2 wrong use or not done.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from old_nodes import NODES, OldNode, entries, old_node, read_with_pysyncobj, write_with_pysyncobj
from operated_directories import contents, corrupt_entry, facts, make_data_dir
from operated_directories import run as run_as_process

from raftwal.cli import main
from raftwal.pysyncobj.file_journal import Meta
from raftwal.pysyncobj.migration import from_file_journal

# PySyncObj leaves closing its .meta to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory with the files of a node that has a dump up to entry 10."""
    directory = tmp_path / "old"
    directory.mkdir()
    write_with_pysyncobj(old_node(9, 20, dump=10), directory / "journal", directory / "dump")
    return directory


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path) -> Result:
    """In this process, where an error that nobody caught fails the test."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as exit:
            code = exit.code
    return Result(code, stdout.getvalue(), stderr.getvalue())


def there(old: Path, *more: str, target: str = "data") -> tuple[str | Path, ...]:
    dump = () if "--no-dump" in more else ("--dump", old / "dump")
    return ("migrate", old / "journal", old.parent / target, "--node", NODES[0], *dump, *more)


def back(old: Path, *more: str) -> tuple[str | Path, ...]:
    new = old.parent / "new"
    return (
        *("migrate", "--back", old.parent / "data", new / "journal", "--dump", new / "dump"),
        *("--partner", NODES[1], *more),
    )


def test_there_and_back(old: Path, tmp_path: Path) -> None:
    result = run_as_process(*there(old, "--cluster-name", "blue"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "node        '10.0.0.1:4321', cluster 'blue'",
        "hard state  term 2, vote for 10.0.0.2:4321, commit 19",
        "snapshot    index 10, term 2, nodes 10.0.0.1:4321, 10.0.0.2:4321, 10.0.0.3:4321",
        "entries     10 entries, index 11 to 20",
        f"migrated    to {tmp_path / 'data'}, and read back",
    ]
    assert run("verify", tmp_path / "data").stdout.endswith("verdict     sound\n")
    result = run_as_process(*back(old))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:4] == [
        "hard state  term 2, vote for 10.0.0.2:4321, commit 19",
        "snapshot    index 10, term 2, nodes 10.0.0.1:4321, 10.0.0.2:4321, 10.0.0.3:4321",
        "entries     10 entries, index 11 to 20",
    ]
    found = read_with_pysyncobj(tmp_path / "new" / "journal")
    assert found == (entries(9, 20), Meta(2, NODES[1], 19))
    assert (tmp_path / "new" / "dump").read_bytes() == (old / "dump").read_bytes()


def test_for_a_program(old: Path, tmp_path: Path) -> None:
    (row,) = facts(*there(old))
    assert row == {
        "kind": "migration",
        "source": str(old / "journal"),
        "target": str(tmp_path / "data"),
        "node_id": NODES[0],
        "cluster_name": "",
        "term": 2,
        "vote": NODES[1],
        "commit": 19,
        "snapshot_index": 10,
        "snapshot_term": 2,
        "nodes": list(NODES),
        "entries": 10,
        "first_index": 11,
        "last_index": 20,
        "notes": [],
    }
    (row,) = facts(*back(old))
    assert (row["source"], row["target"]) == (
        str(tmp_path / "data"),
        str(tmp_path / "new" / "journal"),
    )


def test_help_says_what_it_does() -> None:
    text = run("migrate", "--help").stdout
    for word in ("fullDumpFile", "--back", "never touched", "examples"):
        assert word in text
    assert "migrate" in run("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["journal"],
        ["journal", "data"],
        ["journal", "data", "--no-dump"],
        ["journal", "data", "--dump", "d", "--no-dump", "--node", "n"],
        ["journal", "data", "--no-dump", "--node", "n", "--term", "-1"],
        ["journal", "data", "--no-dump", "--node", "n", "--term", str(1 << 64)],
        ["journal", "data", "--no-dump", "--node", "n", "--partner", "m"],
        ["--back", "data", "journal", "--no-dump", "--node", "n"],
        ["--back", "data", "journal", "--no-dump", "--accept-loss"],
    ],
)
def test_wrong_arguments_are_wrong_use(arguments: list[str]) -> None:
    result = run("migrate", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "usage: raftwal migrate" in result.stderr


def refused(*arguments: str | Path, directory: Path, code: int) -> str:
    """What is said, after a look that there is nothing new."""
    before = contents(directory)
    result = run(*arguments)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("raftwal: corrupt: " if code == 1 else "raftwal: ")
    assert contents(directory) == before
    assert not list(directory.rglob("*.migrating"))
    return result.stderr


def test_a_damaged_journal_is_corrupt_and_its_loss_can_be_accepted(
    old: Path, tmp_path: Path
) -> None:
    journal = old / "journal"
    journal.write_bytes(journal.read_bytes()[:-500])
    words = refused(*there(old), directory=tmp_path, code=1)
    assert str(journal) in words
    assert "at byte 36" in words
    result = run(*there(old, "--accept-loss"))
    assert result.returncode == 0
    assert "note        accepted: the journal says that it ends" in result.stdout


def test_a_damaged_dump_is_corrupt(old: Path, tmp_path: Path) -> None:
    (old / "dump").write_bytes((old / "dump").read_bytes()[:-3])
    assert "the dump cannot be read" in refused(*there(old), directory=tmp_path, code=1)


def test_committed_entries_that_are_gone_are_told(old: Path, tmp_path: Path) -> None:
    shutil.rmtree(old)
    old.mkdir()
    write_with_pysyncobj(old_node(9, 20, dump=10, commit=31), old / "journal", old / "dump")
    words = refused(*there(old), directory=tmp_path, code=1)
    assert "entries up to 31 were committed, and the journal ends with 20" in words
    assert "advice: " in words
    assert "--accept-loss" in words


def test_a_lost_meta_asks_for_a_term(old: Path, tmp_path: Path) -> None:
    (old / "journal.meta").unlink()
    assert "--term" in refused(*there(old), directory=tmp_path, code=2)
    assert "below" not in refused(*there(old, "--term", "1"), directory=tmp_path, code=2)
    result = run(*there(old, "--term", "9"))
    assert "hard state  term 9, vote for a vote that was lost, commit 10" in result.stdout


def test_a_journal_that_needs_its_dump(old: Path, tmp_path: Path) -> None:
    words = refused(*there(old, "--no-dump"), directory=tmp_path, code=2)
    assert "begins with entry 9" in words
    (old / "dump").rename(old / "elsewhere")
    refused(*there(old), directory=tmp_path, code=2)


def test_a_dump_of_the_applications_own(old: Path, tmp_path: Path) -> None:
    (old / "dump").write_text("state")
    assert "migrate='auto'" in refused(*there(old), directory=tmp_path, code=2)


def test_nothing_is_replaced_and_nothing_is_migrated_twice(old: Path, tmp_path: Path) -> None:
    assert run(*there(old)).returncode == 0
    assert "nothing is ever replaced" in refused(*there(old), directory=tmp_path, code=2)
    words = refused(*there(old, target="another"), directory=tmp_path, code=2)
    assert "journal.migrated" in words
    assert run(*back(old)).returncode == 0
    assert "nothing is ever replaced" in refused(*back(old), directory=tmp_path, code=2)


def test_the_wrong_way_round(old: Path, tmp_path: Path) -> None:
    source = ("migrate", old, tmp_path / "data", "--node", "n", "--no-dump")
    assert "--back" in refused(*source, directory=tmp_path, code=2)
    source = ("migrate", "--back", old / "journal", tmp_path / "new", "--no-dump")
    assert "Leave --back out" in refused(*source, directory=tmp_path, code=2)
    source = ("migrate", "--back", old, tmp_path / "new", "--no-dump")
    assert "there is no log" in refused(*source, directory=tmp_path, code=2)


def test_what_is_not_there(tmp_path: Path) -> None:
    for way in (["--node", "n"], ["--back"]):
        words = refused(
            *("migrate", tmp_path / "nowhere", tmp_path / "data", "--no-dump", *way),
            directory=tmp_path,
            code=2,
        )
        assert "no such file" in words


@pytest.mark.parametrize("content", [b"", b"text", os.urandom(3000), b"\0" * 5000])
def test_what_is_no_journal(content: bytes, old: Path, tmp_path: Path) -> None:
    (old / "journal").write_bytes(content)
    assert "not a FileJournal" in refused(*there(old), directory=tmp_path, code=1)


def test_a_target_that_cannot_be_made(old: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(*there(old, target="file/data"), directory=tmp_path, code=2)
    refused(*there(old, target="file"), directory=tmp_path, code=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("name", ["journal", "journal.meta", "dump"])
def test_no_permission(name: str, old: Path, tmp_path: Path) -> None:
    (old / name).chmod(0)
    result = run(*there(old))
    (old / name).chmod(0o600)
    assert result.returncode == 2
    assert "ermission" in result.stderr


def test_damaged_and_foreign_directories_do_not_go_back(old: Path, tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data")
    words = refused(*back(old), directory=tmp_path, code=2)
    assert "was not made by raftwal's PySyncObj adapter" in words
    shutil.rmtree(tmp_path / "data")
    from_file_journal(
        old / "journal", old / "dump", tmp_path / "data", node_id=NODES[0], segment_bytes=4096
    )
    corrupt_entry(tmp_path / "data", 15)
    assert "checksum" in refused(*back(old), directory=tmp_path, code=1)


def test_a_node_without_a_term_has_no_vote_to_show(old: Path) -> None:
    shutil.rmtree(old)
    old.mkdir()
    node = OldNode(entries(1, 1), Meta(0, None, 1))
    write_with_pysyncobj(node, old / "journal", old / "dump")
    lines = run(*there(old)).stdout.splitlines()
    assert "hard state  term 0, no vote, commit 1" in lines
    assert "snapshot    none" in lines
    assert any(line.startswith("note        there is no dump") for line in lines)
