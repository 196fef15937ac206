"""What the documentation says is so: its programs run, its commands print what it shows,
its links lead somewhere, and its lists are those of the code.

Conventions, for README.md and docs/*.md (CHANGELOG.md: links only):

- Each file's blocks run in the file's order, in one process, in an empty directory.
- A ```python block is executed; all of a file's share one namespace.
- In a ```console or ```sh block, a line ``$ raftwal ...`` or ``$ python -m raftwal ...``
  is executed in that directory and must exit with 0, or with N if it ends in ``# exits N``.
  Pipes are fine.  In ```console, lines that follow it, if any, are what it prints (both
  streams); a line ``...`` stands for any number of lines.  Other ``$`` lines are not run.
- ```python no-run and ```console no-run are not executed; the line before the block gives
  the reason: ``<!-- no-run: REASON -->``.
- Nothing that is run names a place outside its directory: no path begins with ``/``.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import json
import os
import re
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

import raftwal
from raftwal import errors
from raftwal.metrics import SPECS, storage_metrics

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md"]
PACKAGE = ROOT / "raftwal"
MODULES = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py"))

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

COMMAND = re.compile(r"\$ (?:raftwal|python -m raftwal)(?: |$)")
NO_RUN = re.compile(r"<!-- no-run: \S+ \S+.* -->")
OUTSIDE = re.compile(r"/[a-z]+(?:/|$)")
SECONDS = 120


class Block(NamedTuple):
    info: str
    line: int
    """Of the fence, counted from 1."""
    text: str
    before: str
    """The line before the fence."""

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def is_run(self) -> bool:
        return not self.info.endswith(" no-run")


def blocks(text: str) -> Iterator[Block]:
    fence, info, start, before = "", "", 0, ""
    body: list[str] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        opening = re.match(r"(`{3,}|~{3,})\s*(.*)", line)
        if not fence and opening:
            fence, info, start, body = opening[1], opening[2].strip(), number, []
            before = lines[number - 2] if number > 1 else ""
        elif fence and re.fullmatch(re.escape(fence[0]) + f"{{{len(fence)},}}\\s*", line):
            yield Block(info, start, "\n".join(body) + "\n", before)
            fence = ""
        else:
            body.append(line)
    assert not fence, f"the block that begins on line {start} does not end"


def blocks_of(page: Path) -> list[Block]:
    return list(blocks(page.read_text(encoding="utf-8")))


def without_code(text: str) -> str:
    """The text alone: fenced blocks and `spans` taken out."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)[^`].*?\1", "", text)


class Command(NamedTuple):
    line: int
    text: str
    status: int
    output: str | None


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    lines = block.text.splitlines()
    shows_output = block.language == "console"
    position = 0
    while position < len(lines):
        line, number = lines[position], block.line + 1 + position
        position += 1
        if not COMMAND.match(line):
            continue
        while line.endswith("\\"):
            line = line[:-1] + lines[position]
            position += 1
        output = []
        while position < len(lines) and not lines[position].startswith("$ "):
            output.append(lines[position])
            position += 1
        status = re.search(r"# exits (\d+)$", line)
        found.append(
            Command(
                number,
                line.removeprefix("$ "),
                int(status[1]) if status else 0,
                "\n".join(output).strip("\n") if shows_output and any(output) else None,
            )
        )
    return found


def is_shown(shown: str, printed: str) -> bool:
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else re.escape(line.rstrip()) + r"\n"
        for line in shown.splitlines()
    )
    stripped = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in stripped)) is not None


# Runs in a process of its own: an application's nodes and install() change the whole process.
RUNNER = """
import json, sys, __main__

def _run(steps):
    import subprocess
    for step in steps:
        if "python" in step:
            # As many empty lines before it as there are in the page: a traceback then names
            # the page's own line.
            source = "\\n" * step["line"] + step["python"]
            exec(compile(source, step["page"], "exec"), vars(__main__))
        else:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", step["command"]],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            step["exited"] = done.returncode
            step["printed"] = done.stdout.decode()

with open(sys.argv[1]) as _file:
    _steps = json.load(_file)
_run(_steps)
with open(sys.argv[1], "w") as _file:
    json.dump(_steps, _file)
"""


def make_programs(directory: Path) -> None:
    """``raftwal`` and ``python``, as they are in an activated virtual environment."""
    directory.mkdir()
    for name, arguments in (("raftwal", " -m raftwal"), ("python", "")):
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def steps_of(page: Path) -> list[dict]:
    steps: list[dict] = []
    for block in blocks_of(page):
        if not block.is_run:
            continue
        if block.language == "python":
            steps.append({"page": page.name, "line": block.line, "python": block.text})
        elif block.language in ("console", "sh"):
            steps += [
                {"line": command.line, "command": command.text, "command_of": command}
                for command in commands(block)
            ]
    return steps


def assert_stays_in_its_directory(page: Path) -> None:
    for block in blocks_of(page):
        if not block.is_run:
            continue
        place = f"{page.name}, line {block.line}"
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    path = node.value
                    # What HTTP asks for is no path of this machine.
                    is_url = path in ("/metrics", "/healthz", "/readyz")
                    assert is_url or not OUTSIDE.match(path), f"{place}: {path}"
        elif block.language in ("console", "sh"):
            for command in commands(block):
                for word in command.text.split():
                    assert not OUTSIDE.match(word), f"{place}: {word}"


@every_page
def test_programs_run_and_commands_print_what_is_shown(page, tmp_path):
    assert_stays_in_its_directory(page)
    steps = steps_of(page)
    expected = [step.pop("command_of", None) for step in steps]
    make_programs(tmp_path / "bin")
    directory = tmp_path / "empty"
    directory.mkdir()
    script = tmp_path / "steps.json"
    script.write_text(json.dumps(steps))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, str(script)],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    for step, command in zip(json.loads(script.read_text()), expected, strict=True):
        if command is None:
            continue
        place = f"{page.name}, line {command.line}: $ {command.text}"
        assert step["exited"] == command.status, f"{place}\n{step['printed']}"
        if command.output is not None:
            assert is_shown(command.output, step["printed"]), f"{place}\n{step['printed']}"


@every_page
def test_what_is_not_run_says_why(page):
    for block in blocks_of(page):
        place = f"{page.name}, line {block.line}"
        if block.info in ("python no-run", "console no-run"):
            assert NO_RUN.fullmatch(block.before.strip()), f"{place}: no reason before it"
            if block.language == "python":
                ast.parse(block.text)
        elif block.language in ("python", "py", "python3", "pycon"):
            assert block.info == "python", f"{place}: ```{block.info}"
        if block.language not in ("console", "sh"):
            assert not re.search(COMMAND.pattern, block.text), f"{place}: not console or sh"


@every_page
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    for block in blocks_of(page):
        if block.language in ("console", "sh"):
            for target in re.findall(r"^(?:\$ )?make ([a-z]+)", block.text, re.M):
                assert target in targets, f"{page.name}, line {block.line}: make {target}"
    for target in re.findall(r"`make ([a-z]+)`", page.read_text(encoding="utf-8")):
        assert target in targets, f"{page.name}: make {target}"


@every_page
def test_files_that_are_named_exist(page):
    """In `backticks`: tests by their names, anything else by its path from the top."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests/|integration/)?test_\w+\.py)`", text):
        places = [ROOT / name, ROOT / "tests" / name, ROOT / "integration" / name]
        assert any(map(Path.exists, places)), f"{page.name}: {name}"
    for name in re.findall(r"`((?:tests|integration|examples|docs|raftwal)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def defined_in(path: Path) -> set[str]:
    """The functions and classes of a test module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }


@every_page
def test_tests_that_are_named_exist(page):
    """As ``test_module.py::test_name``."""
    text = page.read_text(encoding="utf-8")
    for module, name in re.findall(r"`(test_\w+\.py)::(\w+)`", text):
        (path,) = [ROOT / part / module for part in ("tests", "integration")
                   if (ROOT / part / module).exists()]  # fmt: skip
        assert name in defined_in(path), f"{page.name}: {module}::{name}"


def test_every_row_of_the_parity_table_has_a_test_or_no_counterpart():
    text = (ROOT / "docs" / "etcd-parity.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        assert "`test_" in row[2] or row[1].strip().startswith("none"), row


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    found: set[str] = set()
    in_code = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", in_code, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = "".join(c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LNM")
        slug = kept.replace(" ", "-")
        number = 1
        while slug in found:
            slug = f"{kept.replace(' ', '-')}-{number}"
            number += 1
        found.add(slug)
    return found


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    prose = without_code(text.replace("[`", "[").replace("`]", "]"))
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", prose)
    targets += re.findall(r"^\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", prose, re.M)
    targets += re.findall(r"""(?:src|href)=["']([^"']+)""", prose)
    for target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert path.is_relative_to(ROOT), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page.name}: {target}"


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its rank or a higher one."""
    text = page.read_text(encoding="utf-8")
    match = re.search(rf"^(#+) {re.escape(heading)}\s*$", text, re.M)
    assert match, f"{page.name} has no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of every table row below its head."""
    lines = [line.strip() for line in text.splitlines() if line.lstrip().startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    is_rule = [all(re.fullmatch(r":?-+:?", cell) for cell in row) for row in cells]
    heads = {number - 1 for number, rule in enumerate(is_rule) if rule}
    return [row for n, row in enumerate(cells) if not is_rule[n] and n not in heads]


def registered(namespace: str) -> list[str]:
    """The metrics' names as a scrape shows them, in the order of `SPECS`."""
    registry = CollectorRegistry()
    storage_metrics("node", registry=registry, namespace=namespace)
    names = [
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
    ]
    assert len(names) == len(SPECS)
    return names


def test_metrics_table_is_what_is_registered():
    names_in = [
        re.findall(r"`((?:raftwal|etcd)_\w+)", " ".join(row))
        for row in rows(section(README, "Metrics"))
    ]
    own, etcd = registered("raftwal"), registered("etcd")
    has_etcd = any(name.startswith("etcd_") for names in names_in for name in names)
    expected = [[a, b] if has_etcd else [a] for a, b in zip(own, etcd, strict=True)]
    assert sorted(names_in) == sorted(expected)


def test_public_names_are_mentioned():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = [*raftwal.__all__, *importlib.import_module("raftwal.pysyncobj").__all__]
    missing = [name for name in names if not re.search(rf"(?<!\w){name}(?!\w)", text)]
    assert not missing


def test_error_tree_is_that_of_the_classes():
    tree: dict[str, tuple[str | None, set[str]]] = {"RaftwalError": (None, set())}
    above = ["RaftwalError"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:│   |    )*)[├└]── (\w+)(?: \((\w+)\))?", line)
        if match:
            depth = len(match[1]) // 4 + 1
            above[depth:] = [match[2]]
            builtin = {match[3]} if match[3] else set()
            assert match[2] not in tree, match[2]
            tree[match[2]] = (above[depth - 1], builtin)
    classes = {
        name: thing
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.RaftwalError)
    }
    assert sorted(tree) == sorted(classes)
    for name, thing in classes.items():
        assert thing.__doc__, name
        bases = [base.__name__ for base in thing.__bases__]
        own = [base for base in bases if base in classes]
        if name != "RaftwalError":
            assert tree[name] == (own[0], set(bases) - set(own)), name


def test_modules_are_listed_once_and_exist():
    listed = [row[0].strip("`") for row in rows(section(ARCHITECTURE, "Rooms"))]
    assert sorted(listed) == MODULES


def layers() -> list[list[str]]:
    """The rooms as the diagram has them, the highest line first."""
    (diagram,) = [block for block in blocks_of(ARCHITECTURE) if block.info == "rooms"]
    return [line.split() for line in diagram.text.splitlines() if line.strip()]


def room_of(module: str) -> str:
    if module == "raftwal":
        return module
    return ".".join(module.split(".")[:2])


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str) -> set[str]:
    """The modules that a file imports, functions and ``if TYPE_CHECKING`` included."""
    known = {module_name(module) for module in MODULES}
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            for alias in node.names:
                name = f"{module}.{alias.name}"
                found.add(name if name in known else module)
    return found


def own_imports(path: str) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "raftwal"}


def test_every_room_is_in_the_diagram():
    rooms = [room for layer in layers() for room in layer]
    assert sorted(rooms) == sorted({room_of(module_name(path)) for path in MODULES})


@pytest.mark.parametrize("path", MODULES)
def test_no_room_knows_one_above_or_beside_it(path):
    height = {room: -depth for depth, layer in enumerate(layers()) for room in layer}
    room = room_of(module_name(path))
    for name in own_imports(path):
        other = room_of(name)
        assert other == room or height[other] < height[room], f"{path} imports {name}"


def test_modules_do_not_import_each_other_in_circles():
    graph = {module_name(path): own_imports(path) for path in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("pysyncobj", {"raftwal.pysyncobj"}),
        ("google.protobuf", {"raftwal.wire"}),
        ("google_crc32c", {"raftwal.wire"}),
        ("structlog", {"raftwal.events"}),
        ("fcntl", {"raftwal.fs"}),
        # shutil.which finds a program to launch.
        ("shutil", {"raftwal.fs", "raftwal.pysyncobj", "raftwal.testing"}),
    ],
)
def test_each_outside_package_is_known_where_it_belongs(package, rooms):
    users = {
        room_of(module_name(path))
        for path in MODULES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert users == rooms


def test_importing_the_public_face_brings_in_nothing_above_it():
    code = "import json, sys, raftwal; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))
    above = {room for layer in layers()[: layers().index(["raftwal"])] for room in layer}
    assert not {room_of(name) for name in loaded if name.startswith("raftwal")} & above
    assert "pysyncobj" not in loaded


# The checks above are only as good as the reading of a page.


def test_blocks_commands_and_output_are_read():
    text = (
        "a\n```python\nx = 1\n```\n"
        "```console\n$ ls\nb\n$ raftwal dump \\\n n  # exits 2\n\nc\n```\n"
    )
    python, console = blocks(text)
    assert (python.info, python.line, python.text, python.before) == ("python", 2, "x = 1\n", "a")
    assert commands(console) == [Command(8, "raftwal dump  n  # exits 2", 2, "c")]


@pytest.mark.parametrize(
    ("shown", "same"),
    [("a\nb\nc", True), ("a\n...\nc", True), ("...", True), ("a\n...", True), ("a\nc", False)],
)
def test_dots_stand_for_any_lines(shown, same):
    assert is_shown(shown, "a  \nb\nc\n") is same
