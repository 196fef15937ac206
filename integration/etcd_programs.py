"""etcd's own programs that Debian does not have, built from etcd's Go modules."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from conftest import missing, program
from etcd_packages import check_go_version, run_go

HERE = Path(__file__).parent


def newest_server() -> Path:
    """The newest etcd server; it takes ``ETCD_SEGMENT_BYTES`` from its environment."""
    return _built("etcd_newest", ".")


def dump_tool() -> Path:
    """``etcd-dump-logs``."""
    return _built("etcd_dump", "go.etcd.io/etcd/tools/etcd-dump-logs")


@functools.cache
def _built(directory: str, package: str) -> Path:
    """A program, built once a session from the module in a directory beside this file."""
    go = program("go")
    source = HERE / directory
    check_go_version(go, source / "go.mod")
    target = Path(tempfile.mkdtemp(prefix="raftwal-etcd-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    listed = run_go(go, "list", "-C", str(source), "-deps", package)
    if listed.returncode:
        missing(f"the Go modules of {package}: {listed.stderr.strip()[-500:]}")
    built = target / "program"
    done = run_go(go, "build", "-C", str(source), "-buildvcs=false", "-o", str(built), package)
    assert done.returncode == 0, done.stderr
    return built
