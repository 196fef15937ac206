"""Nodes of the kvstore as processes of their own: started, killed, asked over HTTP."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

START_SECONDS = 20.0
REQUEST_SECONDS = 8.0
_POLL_SECONDS = 0.02
_ROOT = Path(__file__).parents[2]


class NodeError(Exception):
    """A node did not do what it should; the message ends with the tail of its log."""


class KVNodeProcess:
    """One ``python -m examples.kvstore`` process and an HTTP client for it.

    Its data stay when it is killed; `start` starts it on them again.  Everything that
    is printed by all its processes is in ``log``.
    """

    def __init__(
        self,
        name: str,
        raft_address: str,
        partners: Iterable[str],
        http_address: str,
        data_dir: Path,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.raft_address = raft_address
        self.url = f"http://{http_address}"
        self.data_dir = data_dir
        self.log = data_dir.with_name(data_dir.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [sys.executable, "-m", "examples.kvstore"]
        self.command += ["--listen", raft_address, "--http", http_address]
        self.command += ["--data-dir", str(data_dir), *options]
        for partner in partners:
            self.command += ["--partner", partner]
        self._started_at = 0.0
        # One client: its connections are made again when the process is a new one.
        # Nothing of the environment, such as a proxy, has a say on loopback.
        self._http = httpx.Client(base_url=self.url, timeout=REQUEST_SECONDS, trust_env=False)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if self.alive:
            raise RuntimeError(f"{self.name} runs already")
        self._started_at = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is for the program that started the nodes.
                start_new_session=True,
            )

    def send_signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def wait(self, seconds: float = START_SECONDS) -> int:
        """The exit status: a negative number after a signal.

        Raises `NodeError` when the process is still there after ``seconds``.
        """
        if self.process is None:
            return 0
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.error(f"did not exit within {seconds:g} s") from None

    def kill(self) -> None:
        """``kill -9``."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        self.kill()
        self._http.close()

    def wait_ready(self, seconds: float = START_SECONDS) -> float:
        """Wait for /readyz to say yes; the seconds from the start of the process to there.

        Raises `NodeError` when the process ends first, or is not ready in time.
        """
        self.wait_until(self.is_ready, "ready", seconds)
        return time.monotonic() - self._started_at

    def wait_until(
        self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS
    ) -> None:
        """Ask until the answer is yes.  Raises `NodeError` as `wait_ready` does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.alive:
                raise self.error(f"ended with status {self.wait()} before it was {what}")
            if time.monotonic() > deadline:
                raise self.error(f"was not {what} within {seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def request(
        self, method: str, path: str, content: bytes | None = None, timeout: float = REQUEST_SECONDS
    ) -> httpx.Response:
        """Raises `httpx.TransportError` when the node cannot be reached or goes away."""
        return self._http.request(method, path, content=content, timeout=timeout)

    def put(self, key: str, value: bytes) -> httpx.Response:
        """Status 204: committed."""
        return self.request("PUT", _path(key), value)

    def delete(self, key: str) -> httpx.Response:
        """Status 204: committed."""
        return self.request("DELETE", _path(key))

    def get(self, key: str) -> bytes | None:
        """What the node has applied; ``None`` where it has nothing."""
        response = self.request("GET", _path(key))
        if response.status_code == 404:
            return None
        return response.raise_for_status().content

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.request("GET", "/status").raise_for_status().json()
        return status

    def metrics(self) -> str:
        return self.request("GET", "/metrics").raise_for_status().text

    def log_tail(self, lines: int = 15) -> str:
        if not self.log.exists():
            return ""
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def error(self, what: str) -> NodeError:
        return NodeError(f"{self.name} {what}; the end of {self.log}:\n{self.log_tail()}")


class KVCluster:
    """Nodes that are each other's partners, their data and logs in one directory.

    A context manager: no process outlives it.
    """

    def __init__(self, directory: Path, size: int = 3, options: Sequence[str] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        addresses = free_addresses(2 * size)
        raft, http = addresses[:size], addresses[size:]
        self.nodes = [
            KVNodeProcess(
                f"node{number + 1}",
                raft[number],
                [each for each in raft if each != raft[number]],
                http[number],
                directory / f"node{number + 1}",
                options,
            )
            for number in range(size)
        ]

    def __enter__(self) -> KVCluster:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> list[float]:
        """Start all nodes, wait until they are ready; the seconds that each one took."""
        for node in self.nodes:
            node.start()
        return self.wait_ready()

    def wait_ready(self, seconds: float = START_SECONDS) -> list[float]:
        """`KVNodeProcess.wait_ready` of all of them, side by side."""
        took: dict[str, float] = {}

        def note(node: KVNodeProcess) -> bool:
            if node.name not in took and node.is_ready():
                took[node.name] = node.wait_ready()
            return len(took) == len(self.nodes)

        self._wait_for_each(note, "ready", seconds)
        return [took[node.name] for node in self.nodes]

    def leader(self) -> KVNodeProcess | None:
        """The node that says it leads, of those that run; in the newest term if two do."""
        leading = []
        for node in filter(lambda node: node.alive, self.nodes):
            try:
                status = node.status()
            except httpx.TransportError:
                continue
            if status["role"] == "leader":
                leading.append((status["raft_term"], node.name, node))
        return max(leading)[-1] if leading else None

    def wait_for_leader(self, seconds: float = START_SECONDS) -> KVNodeProcess:
        """Raises `NodeError` when there is none in time."""
        deadline = time.monotonic() + seconds
        while (leader := self.leader()) is None:
            if time.monotonic() > deadline:
                raise NodeError(f"no leader within {seconds:g} s; {self.log_tails()}")
            time.sleep(_POLL_SECONDS)
        return leader

    def wait_in_step(self, seconds: float = START_SECONDS) -> int:
        """Wait until all have applied all that is committed; the index of the last of it."""
        reached: set[int] = set()

        def in_step(node: KVNodeProcess) -> bool:
            reached.clear()
            for each in self.nodes:
                try:
                    status = each.status()
                except httpx.TransportError:
                    return False
                reached.update((status["last_applied"], status["leader_commit_idx"] or 0))
            return len(reached) == 1

        self._wait_for_each(in_step, "in step with the others", seconds)
        return reached.pop()

    def kill_all(self) -> None:
        """``kill -9`` all of them at once."""
        for node in self.nodes:
            node.send_signal(signal.SIGKILL)
        for node in self.nodes:
            node.wait()

    def close(self) -> None:
        self.kill_all()
        for node in self.nodes:
            node.close()

    def log_tails(self) -> str:
        tails = "\n".join(f"{node.log}:\n{node.log_tail()}" for node in self.nodes)
        return f"the ends of the logs:\n{tails}"

    def _wait_for_each(
        self, condition: Callable[[KVNodeProcess], bool], what: str, seconds: float
    ) -> None:
        """Ask the nodes in turn until one answer is yes."""
        deadline = time.monotonic() + seconds
        while True:
            for node in self.nodes:
                if condition(node):
                    return
                if not node.alive:
                    raise node.error(f"ended with status {node.wait()} before it was {what}")
                if time.monotonic() > deadline:
                    raise node.error(f"was not {what} within {seconds:g} s")
            time.sleep(_POLL_SECONDS)


def free_addresses(count: int) -> list[str]:
    """Loopback addresses that nothing listens on.

    Below the ports that systems give to outgoing connections: such a connection could
    take the port of a node while the node is down.
    """
    addresses: list[str] = []
    ports = list(range(20000, 32000))
    random.Random(os.urandom(8)).shuffle(ports)
    for port in ports:
        if len(addresses) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            addresses.append(f"127.0.0.1:{port}")
    return addresses


def _path(key: str) -> str:
    return "/kv/" + quote(key, safe="/")
