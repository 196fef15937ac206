"""From measured values to what is printed: medians, their spread, tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

# Wide enough that no row is broken: the tables are Markdown, too.
_COLUMNS = 200


class Spread(NamedTuple):
    """The median of the rounds, the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{shown(self.median)} ({shown(self.least)} to {shown(self.greatest)})"


def ratios(values: Sequence[float], to: Sequence[float]) -> Spread:
    """Round by round, so that what slowed the machine down for a while slowed both."""
    return Spread.of([value / other for value, other in zip(values, to, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def shown(value: float) -> str:
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


class Report:
    """Tables and lines: printed as they come, kept for a file."""

    def __init__(self, columns: int = _COLUMNS) -> None:
        self._console = Console(width=columns, record=True, highlight=False, markup=False)

    def line(self, text: str = "") -> None:
        self._console.print(text)

    def facts(self, facts: dict[str, str]) -> None:
        self.line("; ".join(f"{name}: {value}" for name, value in facts.items()))
        self.line()

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(box=box.MARKDOWN)
        for number, head in enumerate(heads):
            table.add_column(head, justify="left" if number == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def save(self, path: Path) -> None:
        """All of it as Markdown."""
        lines = self._console.export_text().splitlines()
        path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def save_json(path: Path, measured: Any) -> None:
    """Every single value, for whoever reckons anew."""
    path.write_text(json.dumps(measured, indent=1) + "\n")
