"""The demo's result as tables."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from examples.demo.scenario import NodeResult, Result

_LOSSES_SHOWN = 10


def print_report(console: Console, result: Result) -> None:
    console.print()
    console.print(Group(_writes(result), _nodes(result)))
    for loss in result.losses[:_LOSSES_SHOWN]:
        console.print(Text(f"LOST: {loss}", style="bold red"), soft_wrap=True)
    if len(result.losses) > _LOSSES_SHOWN:
        console.print(f"... and {len(result.losses) - _LOSSES_SHOWN} more")


def _writes(result: Result) -> Table:
    table = Table(title="Writes", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("acknowledged", str(result.acknowledged))
    lost = str(len({loss.key for loss in result.losses}))
    table.add_row("lost", Text(lost, style="bold red" if result.losses else "bold green"))
    table.add_row("not acknowledged (outcome unknown)", str(result.unknown))
    table.add_row("    of those, there all the same", str(result.unknown_but_there))
    table.add_row("new leader after kill -9 of the old one", _time(result.election_seconds))
    return table


def _nodes(result: Result) -> Table:
    recoveries = [("the leader", result.leader_recovery)]
    recoveries += [("all three", node) for node in result.nodes]
    table = Table(title="Recoveries after kill -9", title_justify="left")
    table.add_column("killed")
    for killed, _ in recoveries:
        table.add_column(killed, justify="right")
    table.add_row("node", *(node.name for _, node in recoveries), end_section=True)
    for name, figure in _FIGURES.items():
        table.add_row(name, *(figure(node) for _, node in recoveries))
    return table


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{1 if seconds >= 0.01 else 2}f} ms"


_FIGURES: dict[str, Callable[[NodeResult], str]] = {
    "recovery time, until ready": lambda node: _time(node.ready_seconds),
    "    of which the storage": lambda node: _time(node.recovery_seconds),
    "snapshot index": lambda node: str(node.snapshot_index),
    "entries replayed": lambda node: str(node.entries_replayed),
    "torn tail repaired": lambda node: "yes" if node.torn_tail_repaired else "no",
    "fsyncs of the log since": lambda node: str(node.fsyncs.total),
    "fsync p50": lambda node: _time(node.fsyncs.p50_seconds),
    "fsync p99": lambda node: _time(node.fsyncs.p99_seconds),
}
