"""The demo: what it shows, what it counts as lost, and how it ends."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo.__main__ import main
from examples.demo.checking import Loss, find_losses
from examples.demo.cluster import KVCluster, NodeError
from examples.demo.fsyncs import Fsyncs, fsyncs_of, quantile
from examples.demo.report import print_report
from examples.demo.scenario import NodeResult, Result
from examples.demo.screen import Screen
from examples.demo.writers import Writers, value_of
from raftwal import WAL

ROOT = Path(__file__).parents[1]
DEMO = [sys.executable, "-m", "examples.demo"]


class MemoryStore:
    def __init__(self, name: str, values: dict[str, bytes]) -> None:
        self.name = name
        self._values = values

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)


WRITES = {f"key{number}": value_of(f"key{number}") for number in range(20)}


def test_a_run_loses_nothing_and_says_so(tmp_path):
    outcome = subprocess.run(
        [*DEMO, "--writes", "300", "--keep", str(tmp_path / "kept")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stderr == ""
    printed = outcome.stdout
    assert re.search(r"lost\W+0\b", printed)
    acknowledged = re.search(r"acknowledged\W+(\d+)\b", printed)
    assert acknowledged is not None
    assert int(acknowledged[1]) >= 600
    for step in (
        "the leader",
        "all three at once",
        "every acknowledged write, from every node",
        "every node has",
    ):
        assert step in printed
    for figure in ("recovery time", "snapshot index", "entries replayed", "torn tail"):
        assert figure in printed
    for figure in ("fsync p50", "fsync p99"):
        assert re.search(rf"{figure}(\W+[\d.]+ m?s){{4}}", printed)
    assert re.search(r"node\W+node[123]\W+node1\W+node2\W+node3", printed)
    tables = [line for line in printed.splitlines() if line.startswith("│")]
    assert max(map(len, tables)) <= 80, "they fit a terminal"
    for name in ("node1", "node2", "node3"):
        log = (tmp_path / "kept" / f"{name}.log").read_text()
        assert "Traceback" not in log
        assert (tmp_path / "kept" / name / "wal").is_dir()


def test_the_nodes_die_with_the_demo(tmp_path):
    demo = subprocess.Popen(
        [*DEMO, "--writes", "100000", "--keep", str(tmp_path / "kept")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with demo:
        assert "started" in demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        assert "interrupted" in demo.stdout.read()
        assert demo.wait(30) == 130
    for name in ("node1", "node2", "node3"):
        # A node that lives holds the lock that this takes.
        WAL.open(tmp_path / "kept" / name / "wal").close()


def test_nothing_is_lost_where_every_node_has_every_write():
    read: list[None] = []
    stores = [MemoryStore(f"node{number}", dict(WRITES)) for number in range(3)]
    assert find_losses(WRITES, stores, lambda: read.append(None)) == []
    assert len(read) == 60


def test_a_write_that_one_node_misses_is_lost():
    missing = {key: value for key, value in WRITES.items() if key != "key7"}
    stores = [MemoryStore("node1", dict(WRITES)), MemoryStore("node2", missing)]
    assert find_losses(WRITES, stores) == [Loss("node2", "key7", WRITES["key7"], None)]


def test_a_write_that_one_node_has_otherwise_is_lost():
    wrong = WRITES | {"key7": b"other"}
    (loss,) = find_losses(WRITES, [MemoryStore("node1", wrong)])
    assert loss.found == b"other"
    assert str(loss).startswith("node1 has b'other' under key7, not b'")


def test_a_store_that_cannot_be_read_is_no_success():
    class Unreachable(MemoryStore):
        def get(self, key: str) -> bytes | None:
            raise ConnectionError(key)

    with pytest.raises(ConnectionError):
        find_losses(WRITES, [Unreachable("node1", {})])


def result(losses: list[Loss]) -> Result:
    fsyncs = Fsyncs(total=40, p50_seconds=0.0005, p99_seconds=math.nan)
    node = NodeResult("node1", "leader", 1.5, 0.0625, 500, 30, True, 530, fsyncs)
    return Result(20, 3, 1, losses, 0.75, node, [node])


def test_a_loss_makes_the_exit_status_1(monkeypatch, tmp_path, capsys):
    loss = Loss("node2", "key7", b"value", None)
    monkeypatch.setattr("examples.demo.scenario.Scenario.run", lambda _: result([loss]))
    assert main(["--keep", str(tmp_path / "kept")]) == 1
    printed = capsys.readouterr().out
    assert "LOST: node2 has nothing under key7" in printed
    assert re.search(r"lost\W+1\b", printed)
    assert "nothing that was acknowledged is lost" not in printed


def test_a_step_that_does_not_complete_makes_the_exit_status_1(monkeypatch, tmp_path, capsys):
    def run(_: object) -> Result:
        raise NodeError("node1 was not ready within 20 s")

    monkeypatch.setattr("examples.demo.scenario.Scenario.run", run)
    assert main(["--keep", str(tmp_path / "kept")]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: node1 was not ready" in printed
    assert str(tmp_path / "kept") in printed, "it says where the logs are"


def test_the_report_has_every_figure(capsys):
    print_report(Screen().console, result([]))
    printed = capsys.readouterr().out
    for figure in ("20", "3", "1.50 s", "62.5 ms", "500", "30", "yes", "40", "0.50 ms", "750.0 ms"):
        assert figure in printed


@pytest.mark.parametrize("arguments", [["--writes", "2"], ["--writes", "many"], ["--keep", "."]])
def test_bad_arguments(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_a_node_that_does_not_start_is_reported_with_its_log(tmp_path):
    options = ["--snapshot-entries", "none"]
    with (
        KVCluster(tmp_path, size=1, options=options) as cluster,
        pytest.raises(NodeError) as failure,
    ):
        cluster.start()
    assert "node1 ended with status 2 before it was ready" in str(failure.value)
    assert "not a number above 1: 'none'" in str(failure.value)


def test_writes_to_a_node_that_is_down_are_neither_acknowledged_nor_unknown(tmp_path):
    with KVCluster(tmp_path, size=1) as cluster, Writers(cluster.nodes, count=2) as writers:
        assert not writers.wait_for(1, seconds=0.1)
        cluster.start()
        assert writers.wait_for(10, seconds=20)
        writers.stop()
        assert writers.unknown == []
        assert find_losses(writers.acknowledged, cluster.nodes) == []


def test_quantiles_are_as_prometheus_has_them():
    buckets = {0.001: 50.0, 0.002: 90.0, 0.004: 100.0, math.inf: 100.0}
    assert quantile(0.5, buckets) == pytest.approx(0.001)
    assert quantile(0.7, buckets) == pytest.approx(0.0015)
    assert quantile(0.99, buckets) == pytest.approx(0.0038)
    assert math.isnan(quantile(0.5, {0.001: 0.0, math.inf: 0.0}))
    assert quantile(0.99, {0.001: 1.0, math.inf: 9.0}) == 0.001, "the highest bound there is"


def test_a_scrape_without_the_histogram_is_an_error():
    with pytest.raises(ValueError, match="raftwal_wal_fsync_duration_seconds"):
        fsyncs_of("# HELP up up\nup 1\n")
