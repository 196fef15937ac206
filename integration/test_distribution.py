"""The wheel and the sdist build, install into an empty environment, and work there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
from raftwal import RaftStorage, HardState, Entry
from raftwal.pysyncobj import DurableSyncObj
with RaftStorage.open("data", metadata=b"m") as storage:
    storage.save(HardState(1, 1, 1), [Entry(1, 1, b"x")])
with RaftStorage.open("data", metadata=b"m") as storage:
    assert storage.recovered.entries == [Entry(1, 1, b"x")]
"""


def run(*command, cwd=None):
    # Without what the tests' own environment would add to the new one's.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", target, ROOT)
    return target


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_into_an_empty_environment_and_works(built, tmp_path, kind):
    (package,) = built.glob(kind)
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", package)
    run(binaries / "python", "-c", PROGRAM, cwd=tmp_path)
    assert run(binaries / "raftwal", "--version").startswith("raftwal 0.")
    assert "ends cleanly" in run(binaries / "raftwal", "repair", tmp_path / "data")
    installed = next((tmp_path / "venv" / "lib").glob("python3.*/site-packages/raftwal"))
    assert (installed / "py.typed").exists()
    assert (installed / "wire" / "wal.proto").exists()
