"""A real etcd server on loopback, started and killed by a test."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from pathlib import Path

from clusters import free_addresses
from conftest import program

DEADLINE_SECONDS = 60


class EtcdServer:
    """One member with its data in ``data_dir``; ``start`` again after ``kill``."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._etcd, self._etcdctl = program("etcd"), program("etcdctl")
        client, peer = free_addresses(2)
        self._client, self._peer = f"http://{client}", f"http://{peer}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        log = (self.data_dir.parent / "etcd.log").open("ab")
        self._process = subprocess.Popen(
            [
                self._etcd,
                *("--name", "member", "--data-dir", str(self.data_dir)),
                *("--listen-client-urls", self._client, "--advertise-client-urls", self._client),
                *("--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer),
                *("--initial-cluster", f"member={self._peer}"),
                *("--snapshot-count", "100", "--logger", "zap"),
            ],
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            answer = self._run("endpoint", "health", check=False)
            if answer.returncode == 0:
                return
            died = self._process.poll()
            if died is not None or time.monotonic() > deadline:
                text = (self.data_dir.parent / "etcd.log").read_text()[-3000:]
                raise AssertionError(f"etcd did not start (exit {died}):\n{text}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def put(self, key: str, value: str) -> None:
        self._run("put", key, value)

    def delete(self, key: str) -> None:
        self._run("del", key)

    def everything(self) -> dict[str, str]:
        answer = json.loads(self._run("get", "", "--prefix", "-w", "json").stdout)
        return {
            base64.b64decode(pair["key"]).decode(): base64.b64decode(pair["value"]).decode()
            for pair in answer.get("kvs", [])
        }

    def status(self) -> dict:
        answer = json.loads(self._run("endpoint", "status", "-w", "json").stdout)
        return answer[0]["Status"]

    def _run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self._etcdctl, "--endpoints", self._client, *words],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=check,
        )
