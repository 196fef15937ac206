"""Patroni from PyPI and PostgreSQL from Debian, for the user that may run them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from conftest import missing

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(__file__).parent / "patroni"
USER = "postgres"
# Debian's own: the user has to be able to read the interpreter, too.
PYTHON = "/usr/bin/python3"
OLDEST_PYTHON = (3, 10)
PACKAGES = ["patroni[raft]>=4.0", "psycopg[binary]>=3.1", str(ROOT)]
STOP_SECONDS = 10.0
RUN_SECONDS = 60.0
_VARIABLES = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


class PatroniEnvironment:
    """A virtual environment and a place for data, below ``directory``.

    Whatever is started with `start` has its working directory below it, and so has all
    that Patroni starts: that is how `close` finds it.
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            missing("root on Linux, to run Patroni as another user and to mount small disks")
        try:
            self._user = pwd.getpwnam(USER)
        except KeyError:
            missing(f"the user {USER} (Debian package: postgresql)")
        self.postgres = _newest_postgres()
        _check_python()
        # Not pytest's own: that is closed to other users.
        self.directory = Path(tempfile.mkdtemp(prefix="raftwal-patroni-", dir="/var/tmp"))
        self.directory.chmod(0o755)
        self.bin = self.directory / "venv" / "bin"
        try:
            self._install()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PatroniEnvironment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _install(self) -> None:
        venv = self.directory / "venv"
        _run_or_miss([PYTHON, "-m", "venv", str(venv)], "venv (Debian package: python3-venv)")
        pip = [str(self.bin / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        _run_or_miss([*pip, *PACKAGES], "a package index to install Patroni from")
        (site_packages,) = (venv / "lib").glob("python3*/site-packages")
        shutil.copy(PROGRAMS / "witness.py", site_packages / "raftwal_witness.py")
        (site_packages / "raftwal_witness.pth").write_text("import raftwal_witness\n")
        shutil.copy(PROGRAMS / "dcs_writer.py", self.directory)

    def make_directory(self, path: Path) -> Path:
        """A directory that belongs to the user."""
        path.mkdir(exist_ok=True)
        self.give(path)
        return path

    def give(self, path: Path) -> None:
        path.chmod(0o700)
        os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def write(self, path: Path, text: str) -> Path:
        """A file that the user can read."""
        path.write_text(text)
        os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return path

    def start(
        self, command: list[str], directory: Path, log: Path, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a command of the user's, as a service manager would; it writes to ``log``."""
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=directory,
                env={**_VARIABLES, **variables},
                user=self._user.pw_uid,
                group=self._user.pw_gid,
                extra_groups=[],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def run(self, command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the user's to its end."""
        return subprocess.run(
            command,
            cwd=directory,
            env=_VARIABLES,
            user=self._user.pw_uid,
            group=self._user.pw_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def processes(self, directory: Path | None = None) -> list[int]:
        """All that has its working directory below, which PostgreSQL's processes do."""
        below = str(directory or self.directory)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    place = str((entry / "cwd").readlink())
                    if place == below or place.startswith(f"{below}/"):
                        found.append(int(entry.name))
        return found

    def kill_everything(self, directory: Path | None = None) -> None:
        """SIGKILL to all of them, until there are none."""
        deadline = time.monotonic() + STOP_SECONDS
        while left := self.processes(directory):
            assert time.monotonic() < deadline, f"processes that do not end: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def close(self) -> None:
        self.kill_everything()
        shutil.rmtree(self.directory, ignore_errors=True)


def _newest_postgres() -> Path:
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not versions:
        missing("PostgreSQL (Debian package: postgresql)")
    return max(versions, key=lambda path: int(path.parent.name))


def _check_python() -> None:
    if not Path(PYTHON).exists():
        missing(f"{PYTHON} (Debian package: python3)")
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if tuple(map(int, version)) < OLDEST_PYTHON:
        missing(f"Debian's Python 3.10 or newer, not {'.'.join(version)}")


def _run_or_miss(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"{what}: {(done.stderr or done.stdout).strip()[-500:]}")
