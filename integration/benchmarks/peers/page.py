"""The document's figures: what stands between its markers is made of results, never typed.

``<!-- made: NAME -->`` begins what is made and ``<!-- end of NAME -->`` ends it; the prose
around them is written by hand, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from integration.benchmarks.peers import tables
from integration.benchmarks.peers.plots import PLOTS
from integration.benchmarks.peers.results import Results
from integration.benchmarks.peers.tables import Table

_BLOCK = re.compile(r"<!-- made: (?P<name>[a-z ]+) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)
_OPENING = re.compile(r"<!-- made: ([a-z ]+) -->")


class PageError(ValueError):
    """A document whose markers are not those of `BLOCKS`."""


def made_page(page: str, results: Results) -> str:
    """The document with all that is made of results made anew.

    Raises `PageError` when a marker has no end, or a name that nothing is made for.
    """
    names = [match["name"] for match in _BLOCK.finditer(page)]
    if names != _OPENING.findall(page):
        raise PageError("a marker of what is made has no end")
    unknown = set(names) - BLOCKS.keys()
    if unknown:
        raise PageError(f"nothing is made for {', '.join(sorted(unknown))}")

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        text = BLOCKS[name](results).strip()
        return f"<!-- made: {name} -->\n{text}\n<!-- end of {name} -->"

    return _BLOCK.sub(made, page)


def _facts(results: Results) -> str:
    lines = [f"- {name}: {value}" for name, value in results.facts.items()]
    if not results.finished:
        lines.append("- this run was interrupted: what is missing was not measured")
    return "\n".join(lines)


def _profiles(results: Results) -> str:
    return "\n\n".join(
        f"{name[:1].upper()}{name[1:]}:\n\n```text\n{text}\n```"
        for name, text in results.profiles.items()
    )


def _of_section(
    section: str, made: Callable[[Results], Iterable[Table]], *plots: str
) -> Callable[[Results], str]:
    def text(results: Results) -> str:
        if not results.peers(section):
            return "Not measured in this run."
        pictures = [f"![{PLOTS[name].title}](performance/{name}.svg)" for name in plots]
        return "\n\n".join([*pictures, *[table.markdown() for table in made(results)]])

    return text


BLOCKS: dict[str, Callable[[Results], str]] = {
    "machine": _facts,
    "aims": lambda results: tables.aim_table(results).markdown(),
    "saving with sync": _of_section(
        "saving", lambda results: tables.saving(results, sync=True), "saving-with-sync"
    ),
    "latency": _of_section("saving", lambda results: [tables.latency(results)], "latency"),
    "saving without sync": _of_section(
        "saving", lambda results: tables.saving(results, sync=False), "saving-without-sync"
    ),
    "processor time": _of_section("saving", lambda results: [tables.cpu(results)]),
    "threads": _of_section("threads", lambda results: [tables.threads(results)]),
    "reading": _of_section(
        "reading", lambda results: [tables.reading(results), tables.replay(results)], "reading"
    ),
    "growth": _of_section("growth", tables.growth, "growth"),
    "checksums": _of_section("checksum", lambda results: [tables.checksum(results)]),
    "profiles": _profiles,
    "no figures": lambda results: tables.reasons(results).markdown(),
}
