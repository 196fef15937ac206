"""One real etcd server on loopback, started and killed by a test, and what clients ask of it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from clusters import free_addresses
from conftest import program
from etcd_programs import newest_server

SERVERS = ("debian", "newest") if os.environ.get("RAFTWAL_ETCD_NEWEST") else ("debian",)
"""The servers to test with.  The newest takes a minute to build, so it is asked for."""
DEADLINE_SECONDS = 60
PAUSE_SECONDS = 0.02


def binary_of(release: str) -> str:
    return program("etcd") if release == "debian" else str(newest_server())


class RefusedError(Exception):
    """The server answered, and the answer was no."""


class Status(NamedTuple):
    """What ``etcdctl endpoint status`` shows.

    ``leader`` is its id, 0 for none; ``commit`` and ``applied`` are indexes.
    """

    cluster_id: int
    member_id: int
    leader: int
    term: int
    commit: int
    applied: int


class EtcdServer:
    """One member with its data in ``directory/NAME.etcd``; ``start`` again after ``kill``.

    ``release`` is one of `SERVERS`; ``settings`` are more of its flags, and
    ``environment`` more of its environment.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "member",
        *,
        release: str = "debian",
        settings: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.data_dir = directory / f"{name}.etcd"
        self.log = directory / f"{name}.log"
        self._etcd, self._etcdctl = binary_of(release), program("etcdctl")
        self._settings = settings
        self._environment = {**os.environ, **(environment or {})}
        self._client, peer = free_addresses(2)
        self.peer_url = f"http://{peer}"
        self._process: subprocess.Popen | None = None

    @property
    def member_dir(self) -> Path:
        return self.data_dir / "member"

    @property
    def wal_dir(self) -> Path:
        return self.member_dir / "wal"

    @property
    def snap_dir(self) -> Path:
        return self.member_dir / "snap"

    def segments(self) -> list[str]:
        return sorted(path.name for path in self.wal_dir.glob("*.wal"))

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start the server, one that is a cluster by itself, and wait until it serves."""
        self.launch()
        self.wait_until(self.healthy, "to be healthy")

    def launch(self, initial_cluster: str = "", state: str = "new") -> None:
        """Start the server, without waiting: one of several may not get healthy by itself."""
        assert self._process is None
        client = f"http://{self._client}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._etcd,
                    *("--name", self.name, "--data-dir", str(self.data_dir)),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", self.peer_url),
                    *("--initial-advertise-peer-urls", self.peer_url),
                    *("--initial-cluster", initial_cluster or f"{self.name}={self.peer_url}"),
                    *("--initial-cluster-state", state),
                    *("--snapshot-count", "50", "--logger", "zap"),
                    # Or a member that was just started could not be removed, nor another added.
                    "--strict-reconfig-check=false",
                    *self._settings,
                ],
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait_for_exit()

    def stop(self) -> None:
        """End the server in order: then its database holds all that it has applied."""
        self.send(signal.SIGTERM)
        self.wait_for_exit()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def wait_for_exit(self) -> None:
        """Wait until the server has ended; one that was removed ends by itself."""
        if self._process is not None:
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self._process is not None
            assert time.monotonic() < deadline, f"{self.name} did not come {what}\n{self.logs()}"
            # The pause between two questions ends early if the server does.
            try:
                status = self._process.wait(PAUSE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"{self.name} ended with status {status}\n{self.logs()}")

    def logs(self) -> str:
        """The end of the server's log, for a test that failed."""
        if not self.log.exists():
            return ""
        return f"{self.name}:\n" + "\n".join(self.log.read_text().splitlines()[-40:])

    # What clients ask.  Over HTTP, which is etcd's gateway to its own API; `etcdctl` for
    # what people ask.

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._client, timeout=DEADLINE_SECONDS)

    def ask(self, what: str, **request: object) -> dict:
        connection = self.connect()
        try:
            return ask(connection, what, **request)
        finally:
            connection.close()

    def put(self, key: str, value: str, lease: int = 0) -> None:
        self.ask("kv/put", key=_encoded(key), value=_encoded(value), lease=lease)

    def delete(self, key: str) -> None:
        self.ask("kv/deleterange", key=_encoded(key))

    def everything(self, *, local: bool = False) -> dict[str, str]:
        """All keys and values; ``local`` are those that this member itself has applied."""
        zero = _encoded("\0")
        answer = self.ask("kv/range", key=zero, range_end=zero, serializable=local)
        return {
            _decoded(pair["key"]): _decoded(pair.get("value", "")) for pair in answer.get("kvs", [])
        }

    def leases(self) -> set[int]:
        return {int(lease["ID"]) for lease in self.ask("lease/leases").get("leases", [])}

    def status(self) -> Status:
        answer = self.ask("maintenance/status")
        header = answer["header"]
        return Status(
            int(header["cluster_id"]),
            int(header["member_id"]),
            int(answer.get("leader", 0)),
            int(answer["raftTerm"]),
            int(answer["raftIndex"]),
            int(answer["raftAppliedIndex"]),
        )

    def healthy(self) -> bool:
        connection = self.connect()
        try:
            connection.request("GET", "/health")
            return json.loads(connection.getresponse().read()).get("health") == "true"
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()

    def etcdctl(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [self._etcdctl, "--endpoints", self._client, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RefusedError(f"etcdctl {words}: {done.stdout}{done.stderr}")
        return done.stdout


def ask(connection: http.client.HTTPConnection, what: str, **request: object) -> dict:
    connection.request("POST", f"/v3/{what}", json.dumps(request))
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise RefusedError(f"{what}: {answer.status} {body.decode()}")
    return json.loads(body)


def ask_to_put(connection: http.client.HTTPConnection, key: str, value: str) -> None:
    ask(connection, "kv/put", key=_encoded(key), value=_encoded(value))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
