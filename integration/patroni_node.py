"""A Patroni member with its PostgreSQL, or a Raft controller: processes of their own."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from patroni_environment import PatroniEnvironment

SCOPE = "raftwal"
PASSWORD = "a password, so that all is encrypted"
# So that a disk that is full is met soon.
SEGMENT_BYTES = 1 << 16
# The shortest that Patroni takes.
TTL_SECONDS = 20
DEADLINE_SECONDS = 90.0
_POLL_SECONDS = 0.1
PAGE = Path(__file__).parents[1] / "docs" / "patroni.md"


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(_POLL_SECONDS)


def documented(beginning: str, ending: str = "") -> str:
    """The one command in docs/patroni.md that begins and ends like this."""
    lines = [line.strip().removeprefix("$ ") for line in PAGE.read_text().splitlines()]
    found = [line for line in lines if line.startswith(beginning) and line.endswith(ending)]
    assert len(found) == 1, f"{beginning!r} in {PAGE.name}: {found}"
    return found[0]


class RaftProcess:
    """A process that takes part in the cluster's Raft: a member, or the controller."""

    program = "patroni_raft_controller"

    def __init__(
        self,
        environment: PatroniEnvironment,
        directory: Path,
        address: str,
        metrics_address: str,
    ) -> None:
        self._environment = environment
        self.directory = environment.make_directory(directory)
        self.raft_dir = directory / "raft"
        self.name = directory.name
        self.address = address
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.is_durable = True
        """Whether it is started with the launcher in front, as docs/patroni.md has it."""
        self.metrics_address = metrics_address
        self._config = directory / "config.yml"
        self._witness = directory / "witness"

    @property
    def journal(self) -> Path:
        """Where PySyncObj's own would be."""
        return self.raft_dir / f"{self.address}.journal"

    @property
    def data_dir(self) -> Path:
        return self.raft_dir / f"{self.address}.journal.raftwal"

    def configure(self, partners: Sequence[RaftProcess]) -> None:
        self._environment.write(self._config, json.dumps(self.configuration(partners)))

    def configuration(self, partners: Sequence[RaftProcess]) -> dict[str, Any]:
        return {
            "scope": SCOPE,
            "name": self.name,
            "raft": {
                "data_dir": str(self.raft_dir),
                "self_addr": self.address,
                "partner_addrs": [partner.address for partner in partners],
                "password": PASSWORD,
            },
        }

    def command(self) -> list[str]:
        if not self.is_durable:
            return [str(self._environment.bin / self.program), str(self._config)]
        unit_line = documented("ExecStart=/", f" {self.program} /etc/patroni/patroni.yml")
        return self.here(unit_line.removeprefix("ExecStart="))

    def here(self, command: str) -> list[str]:
        """A documented command with this node's places in it."""
        for in_page, here in (
            ("/opt/patroni/bin", str(self._environment.bin)),
            ("/etc/patroni/patroni.yml", str(self._config)),
            ("/var/lib/patroni/raft/10.0.0.1:2222", str(self.raft_dir / self.address)),
            ("127.0.0.1:9547", self.metrics_address),
            ("--metrics-address 9547", f"--metrics-address {self.metrics_address}"),
            ("--segment-bytes 8000000", f"--segment-bytes {SEGMENT_BYTES}"),
        ):
            command = command.replace(in_page, here)
        program, *arguments = shlex.split(command)
        return [str(self._environment.bin / program), *arguments]

    def run(self, command: str) -> str:
        """Run a documented command as the user; what it prints."""
        done = self._environment.run(self.here(command), self.directory)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def is_ready(self) -> bool:
        """As docs/patroni.md asks it, with an HTTP client of its own."""
        assert self.is_running, f"{self.name} has ended"
        url = documented("curl --fail ").split()[-1].replace("127.0.0.1:9547", self.metrics_address)
        try:
            return httpx.get(url, trust_env=False).text == "ok\n"
        except httpx.TransportError:
            return False

    def start(self) -> None:
        self._witness.unlink(missing_ok=True)
        self.process = self._environment.start(
            self.command(), self.directory, self.log, RAFTWAL_WITNESS=str(self._witness)
        )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> int:
        """In good order, PostgreSQL first; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.wait_for_exit()

    def wait_for_exit(self) -> int:
        assert self.process is not None
        return self.process.wait(DEADLINE_SECONDS)

    def look_inside(self) -> dict[str, Any] | None:
        """What the process's own copy of the DCS holds; ``None`` if it does not say now."""
        return self.told() if self.ask_to_tell() else None

    def ask_to_tell(self) -> bool:
        self._witness.unlink(missing_ok=True)
        # A process that is just starting would die of the signal.
        if not self.is_running or not _catches(self.process.pid, signal.SIGUSR2):
            return False
        self.process.send_signal(signal.SIGUSR2)
        return True

    def told(self) -> dict[str, Any] | None:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and self.is_running:
            with contextlib.suppress(FileNotFoundError):
                return json.loads(self._witness.read_text())
            time.sleep(0.01)
        return None

    def take_snapshot(self) -> None:
        """Have its node compact its log, which it does every few minutes by itself."""
        assert self.process is not None
        assert _catches(self.process.pid, signal.SIGUSR1)
        self.process.send_signal(signal.SIGUSR1)

    def knows_leader(self) -> str | None:
        inside = self.look_inside()
        leader = None if inside is None else inside["status"]["leader"]
        return None if leader == "None" else leader

    def is_in_step(self) -> bool:
        """Whether it has applied what its leader knows to be committed."""
        inside = self.look_inside()
        if inside is None or inside["status"]["leader"] == "None":
            return False
        return inside["status"]["leader_commit_idx"] == str(inside["applied"])

    def last_words(self, lines: int = 60) -> str:
        written = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.name}\n" + "\n".join(written.splitlines()[-lines:])


class Member(RaftProcess):
    """Patroni, and the PostgreSQL that it runs."""

    program = "patroni"

    def __init__(
        self,
        environment: PatroniEnvironment,
        directory: Path,
        address: str,
        metrics_address: str,
        rest: str,
        postgres: str,
    ) -> None:
        super().__init__(environment, directory, address, metrics_address)
        self.data = directory / "postgres"
        self._rest = rest
        self._postgres = postgres
        self._http = httpx.Client(base_url=f"http://{rest}", timeout=10, trust_env=False)

    def configuration(self, partners: Sequence[RaftProcess]) -> dict[str, Any]:
        return {
            **super().configuration(partners),
            "restapi": {"listen": self._rest, "connect_address": self._rest},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 1,
                    "retry_timeout": 5,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"wal_log_hints": "on", "max_connections": 30},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": self._postgres,
                "connect_address": self._postgres,
                "data_dir": str(self.data),
                "bin_dir": str(self._environment.postgres),
                "pgpass": str(self.directory / "pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": "p"},
                    "replication": {"username": "replicator", "password": "r"},
                },
                "parameters": {
                    "unix_socket_directories": str(self.directory),
                    "shared_buffers": "16MB",
                },
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 md5",
                    "host replication all 127.0.0.1/32 md5",
                ],
            },
        }

    def get(self, path: str) -> Any:
        """What the REST API answers; ``None`` while it does not."""
        try:
            return self._http.get(path).json()
        except (httpx.TransportError, ValueError):
            return None

    def patch_config(self, change: dict[str, Any]) -> None:
        """Change the dynamic configuration, which is in the DCS."""
        self._http.patch("/config", json=change).raise_for_status()

    def is_primary(self) -> bool:
        """As a load balancer asks it: it has PostgreSQL's leader lock."""
        try:
            return self._http.get("/primary").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, sql: str) -> str:
        """What its PostgreSQL answers."""
        host, port = self._postgres.split(":")
        done = subprocess.run(
            [str(self._environment.postgres / "psql"), "-XAtq", "-c", sql,
             f"host={host} port={port} user=postgres password=p dbname=postgres"],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])


def _catches(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
