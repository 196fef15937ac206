"""docs/performance.md is made of its stored results, and what they say is reckoned right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from integration.benchmarks.peers import aims, building, page, plots, tables
from integration.benchmarks.peers.building import Program
from integration.benchmarks.peers.cases import SECTIONS, Case, Plan
from integration.benchmarks.peers.command import PAGE, STORED
from integration.benchmarks.peers.known import PEERS
from integration.benchmarks.peers.results import Results, ResultsError, load
from integration.benchmarks.peers.runs import CannotSayError, PeerFailedError, Runner
from integration.benchmarks.peers.sequence import FAILED, Measurement

ONE_SYNCED = Case("saving", "save", 128, 1, 1000, True)
PLAN = Plan(SECTIONS, (128,), (1, 1024), (1, 16), (10_000,), 2, 5.0, 45.0)


def figures(**changed) -> dict:
    whole = {
        "seconds": 1.0, "cpu": 0.5, "entries": 1000, "saves": 1000, "p50": 1e-4, "p99": 2e-4,
        "longest": 1e-3, "stopped": False, "bytes": 128_000, "rss_before": 0,
        "rss_peak": 1_128_000, "disk": 200_000,
    }  # fmt: skip
    return {**whole, **changed}


def results_of(case: Case, **of_peers: list[dict]) -> Results:
    made = Results()
    for peer, rounds in of_peers.items():
        for number, each in enumerate(rounds):
            made.add(case, peer, number, figures(**each))
    return made


# The document.


def test_the_page_is_what_the_command_makes_of_the_stored_results():
    """Whoever types a figure into it, or changes how one is made, makes the page anew."""
    text = PAGE.read_text(encoding="utf-8")
    assert page.made_page(text, load(STORED)) == text


def test_every_figure_of_the_page_is_in_what_is_made_and_all_of_it_is_there():
    text = PAGE.read_text(encoding="utf-8")
    for name in page.BLOCKS:
        assert text.count(f"<!-- made: {name} -->\n") == 1, name


def test_prose_stays_and_what_was_made_before_goes():
    written = "a\n<!-- made: aims -->\n| typed | 9,999 |\n<!-- end of aims -->\nb 12 µs\n"
    made = page.made_page(written, results_of(ONE_SYNCED, raftwal=[{}], etcd=[{}]))
    assert made.startswith("a\n<!-- made: aims -->\nraftwal to etcd")
    assert made.endswith("| met |\n<!-- end of aims -->\nb 12 µs\n")
    assert "9,999" not in made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- made: aims -->\n", "has no end"),
        ("<!-- made: aims -->\n<!-- end of growth -->\n", "has no end"),
        ("<!-- made: wishes -->\n<!-- end of wishes -->\n", "nothing is made for wishes"),
    ],
)
def test_wrong_markers_are_refused(text, said):
    with pytest.raises(page.PageError, match=said):
        page.made_page(text, Results())


def test_a_run_that_was_interrupted_says_so():
    stopped = results_of(ONE_SYNCED, raftwal=[{}])
    assert "interrupted" in page.BLOCKS["machine"](stopped)
    stopped.finished = True
    assert "interrupted" not in page.BLOCKS["machine"](stopped)


# The reckoning.


def test_an_aim_compares_medians_and_shows_the_spread_of_the_rounds():
    made = results_of(
        ONE_SYNCED,
        raftwal=[{"p50": 1e-4}, {"p50": 3e-4}, {"p50": 2e-4}],
        etcd=[{"p50": 1e-4}, {"p50": 1e-4}, {"p50": 4e-4}],
    )
    aim = next(aim for aim in aims.aims(made) if "p50" in aim.text)
    assert aim.measured.of_medians == pytest.approx(2.0)
    assert aim.measured.spread == pytest.approx((1.0, 0.5, 3.0))
    assert aim.verdict == "not met: 100% too much"


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(2.0, "met"), (2.5, "not met: 20% too little"), (1.0, "met")]
)
def test_throughput_is_met_at_its_bound_and_above(seconds, verdict):
    case = Case("reading", "read", 128, 1024, 1000, True)
    made = results_of(case, raftwal=[{"seconds": seconds}], etcd=[{"seconds": 4.0}])
    (speed,) = [aim for aim in aims.aims(made) if "entries a second" in aim.text]
    assert speed.verdict == verdict


def test_memory_is_counted_beyond_the_data_and_what_was_there_before():
    assert aims.memory_beyond(figures(rss_before=5_000_000, rss_peak=6_128_000)) == 1_000_000


def test_an_aim_whose_peer_was_left_out_is_not_measured():
    assert [aim.verdict for aim in aims.aims(results_of(ONE_SYNCED, raftwal=[{}]))] == [
        "not measured",
        "not measured",
    ]


def test_a_case_that_a_peer_cannot_do_has_no_number_and_a_reason():
    made = results_of(ONE_SYNCED, raftwal=[{}], etcd=[{}])
    made.add_cannot(ONE_SYNCED, "file-journal", "it is never synced")
    other = ONE_SYNCED._replace(sync=False)
    made.add(other, "file-journal", 0, figures())
    (table,) = tables.saving(made, sync=True)
    assert table.rows[-1] == ["PySyncObj's FileJournal", "cannot"]
    assert ["PySyncObj's FileJournal", "with sync: it is never synced"] in tables.reasons(made).rows


def test_a_peer_that_was_stopped_early_has_an_asterisk():
    made = results_of(ONE_SYNCED, raftwal=[{"stopped": True}])
    assert tables.saving(made, sync=True)[0].rows == [["raftwal", "1,000*"]]


# The file.


def test_results_come_back_from_a_file(tmp_path):
    made = results_of(ONE_SYNCED, raftwal=[{}, {"seconds": 1.23456789}])
    made.add_cannot(ONE_SYNCED, "etcd", "a reason")
    made.facts, made.finished = {"kernel": "a name"}, True
    made.save(tmp_path / "results")
    found = load(tmp_path / "results")
    assert found.rounds(ONE_SYNCED, "raftwal")[0] == figures()
    assert found.rounds(ONE_SYNCED, "raftwal")[1]["seconds"] == 1.2346
    assert found.reason(ONE_SYNCED, "etcd") == "a reason"
    assert (found.facts, found.finished) == (made.facts, True)
    found.save(tmp_path / "again")
    assert (tmp_path / "again").read_text() == (tmp_path / "results").read_text()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_file_that_holds_no_results_is_refused(tmp_path, text):
    (tmp_path / "results").write_text(text)
    with pytest.raises(ResultsError, match="results"):
        load(tmp_path / "results")


# The run.


class FakeRunner:
    """Notes what it is asked; ``ends_at`` says when to be interrupted."""

    def __init__(self, ends_at: int | None = None) -> None:
        self.asked: list[tuple[Case, str]] = []
        self._ends_at = ends_at

    def saved(self, case, peer, limit):
        if len(self.asked) == self._ends_at:
            raise KeyboardInterrupt
        self.asked.append((case, peer))
        if peer == "tidwall":
            raise CannotSayError("for a test")
        if peer == "lmdb":
            raise PeerFailedError("broken")
        return figures()

    def filled(self, case, peer, limit):
        return Path("nowhere"), self.saved(case, peer, limit)

    def ask(self, case, peer, place, limit):
        return self.saved(case, peer, limit)


def measured(runner: FakeRunner, results: Results, *peers: str, plan: Plan = PLAN) -> None:
    Measurement(plan, peers, runner, results, lambda step: None, lambda: None).run()


def test_peers_take_turns_within_a_case_and_begin_in_turn():
    runner = FakeRunner()
    measured(runner, Results(), "raftwal", "etcd", plan=PLAN._replace(sections=("saving",)))
    first = PLAN.saving()[0]
    assert [peer for case, peer in runner.asked if case == first] == [
        "raftwal", "etcd", "etcd", "raftwal",
    ]  # fmt: skip
    assert runner.asked[0][0] == runner.asked[1][0]


def test_a_log_that_cannot_be_filled_is_not_filled_again_for_each_reading():
    runner, results = FakeRunner(), Results()
    measured(runner, results, "raftwal", "lmdb", plan=PLAN._replace(sections=("growth", "reading")))
    grown, read = PLAN.growing(10_000), PLAN.reading(128)
    assert [case for case, peer in runner.asked if peer == "lmdb"] == [grown[0], read[0]]
    assert {results.reason(case, "lmdb") for case in grown + read} == {f"{FAILED}broken"}
    assert [case for case, peer in runner.asked if peer == "raftwal"].count(grown[0]) == 1


def test_a_growth_step_that_would_take_too_long_is_left_out_with_its_reason():
    runner, results = FakeRunner(), Results()
    plan = PLAN._replace(sections=("growth",), growth=(100, 1000, 100_000), growth_limit=50.0)
    measured(runner, results, "raftwal", plan=plan)
    # Each takes a second here, whatever its length: ten times that is little, a hundred too much.
    assert {case.count for case, _ in runner.asked} == {100, 1000}
    assert "more than 50 s" in results.reason(plan.growing(100_000)[1], "raftwal")


def test_every_peer_has_a_line_of_its_own_in_the_plots():
    assert plots.STYLES.keys() == PEERS.keys()
    assert len({style[:2] for style in plots.STYLES.values()}) == len(PEERS)


def test_an_interrupted_run_goes_on_where_it_was():
    whole, first, second = FakeRunner(), FakeRunner(ends_at=7), FakeRunner()
    measured(whole, Results(), "raftwal", "etcd")
    results = Results()
    with pytest.raises(KeyboardInterrupt):
        measured(first, results, "raftwal", "etcd")
    assert len(results.rounds(PLAN.saving()[0], "raftwal")) == 1
    measured(second, results, "raftwal", "etcd")
    assert sorted(first.asked + second.asked) == sorted(whole.asked)


def test_a_peer_that_cannot_or_fails_is_asked_once_and_the_others_go_on():
    runner, results = FakeRunner(), Results()
    measured(runner, results, "raftwal", "tidwall", "lmdb")
    for case in PLAN.saving():
        assert runner.asked.count((case, "tidwall")) == runner.asked.count((case, "lmdb")) == 1
        assert results.reason(case, "tidwall") == "for a test"
        assert results.reason(case, "lmdb") == f"{FAILED}broken"
        assert len(results.rounds(case, "raftwal")) == PLAN.rounds


def test_every_case_is_whole_saves_and_enough_of_them():
    plan = PLAN._replace(sizes=(128, 1024, 16 << 10), batches=(1, 16, 128, 1024))
    for case in plan.saving():
        assert case.count % case.batch == 0, case
        assert case.count // case.batch >= 8, case
        assert case.count * case.size <= 256 << 20, case


@pytest.mark.parametrize("implementation", ["native, and how", "pure Python"])
def test_pure_python_is_a_peer_of_its_own_beside_a_native_raftwal_only(monkeypatch, implementation):
    monkeypatch.setattr(building, "implementation", lambda: implementation)
    programs = building.build(["raftwal", "raftwal-pure"])
    assert "RAFTWAL_PURE_PYTHON" not in programs.built["raftwal"].environment
    if implementation.startswith("native"):
        assert programs.built["raftwal-pure"].environment["RAFTWAL_PURE_PYTHON"] == "1"
    else:
        assert programs.left_out == {"raftwal-pure": "raftwal is pure Python here"}


@pytest.mark.parametrize(
    ("said", "implementation"),
    [
        ("raftwal 0.1.0", "pure Python"),
        ("raftwal 0.1.0 (native, CRC-32C by sse4.2)", "native, CRC-32C by sse4.2"),
        ("raftwal 0.1.0 (pure Python)", "pure Python"),
    ],
)
def test_the_version_says_which_implementation_is_in_use(monkeypatch, said, implementation):
    done = subprocess.CompletedProcess([], 0, said + "\n", "")
    monkeypatch.setattr(building.subprocess, "run", lambda *args, **settings: done)
    assert building.implementation.__wrapped__() == implementation


# A peer's program, which here is one of a line.


def answering(tmp_path: Path, said: object, status: int = 0) -> Runner:
    code = f"import sys; print({json.dumps(said)!r}); sys.exit({status})"
    return Runner(tmp_path, {"etcd": Program([sys.executable, "-c", code], {})})


READ = Case("reading", "read", 128, 1024, 10, True)


def test_a_log_that_is_not_what_was_saved_is_a_failure(tmp_path):
    said = {**figures(entries=10, bytes=1280), "digest": 0, "versions": {}}
    with pytest.raises(PeerFailedError, match="gave back"):
        answering(tmp_path, said).ask(READ, "etcd", tmp_path, 1.0)


def test_a_program_that_ends_badly_is_a_failure(tmp_path):
    with pytest.raises(PeerFailedError, match="ended with 3"):
        answering(tmp_path, {}, status=3).ask(READ, "etcd", tmp_path, 1.0)


def test_a_program_that_says_it_cannot_gives_its_reason(tmp_path):
    with pytest.raises(CannotSayError, match="no such thing"):
        answering(tmp_path, {"cannot": "no such thing"}).ask(READ, "etcd", tmp_path, 1.0)
