"""The native twin under the address and undefined-behaviour sanitizers: its own tests, and the
fuzzers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
INPUTS = 3_000
THEIR_TESTS = ("test_native.py", "test_direct_saves.py", "test_direct_saves_compared.py")


def sanitizer_libraries() -> str:
    found = []
    for name in ("libasan.so", "libubsan.so"):
        path = subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if not os.path.isabs(path):
            assert not os.environ.get("CI"), f"gcc has no {name}"
            pytest.skip(f"gcc has no {name}")
        found.append(path)
    return " ".join(found)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The environment of a Python that loads the sanitized package before any other."""
    if shutil.which("gcc") is None:
        assert not os.environ.get("CI"), "there is no gcc"
        pytest.skip("there is no gcc")
    tree = tmp_path_factory.mktemp("sanitized")
    for name in ("raftwal", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ
        | {
            "CC": "gcc",
            "CFLAGS": SANITIZERS,
            "LDFLAGS": SANITIZERS,
            "RAFTWAL_REQUIRE_NATIVE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    env = os.environ | {
        "LD_PRELOAD": sanitizer_libraries(),
        # Python keeps what it has allocated until its end; what it allocates in pools of its
        # own, the sanitizer could not look behind.
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "tests"))),
    }
    return tree, env


def run(sanitized, *arguments):
    tree, env = sanitized
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def test_the_sanitizers_are_at_work_and_on_the_package_that_is_tested(sanitized):
    """Reading a byte behind a buffer ends the process."""
    tree, _ = sanitized
    where = run(sanitized, "-c", "from raftwal.native import codec; print(codec.__file__)")
    assert where.stdout.strip().startswith(str(tree))
    program = "import ctypes\nctypes.string_at(ctypes.create_string_buffer(40), 4000)"
    overrun = run(sanitized, "-c", program)
    assert overrun.returncode != 0
    assert "AddressSanitizer" in overrun.stdout


def test_its_own_tests_pass(sanitized):
    done = run(
        sanitized,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"tests/{name}" for name in THEIR_TESTS),
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_no_fuzzed_input_fails(sanitized):
    done = run(sanitized, "-m", "fuzzing", "--inputs", str(INPUTS), "--processes", "1")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "nothing fails" in done.stdout
