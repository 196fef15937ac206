"""The order in which it is all measured: round by round, and in each, peer by peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from integration.benchmarks.peers.cases import Case, Plan
from integration.benchmarks.peers.known import WITH_CHECKSUM
from integration.benchmarks.peers.results import Results
from integration.benchmarks.peers.runs import CannotSayError, PeerFailedError, Runner, remove

FAILED = "failed: "
"""How the reason begins when a peer's program failed, instead of saying that it cannot."""
TOO_LONG = "it would take "
"""How the reason begins when a step was left out, instead of being tried."""


class Step(NamedTuple):
    """One case with one peer that is about to be measured; the first is number 1."""

    number: int
    total: int
    round: int
    case: Case
    peer: str


class Measurement:
    """A plan as it is carried out.

    What ``results`` has is not measured again.  ``told`` hears of each step before it, and
    ``kept`` is called after each, so that an interrupted run loses only the one at hand.
    """

    def __init__(
        self,
        plan: Plan,
        peers: Sequence[str],
        runner: Runner,
        results: Results,
        told: Callable[[Step], None],
        kept: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._peers = peers
        self._runner = runner
        self._results = results
        self._told = told
        self._kept = kept
        self._number = 0
        self._total = self._count()

    def run(self) -> None:
        for section in self._plan.sections:
            getattr(self, f"_{section}")()

    def _saving(self) -> None:
        self._save_in_rounds(self._plan.saving())

    def _threads(self) -> None:
        self._save_in_rounds(self._plan.by_threads())

    def _save_in_rounds(self, cases: list[Case]) -> None:
        for number in range(self._plan.rounds):
            for case in cases:
                times = self._plan.times_a_round(case)
                for each in range(number * times, (number + 1) * times):
                    for peer in self._in_turn(each):
                        self._step(case, peer, each, self._save)

    def _save(self, case: Case, peer: str) -> dict[str, Any]:
        return self._runner.saved(case, peer, self._plan.limit)

    def _reading(self) -> None:
        for size in self._plan.sizes:
            cases = self._plan.reading(size)
            with _Logs(self._runner, self._plan.growth_limit) as logs:
                for number in range(self._plan.rounds):
                    for peer in self._in_turn(number):
                        for case in cases:
                            self._step(case, peer, number, logs.read)

    def _growth(self) -> None:
        """Each peer up to where the next step would take too long."""
        for peer in self._peers:
            too_long = False
            for count in self._plan.growth:
                with _Logs(self._runner, self._plan.growth_limit) as logs:
                    cases = self._plan.growing(count)
                    for case in cases:
                        if too_long and not self._results.has(case, peer, 0):
                            reason = f"{TOO_LONG}more than {self._plan.growth_limit:.0f} s"
                            self._results.add_cannot(case, peer, reason)
                        self._step(case, peer, 0, logs.fill if case.do == "save" else logs.read)
                too_long = too_long or self._next_is_too_long(cases, peer, count)

    def _next_is_too_long(self, cases: list[Case], peer: str, count: int) -> bool:
        done = [self._results.rounds(case, peer).get(0) for case in cases[:2]]
        if None in done:
            return True
        longer = [each for each in self._plan.growth if each > count]
        factor = min(longer) / count if longer else 1
        slowest = max(each["seconds"] for each in done if each is not None)
        return bool(slowest * factor > self._plan.growth_limit)

    def _checksum(self) -> None:
        for number in range(self._plan.rounds):
            for case in self._plan.checksums():
                for peer in self._in_turn(number):
                    if peer in WITH_CHECKSUM:
                        self._step(case, peer, number, self._save)

    def _in_turn(self, number: int) -> Iterator[str]:
        """Each round begins with another: what one leaves to the machine meets not always the
        same next one."""
        first = number % len(self._peers)
        yield from self._peers[first:]
        yield from self._peers[:first]

    def _step(
        self,
        case: Case,
        peer: str,
        number: int,
        measure: Callable[[Case, str], dict[str, Any]],
    ) -> None:
        self._number += 1
        if self._results.has(case, peer, number):
            return
        self._told(Step(self._number, self._total, number, case, peer))
        try:
            self._results.add(case, peer, number, measure(case, peer))
        except CannotSayError as reason:
            self._results.add_cannot(case, peer, str(reason))
        except PeerFailedError as error:
            self._results.add_cannot(case, peer, f"{FAILED}{error}")
        self._kept()

    def _count(self) -> int:
        plan, peers = self._plan, len(self._peers)
        of = {
            "saving": sum(map(plan.times_a_round, plan.saving())) * plan.rounds * peers,
            "threads": sum(map(plan.times_a_round, plan.by_threads())) * plan.rounds * peers,
            "reading": 2 * len(plan.sizes) * plan.rounds * peers,
            "growth": 3 * len(plan.growth) * peers,
            "checksum": len(plan.checksums())
            * plan.rounds
            * sum(peer in WITH_CHECKSUM for peer in self._peers),
        }
        return sum(of[section] for section in plan.sections)


class _Logs:
    """Filled logs that are read again and again; on exit they are gone."""

    def __init__(self, runner: Runner, limit: float) -> None:
        self._runner = runner
        self._limit = limit
        self._places: dict[str, Path] = {}
        self._in_vain: dict[str, CannotSayError | PeerFailedError] = {}

    def __enter__(self) -> _Logs:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for place in self._places.values():
            remove(place)

    def fill(self, case: Case, peer: str) -> dict[str, Any]:
        try:
            self._places[peer], answer = self._runner.filled(case, peer, self._limit)
        except (CannotSayError, PeerFailedError) as error:
            self._in_vain[peer] = error
            raise
        return answer

    def read(self, case: Case, peer: str) -> dict[str, Any]:
        if peer in self._in_vain:
            # Not filled again for each thing that would be read of it.
            raise self._in_vain[peer]
        if peer not in self._places:
            self.fill(case, peer)
        return self._runner.ask(case, peer, self._places[peer], self._limit)
