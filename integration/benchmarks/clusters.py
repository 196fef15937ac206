"""Three node processes on loopback, of which the first leads."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_STEP_SECONDS = 300.0
_END_SECONDS = 60.0
_POLL_SECONDS = 0.05


class NodeProcess:
    """One node: requests go in, answers come out."""

    def __init__(self, arguments: list[str], directory: Path) -> None:
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "integration.benchmarks.cluster_node", *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Raises ``RuntimeError``, with the node's log, when it has ended instead of answering."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait(_END_SECONDS)
            raise RuntimeError(f"a node ended at {do!r}:\n{self._log.read_text()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End its input, and wait for it; kill it when it does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_END_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            self._process.stdout.close()


class BenchmarkCluster:
    """A cluster of one kind in a directory of its own, which goes with it.

    A context manager: on entry the first node leads and all are in step.
    """

    def __init__(self, kind: str, *, batches: bool, parent: Path, sync_delay: float = 0.0) -> None:
        self._kind = kind
        self._options = [
            f"--kind={kind}",
            f"--batches={'on' if batches else 'off'}",
            f"--sync-delay={sync_delay}",
        ]
        self._parent = parent
        self.nodes: list[NodeProcess] = []

    def __enter__(self) -> BenchmarkCluster:
        self._directory = Path(tempfile.mkdtemp(prefix=f"{self._kind}-", dir=self._parent))
        try:
            addresses = _free_addresses(3)
            for number, address in enumerate(addresses):
                directory = self._directory / str(number)
                (directory / "data").mkdir(parents=True)
                partners = [f"--partner={each}" for each in addresses if each != address]
                arguments = [
                    *self._options,
                    f"--address={address}",
                    *partners,
                    f"--dir={directory / 'data'}",
                    *(["--leads"] if number == 0 else []),
                ]
                self.nodes.append(NodeProcess(arguments, directory))
            self._wait_until(self._is_ready, "led by its first node", _START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        self._term = self.leader.ask("status")["term"]
        return self

    def __exit__(self, *exc_info: object) -> None:
        for node in self.nodes:
            node.stop()
        # Also drops what the page cache has of it, so that the next cluster's syncs do
        # not write it.
        shutil.rmtree(self._directory)

    @property
    def leader(self) -> NodeProcess:
        return self.nodes[0]

    def statuses(self) -> list[dict[str, Any]]:
        return [node.ask("status") for node in self.nodes]

    def wait_in_step(self) -> list[dict[str, Any]]:
        """Wait until all nodes have applied the same commands; their statuses.

        Raises ``RuntimeError`` when they differ, or when there was an election meanwhile.
        """
        found: list[dict[str, Any]] = []

        def have_applied_as_many() -> bool:
            found[:] = self.statuses()
            return len({status["applied"] for status in found}) == 1

        self._wait_until(have_applied_as_many, "in step", _STEP_SECONDS)
        if len({status["digest"] for status in found}) != 1:
            raise RuntimeError(f"the nodes applied different commands: {found}")
        if {status["term"] for status in found} != {self._term}:
            raise RuntimeError(f"there was an election: {found}")
        return found

    def _is_ready(self) -> bool:
        statuses = self.statuses()
        return (
            statuses[0]["leads"]
            and all(status["ready"] for status in statuses)
            and all(status["connected"] == 2 for status in statuses)
        )

    def _wait_until(self, condition: Any, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster was not {what} within {seconds} s")
            time.sleep(_POLL_SECONDS)


def _free_addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses
