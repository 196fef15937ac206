"""Three nodes as processes, killed with SIGKILL again and again while they are written to."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from clusters import free_addresses

NODE_PROGRAM = Path(__file__).with_name("promising_node.py")
DEADLINE_SECONDS = 60


class NodeProcess:
    def __init__(self, address: str, partners: list[str], directory: Path, heard) -> None:
        self.address = address
        self._arguments = [
            sys.executable,
            str(NODE_PROGRAM),
            address,
            ",".join(partners),
            str(directory / "data"),
            str(directory / "promises"),
        ]
        directory.mkdir()
        self.directory = directory
        self._heard = heard
        self._starts = 0
        self.process: subprocess.Popen | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None

    def start(self, seed: int) -> None:
        self._starts += 1
        log = (self.directory / f"log-{self._starts}").open("wb")
        root = str(NODE_PROGRAM.parents[1])
        self.process = subprocess.Popen(
            [*self._arguments, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": root},
        )
        log.close()
        self._reader = threading.Thread(target=self._listen, args=(self.process,))
        self._reader.start()

    def _listen(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # killed in the middle of a word
            self._heard(self, line.split(maxsplit=2))

    def say(self, *words: object) -> None:
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
        except (BrokenPipeError, OSError):
            assert self.process.poll() is not None, "the node does not listen"

    def kill(self) -> None:
        self._end(lambda: self.process.send_signal(signal.SIGKILL))

    def stop(self) -> None:
        self._end(lambda: None)

    def _end(self, how: Callable[[], None]) -> None:
        if self.process is None:
            return
        how()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(DEADLINE_SECONDS)
        self._reader.join()
        self.process.stdout.close()
        self.process = None

    def promises(self) -> list[dict]:
        path = self.directory / "promises"
        return [json.loads(line) for line in path.read_text().splitlines()]


class KilledCluster:
    """Writes all the time; `round` kills and restarts; `check` judges at the end."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        addresses = free_addresses(3)
        self.nodes = [
            NodeProcess(
                address,
                [each for each in addresses if each != address],
                directory / address.replace(":", "-"),
                self._heard,
            )
            for address in addresses
        ]
        self._changed = threading.Condition()
        self.acknowledged: set[str] = set()
        self._asked = 0
        self._answered = 0
        self._in_flight = 0
        self._ready: set[str] = set()
        self._leader = "none"
        self._values: dict[str, tuple[int, dict]] = {}
        self.recovered_from_snapshot = 0
        self.replayed_entries = 0

    def _heard(self, node: NodeProcess, words: list[str]) -> None:
        with self._changed:
            if words[0] in ("acknowledged", "refused"):
                self._in_flight -= 1
                if words[0] == "acknowledged":
                    self.acknowledged.add(words[1])
            elif words[0] == "ready":
                self._ready.add(node.address)
            elif words[0] == "started":
                self.recovered_from_snapshot += words[1] != "0"
                self.replayed_entries += int(words[2])
            elif words[0] == "leader":
                self._leader = words[1]
                self._answered += 1
            elif words[0] == "values":
                self._values[node.address] = (int(words[1]), json.loads(words[2]))
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            done = self._changed.wait_for(condition, DEADLINE_SECONDS)
        assert done, f"seed {self.seed}: not within {DEADLINE_SECONDS} s: {what}\n{self._logs()}"

    def _logs(self) -> str:
        logs = []
        for node in self.nodes:
            for path in sorted(node.directory.glob("log-*"))[-1:]:
                logs.append(f"--- {path}\n{path.read_text()[-2000:]}")
        return "\n".join(logs)

    def start(self, node: NodeProcess) -> None:
        with self._changed:
            self._ready.discard(node.address)
        node.start(self.random.randrange(1 << 30))

    def start_all(self) -> None:
        for node in self.nodes:
            self.start(node)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self._wait(lambda: len(self._ready) == len(self.nodes), "every node to be ready")

    def write(self, count: int) -> None:
        for _ in range(count):
            node = self.random.choice([node for node in self.nodes if node.alive])
            key = f"key{self._asked}"
            self._asked += 1
            with self._changed:
                self._in_flight += 1
            node.say("put", key, f"value-of-{key}")

    def wait_for_acknowledgements(self, count: int) -> None:
        wanted = len(self.acknowledged) + count
        self._wait(lambda: len(self.acknowledged) >= wanted, f"{count} more acknowledgements")

    def leader(self) -> NodeProcess:
        answered = self._answered
        self.nodes[0].say("leader")
        self._wait(lambda: self._answered > answered, "a word about the leader")
        return next((n for n in self.nodes if n.address == self._leader), self.nodes[0])

    def round(self) -> str:
        """Write, kill at a random moment while writes are on their way, restart."""
        self.write(60)
        self.wait_for_acknowledgements(self.random.randrange(1, 30))
        victims = {
            "one": lambda: [self.random.choice(self.nodes)],
            "leader": lambda: [self.leader()],
            "two": lambda: self.random.sample(self.nodes, 2),
            "all": lambda: self.random.sample(self.nodes, 3),
        }
        kind = self.random.choice(list(victims))
        killed = victims[kind]()
        for node in killed:
            node.kill()
        if kind in ("one", "leader"):
            self.write(self.random.randrange(20))
        for node in killed:
            self.start(node)
        self.wait_until_ready()
        self.write(1)
        return kind

    def check(self) -> None:
        """Everything acknowledged is on every node, and no promise was broken."""
        self.write(1)
        self.wait_for_acknowledgements(1)
        deadline = time.monotonic() + DEADLINE_SECONDS
        # A node answers what it has applied so far: what is missing may still be on its
        # way there.  What is lost never comes.
        while missing := self._missing():
            assert time.monotonic() < deadline, f"seed {self.seed}: lost: {missing}"
        for node in self.nodes:
            check_promises(node, self.seed)

    def _missing(self) -> dict[str, list[str]]:
        """What each node has not applied of what was acknowledged before it was asked."""
        with self._changed:
            acknowledged = set(self.acknowledged)
            self._values.clear()
        for node in self.nodes:
            node.say("values")
        self._wait(lambda: len(self._values) == len(self.nodes), "every node's values")
        missing = {
            address: [key for key in acknowledged if values.get(key) != f"value-of-{key}"]
            for address, (_, values) in self._values.items()
        }
        return {address: keys for address, keys in missing.items() if keys}

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def check_promises(node: NodeProcess, seed: int) -> None:
    """No term goes backwards, nobody votes twice in a term, what was acknowledged is there."""
    where = f"seed {seed}, node {node.address}"
    term = 0
    votes: dict[int, str] = {}
    for promise in node.promises():
        now = promise.get("vote_in") or promise.get("started_in") or promise.get("term") or 0
        assert now >= term or not now, f"{where}: from term {term} back to {now}: {promise}"
        term = max(term, now)
        if "vote_in" in promise:
            vote = votes.setdefault(promise["vote_in"], promise["vote_for"])
            assert vote == promise["vote_for"], f"{where}: two votes in {promise}, first {vote}"
    assert votes, f"{where}: no vote was recorded, so nothing was checked"
