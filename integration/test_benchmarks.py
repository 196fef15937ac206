"""The benchmarks run, and what they count happened.  How fast is nothing for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.benchmarks import __main__, figures, surroundings
from integration.benchmarks.clusters import BenchmarkCluster

ROOT = Path(__file__).parents[1]


def run(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "integration.benchmarks", *arguments, "--dir", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A directory that the benchmarks accept: pytest's own can be in memory."""
    if surroundings.file_system(tmp_path) != "tmpfs":
        return tmp_path
    directory = ROOT / "build" / "benchmarks"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def test_every_kind_commits_what_is_asked_on_all_nodes_and_syncs_as_its_name_says(
    on_disk, tmp_path
):
    """`throughput` itself refuses figures of nodes that did not apply the same commands."""
    done = run(
        *("cluster", "--rounds", "1", "--sizes", "100", "--batches", "off"),
        *("--seconds", "0.2", "--warm-up", "0.1", "--latency-seconds", "0.1"),
        *("--json", str(tmp_path / "samples"), "--markdown", str(tmp_path / "tables")),
        directory=on_disk,
    )
    assert done.returncode == 0, done.stderr
    samples = {each["kind"]: each for each in json.loads((tmp_path / "samples").read_text())}
    assert list(samples) == ["memory", "filejournal", "raftwal", "naive"]
    for kind, sample in samples.items():
        assert sample["commands_a_second"] > 0, kind
        assert sample["one_at_a_time"], kind
        assert sample["steadily"], kind
        assert sample["applied"] > len(sample["one_at_a_time"]) + len(sample["steadily"]), kind
    assert samples["memory"]["commands_a_sync"] == samples["filejournal"]["commands_a_sync"] == 0
    assert samples["naive"]["commands_a_sync"] == 1
    assert samples["raftwal"]["commands_a_sync"] >= 1
    tables = (tmp_path / "tables").read_text()
    assert "kernel: " in tables
    assert [line for line in tables.splitlines() if line.startswith("| raftwal ")] == [
        line.rstrip() for line in done.stdout.splitlines() if line.startswith("| raftwal ")
    ]
    assert not [each for each in on_disk.iterdir() if each.name.startswith("cluster-")]


def test_nodes_that_applied_other_commands_are_found_out(on_disk):
    with BenchmarkCluster("memory", batches=False, parent=on_disk) as cluster:
        statuses = cluster.statuses

        def one_differs() -> list[dict]:
            first, *others = statuses()
            return [{**first, "digest": first["digest"] + 1}, *others]

        cluster.leader.ask("one_at_a_time", payload_bytes=10, seconds=0.01)
        assert len({status["applied"] for status in cluster.wait_in_step()}) == 1
        cluster.statuses = one_differs
        with pytest.raises(RuntimeError, match="applied different commands"):
            cluster.wait_in_step()


def test_a_node_that_ends_is_reported_with_what_it_wrote(on_disk):
    with pytest.raises(RuntimeError, match="invalid choice: 'paper'"):
        BenchmarkCluster("paper", batches=False, parent=on_disk).__enter__()
    assert not list(on_disk.glob("paper-*"))


def test_recovery_finds_every_entry_in_both_forms(on_disk, tmp_path):
    """Each step refuses a log that has not as many entries, or nodes that do not apply all."""
    done = run(
        *("recovery", "--rounds", "1", "--entries", "2000", "--json", str(tmp_path / "timings")),
        directory=on_disk,
    )
    assert done.returncode == 0, done.stderr
    timings = json.loads((tmp_path / "timings").read_text())
    assert {each["step"] for each in timings} >= {"read-raftwal", "open-raftwal", "start-raftwal"}
    assert all(each["seconds"] > 0 for each in timings)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no file system in memory here")
def test_a_directory_in_memory_is_refused():
    done = run("cluster", directory=Path("/dev/shm"))
    assert done.returncode == 2
    assert "name a directory on a disk" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong", [("--kinds", "paper"), ("--sizes", "0"), ("--batches", "some"), ("--rounds", "-1")]
)
def test_wrong_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["cluster", *wrong])
    assert ended.value.code == 2
    assert f"argument {wrong[0]}: '{wrong[1]}' is n" in capsys.readouterr().err


def test_ratios_are_of_the_same_round():
    slowed_down_together = figures.ratios([10.0, 5.0, 20.0], [20.0, 10.0, 40.0])
    assert slowed_down_together == (0.5, 0.5, 0.5)


def test_a_percentile_is_one_of_the_values():
    values = [float(number) for number in range(100)]
    assert figures.percentile(values, 0.5) == 50.0
    assert figures.percentile(values, 0.99) == 99.0
    assert figures.percentile([7.0], 0.99) == 7.0
