"""The wheel and the sdist build, install into an empty environment, and work there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
import zipfile
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


def run(*command, cwd=None, **settings):
    # Without what the tests' own environment would add to the new one's.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
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
    assert not list(installed.rglob("*.c"))


@pytest.mark.parametrize(
    ("compiler", "implementation"), [("false", "pure Python"), ("cc", "native, CRC-32C by ")]
)
def test_without_a_compiler_it_installs_too_and_works_in_python(
    built, tmp_path, compiler, implementation
):
    (package,) = built.glob("*.tar.gz")
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    pip = [binaries / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    run(*pip, package, CC=compiler)
    run(binaries / "python", "-c", PROGRAM, cwd=tmp_path)
    assert f"({implementation}" in run(binaries / "raftwal", "--version")


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="looks at Linux's wheels"
)
def test_wheels_for_other_machines_are_made_here_and_the_one_for_this_machine_works(tmp_path):
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    wheels = "x86_64-linux-gnu.2.17=manylinux2014_x86_64 aarch64-macos.11.0=macosx_11_0_arm64"
    run("make", "wheels", f"PYTHON={sys.executable}", f"WHEELS={wheels}", cwd=tree, MAKEFLAGS="")
    names = sorted(path.name.split("-", 2)[2] for path in (tree / "dist").iterdir())
    assert names == [
        "cp311-abi3-macosx_11_0_arm64.whl",
        "cp311-abi3-manylinux2014_x86_64.whl",
        "py3-none-any.whl",
    ]
    (mac,) = (tree / "dist").glob("*macosx*")
    with zipfile.ZipFile(mac) as archive:
        # A 64-bit Mach-O file.
        assert archive.read("raftwal/native/_codec.abi3.so")[:4] == b"\xcf\xfa\xed\xfe"
    (linux,) = (tree / "dist").glob("*manylinux*")
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", linux)
    run(binaries / "python", "-c", PROGRAM, cwd=tmp_path)
    assert "(native, CRC-32C by " in run(binaries / "raftwal", "--version")
