"""The benchmarks beside peers run, and measure what they say.  How fast is nothing for a test.

raft-engine is left out: to build it takes minutes.  Where it was built, by hand, it runs too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing
from test_benchmarks import on_disk  # noqa: F401  # a fixture

from integration.benchmarks.peers import building, command
from integration.benchmarks.peers.aims import aims
from integration.benchmarks.peers.cases import SECTIONS
from integration.benchmarks.peers.known import OWN, PEERS, PURE, REFERENCE
from integration.benchmarks.peers.results import Results, load

ROOT = building.ROOT
RUST_PROGRAM = building.BUILT / "rust" / "release" / "raft-engine-peer"
WANTED = [name for name, peer in PEERS.items() if peer.program != "rust" or RUST_PROGRAM.exists()]
NEVER_SYNCED, ALWAYS_SYNCED = "file-journal", "raft-wal"


@pytest.fixture(scope="module")
def peers() -> list[str]:
    """Those that are built; the pure Python one is there beside a native one only."""
    programs = building.build(WANTED)
    left_out = {name: why for name, why in programs.left_out.items() if name != PURE}
    if left_out:
        missing("; ".join(f"{PEERS[name].title}: {why}" for name, why in left_out.items()))
    return list(programs.built)


def started(*words: str, path: str | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "integration.benchmarks", *words],
        cwd=ROOT,
        env=os.environ if path is None else {**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*words: str, path: str | None = None) -> subprocess.CompletedProcess:
    process = started(*words, path=path)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def test_every_peer_saves_reads_and_grows_and_a_page_is_made_of_it(peers, on_disk, tmp_path):  # noqa: F811
    """What each read back was compared with what it saved, or the run would have failed."""
    file = tmp_path / "results.json"
    done = run("peers", "--quick", "--profile", "--peers", ",".join(peers), "--dir", str(on_disk),
               "--json", str(file))  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = load(file)
    assert results.finished
    for section in SECTIONS[:-1]:
        there = set(results.peers(section))
        lacking = {NEVER_SYNCED} if section == "threads" else set()
        assert there == set(peers) - lacking, section
    for case in results.cases("saving"):
        cannot = {peer for peer in peers if results.reason(case, peer) is not None}
        assert cannot == {NEVER_SYNCED if case.sync else ALWAYS_SYNCED}, case
        for peer in set(peers) - cannot:
            (figures,) = results.rounds(case, peer).values()
            assert figures["entries"] == case.count, (case, peer)
            assert figures["saves"] == case.count // case.batch, (case, peer)
            assert 0 < figures["p50"] <= figures["p99"] <= figures["longest"], (case, peer)
    assert all(aim.is_met is not None for aim in aims(results))
    assert len(results.profiles) == 3
    assert results.facts["go.etcd.io/etcd/server/v3"].startswith(
        PEERS[REFERENCE].title.replace("etcd ", "v")
    )
    assert f"raftwal here: {building.implementation()}" in done.stdout

    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    shutil.copy(command.PAGE, page)
    made = run("report", str(file), "--page", str(page))
    assert made.returncode == 0, made.stderr
    assert results.facts["measured on"] in page.read_text()
    for name in ("saving-with-sync", "growth"):
        assert "<svg" in (page.parent / "performance" / f"{name}.svg").read_text()
    assert not list(on_disk.glob("peers-*"))


def count(results: Results) -> int:
    return sum(
        len(results.rounds(case, OWN)) for section in SECTIONS for case in results.cases(section)
    )


def test_an_interrupted_run_keeps_what_was_measured_and_goes_on(on_disk, tmp_path):  # noqa: F811
    file = tmp_path / "results.json"
    words = ("alone", "--quick", "--dir", str(on_disk), "--json", str(file),
             "--sections", "saving,checksum", "--peers", OWN)  # fmt: skip
    process = started(*words)
    for line in process.stderr:
        if line.startswith("3/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume goes on" in err
    assert "raftwal" in out
    assert not list(on_disk.glob("peers-*"))
    before = load(file)
    assert not before.finished
    assert count(before) == 2
    assert run(*words, "--resume").returncode == 0
    after = load(file)
    assert after.finished
    assert count(after) == 6
    for case in before.cases("saving"):
        assert after.rounds(case, OWN) == before.rounds(case, OWN)


def test_a_round_has_saves_of_one_entry_with_sync_several_times(on_disk, tmp_path):  # noqa: F811
    file = tmp_path / "results.json"
    only = ["--sections", "saving", "--sizes", "128", "--batches", "1,16", "--rounds", "2"]
    words = ("alone", *only, "--limit", "0.2", "--peers", OWN)
    done = run(*words, "--dir", str(on_disk), "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "16/16 " in done.stderr
    results = load(file)
    times = {(case.batch, case.sync): sorted(results.rounds(case, OWN))
             for case in results.cases("saving")}  # fmt: skip
    assert times == {
        (1, True): list(range(10)),
        (1, False): [0, 1],
        (16, True): [0, 1],
        (16, False): [0, 1],
    }


def test_without_go_and_cargo_the_others_are_measured_and_it_says_who_is_left_out(
    on_disk,  # noqa: F811
    tmp_path,
):
    words = ("--sections", "saving", "--peers", "raftwal,etcd,raft-engine")
    done = run("peers", "--quick", *words, "--dir", str(on_disk),
               "--json", str(tmp_path / "results"), path="/nowhere")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "etcd 3.7 is left out: go is not installed" in done.stderr
    assert "raft-engine is left out: cargo is not installed" in done.stderr
    results = load(tmp_path / "results")
    assert results.peers("saving") == [OWN]
    assert "go is not installed" in results.left_out[REFERENCE]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("peers", "--peers", "paper"), "'paper' is none of"),
        (("alone", "--peers", "etcd"), "'etcd' is none of"),
        (("peers", "--sizes", "0"), "no positive whole number"),
        (("peers", "--limit", "-1"), "no positive number"),
        (("report", "no-such-file"), "holds no results"),
    ],
)
def test_wrong_options_are_refused(words, said):
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_results_without_saves_make_no_page(tmp_path):
    file = tmp_path / "results.json"
    Results().save(file)
    page = tmp_path / "performance.md"
    page.write_text("<!-- made: aims -->\n<!-- end of aims -->\n")
    done = run("report", str(file), "--page", str(page))
    assert done.returncode == 2
    assert "no saves of raftwal's" in done.stderr
    assert page.read_text() == "<!-- made: aims -->\n<!-- end of aims -->\n"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory here")
def test_a_directory_in_memory_is_refused():
    done = run("alone", "--dir", "/dev/shm")
    assert done.returncode == 2
    assert "name a directory on a disk" in done.stderr
