"""Clients that write to their nodes without a pause and keep every answer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import httpx

from examples.demo.cluster import KVNodeProcess

ANSWER_SECONDS = 20.0
_PAUSE_SECONDS = 0.01
_run = itertools.count()


class Answer(NamedTuple):
    """What a client was told: 204, or a status and a reason; status 0 when nothing came."""

    node: str
    key: str
    status: int
    reason: str


class SteadyClients:
    """So many clients for each node, each with one request under way at any time.

    A client stays with its node: one whose node stands still waits, the others go on.
    A context manager: they start on entry and stop on exit.
    """

    def __init__(self, nodes: Sequence[KVNodeProcess], each: int = 2) -> None:
        self.answers: list[Answer] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        run = next(_run)
        self._threads = [
            threading.Thread(target=self._write, args=(node, f"{run}/{node.name}/{number}"))
            for node in nodes
            for number in range(each)
        ]

    def __enter__(self) -> SteadyClients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Begin no more writes, and wait for the answers to those under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Look at the answers each time there is a new one."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"not within {seconds} s: {what}"

    def wait_for_acknowledged(self, count: int, nodes: Sequence[KVNodeProcess]) -> None:
        """So many more writes acknowledged by each of the nodes."""
        names = [node.name for node in nodes]
        with self._changed:
            before = len(self.answers)
        self.wait_for(
            lambda: all(
                sum(a.node == name and a.status == 204 for a in self.answers[before:]) >= count
                for name in names
            ),
            f"{count} writes more acknowledged by each of {', '.join(names)}",
        )

    def acknowledged(self) -> dict[str, str]:
        with self._changed:
            return {a.key: value_of(a.key) for a in self.answers if a.status == 204}

    def refused_by(self, node: KVNodeProcess) -> list[Answer]:
        with self._changed:
            return [a for a in self.answers if a.node == node.name and a.status not in (0, 204)]

    def _write(self, node: KVNodeProcess, name: str) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            key = f"{name}/{number}"
            answer = _put(node, key)
            with self._changed:
                self.answers.append(answer)
                self._changed.notify_all()
            self._stop.wait(_PAUSE_SECONDS)


def value_of(key: str) -> str:
    """What is written under a key: anyone can tell what should be there."""
    return f"the value of {key}, " * 8


def _put(node: KVNodeProcess, key: str) -> Answer:
    try:
        response = node.request("PUT", f"/kv/{key}", value_of(key).encode(), ANSWER_SECONDS)
    except httpx.TransportError as error:
        return Answer(node.name, key, 0, type(error).__name__)
    reason = "" if response.status_code == 204 else response.json()["error"]
    return Answer(node.name, key, response.status_code, reason)
