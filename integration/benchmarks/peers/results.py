"""What was measured, as a file: small enough to be kept beside the document made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from integration.benchmarks.peers.cases import Case

COLUMNS = (
    "seconds", "cpu", "entries", "saves", "p50", "p99", "longest", "stopped", "bytes",
    "rss_before", "rss_peak", "disk",
)  # fmt: skip
"""What is kept of an answer, in this order: see `protocol`.  ``disk`` is bytes taken there."""
_FORMAT = 1
_DIGITS = 5

Figures = dict[str, Any]


class ResultsError(ValueError):
    """A file that holds no results."""


class Results:
    """Figures by case, peer and round."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        """Machine and versions, for people."""
        self.settings: dict[str, Any] = {}
        self.finished = False
        self.left_out: dict[str, str] = {}
        self.profiles: dict[str, str] = {}
        self._figures: dict[tuple[Case, str], dict[int, Figures]] = {}
        self._cannot: dict[tuple[Case, str], str] = {}

    def add(self, case: Case, peer: str, number: int, answer: Mapping[str, Any]) -> None:
        kept = {name: answer[name] for name in COLUMNS if name in answer}
        self._figures.setdefault((case, peer), {})[number] = kept

    def add_cannot(self, case: Case, peer: str, reason: str) -> None:
        self._cannot[case, peer] = reason

    def has(self, case: Case, peer: str, number: int) -> bool:
        return (case, peer) in self._cannot or number in self._figures.get((case, peer), {})

    def rounds(self, case: Case, peer: str) -> dict[int, Figures]:
        return self._figures.get((case, peer), {})

    def reason(self, case: Case, peer: str) -> str | None:
        """Why the peer has no figure for the case, if it said so."""
        return self._cannot.get((case, peer))

    def cases(self, section: str) -> list[Case]:
        keys = [*self._figures, *self._cannot]
        return list(dict.fromkeys(case for case, _ in keys if case.section == section))

    def peers(self, section: str) -> list[str]:
        """Of those with a figure there."""
        return list(dict.fromkeys(peer for case, peer in self._figures if case.section == section))

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        head = {
            "format": _FORMAT,
            "finished": self.finished,
            "facts": self.facts,
            "settings": self.settings,
            "left_out": self.left_out,
            "profiles": self.profiles,
            "columns": COLUMNS,
        }
        rows = [
            json.dumps([list(case), peer, {number: _row(each) for number, each in rounds.items()}])
            for (case, peer), rounds in self._figures.items()
        ]
        rows += [
            json.dumps([list(case), peer, reason]) for (case, peer), reason in self._cannot.items()
        ]
        text = json.dumps(head, indent=1)[:-2] + ',\n "measured": [\n' + ",\n".join(rows) + "\n]}\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text)
        os.replace(temporary, path)


def load(path: Path) -> Results:
    """Raises `ResultsError`."""
    try:
        stored = json.loads(path.read_text())
        if stored["format"] != _FORMAT:
            raise ResultsError(f"{path} has format {stored['format']}, not {_FORMAT}")
        made = Results()
        for name in ("finished", "facts", "settings", "left_out", "profiles"):
            setattr(made, name, stored[name])
        for fields, peer, told in stored["measured"]:
            case = Case(*fields)
            if isinstance(told, str):
                made.add_cannot(case, peer, told)
                continue
            for number, row in told.items():
                kept = zip(stored["columns"], row, strict=True)
                made.add(case, peer, int(number), {k: v for k, v in kept if v is not None})
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{path} holds no results: {error}") from error
    return made


def _row(figures: Figures) -> list[Any]:
    return [_rounded(figures.get(name)) for name in COLUMNS]


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
