"""The peers' programs: built where they must be, found where they are."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from integration.benchmarks.peers.known import OWN, PEERS, PURE

ROOT = Path(__file__).parents[3]
BUILT = ROOT / "build" / "benchmarks" / "programs"
_GO = Path(__file__).parent / "go"
_RUST = Path(__file__).parent / "rust"
_BUILD_SECONDS = 1200


class MissingError(Exception):
    """What a peer takes is not here; the text says what."""


class Program(NamedTuple):
    """How a peer's program is started."""

    words: list[str]
    environment: dict[str, str]


class Programs(NamedTuple):
    """By the peers' names: the programs, and of the others, why there is none."""

    built: dict[str, Program]
    left_out: dict[str, str]


def build(names: Iterable[str], told: Callable[[str], None] = lambda text: None) -> Programs:
    """Build what is not built yet, or has changed."""
    made = Programs({}, {})
    for name in names:
        try:
            made.built[name] = _program(name, told)
        except MissingError as error:
            made.left_out[name] = str(error)
            told(f"{PEERS[name].title} is left out: {error}")
    return made


def _program(name: str, told: Callable[[str], None]) -> Program:
    peer = PEERS[name]
    if name == PURE and not implementation().startswith("native"):
        raise MissingError(f"{PEERS[OWN].title} is pure Python here")
    if peer.package and importlib.util.find_spec(peer.package) is None:
        raise MissingError(f"the Python package {peer.package} is not installed (extra: bench)")
    words = _words(peer.program)
    if peer.program == "python":
        # The repository's own packages, wherever it is run from.
        return Program(words, {"PYTHONPATH": str(ROOT), **peer.environment})
    if peer.program not in _told:
        _told.add(peer.program)
        told(f"building {Path(words[0]).name}")
    _BUILDERS[peer.program]()
    return Program(words, dict(peer.environment))


def _words(program: str) -> list[str]:
    if program == "python":
        return [sys.executable, "-m", "integration.benchmarks.peers.python"]
    if program == "rust":
        return [str(BUILT / "rust" / "release" / "raft-engine-peer")]
    return [str(BUILT / program)]


@functools.cache
def _build_go() -> None:
    _go_build("go", "go.mod")


@functools.cache
def _build_go_etcd_3_4() -> None:
    module_file = _GO / "go.3.4.mod"
    _go_build("go-etcd-3.4", module_file.name, f"-modfile={module_file}", "-tags=etcd3_4")


def _go_build(target: str, module_file: str, *settings: str) -> None:
    go = _tool("go")
    # The toolchain that is here, or none: a benchmark does not fetch another one.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    wanted = re.search(r"^go ([0-9.]+)$", (_GO / module_file).read_text(), re.MULTILINE)
    said = subprocess.run([go, "version"], capture_output=True, text=True, env=environment,
                          check=False).stdout  # fmt: skip
    found = re.search(r"go([0-9.]+)", said)
    assert wanted is not None
    if found is None or _numbers(found[1]) < _numbers(wanted[1]):
        raise MissingError(f"go >= {wanted[1]} (there is {found[1] if found else 'another'})")
    words = [go, "build", "-buildvcs=false", *settings, "-o", str(BUILT / target), "."]
    _run(words, _GO, environment)


@functools.cache
def _build_rust() -> None:
    environment = {**os.environ, "CARGO_TARGET_DIR": str(BUILT / "rust")}
    _run([_tool("cargo"), "build", "--release", "--quiet"], _RUST, environment)


_told: set[str] = set()
_BUILDERS = {"go": _build_go, "go-etcd-3.4": _build_go_etcd_3_4, "rust": _build_rust}


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingError(f"{name} is not installed")
    return path


def _run(words: list[str], directory: Path, environment: dict[str, str]) -> None:
    BUILT.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            words,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingError(f"{Path(words[0]).name} built for {_BUILD_SECONDS} s in vain") from None
    if done.returncode:
        raise MissingError(f"it does not build: {done.stderr.strip()[-600:]}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part]


@functools.cache
def implementation() -> str:
    """Which of raftwal's implementations is in use, as ``raftwal --version`` has it.

    A version that says nothing of it has only one.
    """
    said = subprocess.run(
        [sys.executable, "-m", "raftwal", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.search(r"\((.+)\)", said)
    return found[1] if found is not None else "pure Python"
