"""Both ways to durability, for tests of what PySyncObj's documentation promises.

An application is written as a class of its own, without SyncObj; each `Way` makes a node
class of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from clusters import Cluster, fast_conf
from prometheus_client import CollectorRegistry
from pysyncobj import SyncObj

from raftwal.pysyncobj import (
    DurableSyncObj,
    StorageSettings,
    construction,
    install,
    installation,
)

# A node on its own is a majority: nothing is won by waiting.
ALONE = {"raftMinTimeout": 0.07, "raftMaxTimeout": 0.1}


def settings() -> StorageSettings:
    return StorageSettings(segment_bytes=1 << 16, registry=CollectorRegistry())


class Application:
    """What a test's application has: ``begin`` makes its state, after SyncObj's constructor."""

    def begin(self) -> None:
        pass


class _Durable(DurableSyncObj):
    def __init__(self, address, partners, data_dir, conf=None, **arguments) -> None:
        conf = conf or fast_conf()
        super().__init__(
            address, partners, conf, data_dir=data_dir, settings=settings(), **arguments
        )
        self.begin()


class _Installed(SyncObj):
    def __init__(self, address, partners, data_dir, conf=None, **arguments) -> None:
        conf = conf or fast_conf()
        conf.journalFile = f"{data_dir}.journal"
        super().__init__(address, partners, conf, **arguments)
        self.begin()

    @property
    def storage_failure(self) -> BaseException | None:
        return getattr(self, construction.NODE_ATTRIBUTE).failure


@contextmanager
def installed() -> Iterator[None]:
    """`install()`, for as long as the block lasts."""
    before = dict(vars(SyncObj))
    with mock.patch.object(installation, "_originals", {}):
        install(settings())
        try:
            yield
        finally:
            for name, value in before.items():
                if vars(SyncObj)[name] is not value:
                    setattr(SyncObj, name, value)


class Documented(Cluster):
    """Nodes ticked by hand, in turn, in one thread, that can be called and waited for."""

    def call(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a replicated method, and tick until it is answered; its result."""
        result, reason = self.answer(method, *arguments, **keywords)
        assert reason == 0, f"failure reason {reason}"
        return result

    def answer(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """As `call`, for the result and the failure reason."""
        answers: list[tuple[Any, int]] = []
        method(*arguments, **keywords, callback=lambda *answer: answers.append(answer))
        self.tick_until(lambda: bool(answers), f"an answer to {method}")
        assert len(answers) == 1
        return answers[0]

    def start_with(
        self,
        address: str,
        partners: Iterable[Any],
        self_node: Any = None,
        bind: str | None = None,
        **arguments: Any,
    ) -> Any:
        """As `start`, with these partners, and bound to another address."""
        node = self.node_class(
            self_node or address,
            partners,
            self.data_dir(address),
            fast_conf(bindAddress=bind, **self.conf),
            **arguments,
        )
        self.nodes[address] = node
        return node

    def stop(self, address: str) -> None:
        node = self.nodes.pop(address)
        if node.conf.autoTick:
            node.destroy_synchronous()
        else:
            node.destroy()

    def restart(self, address: str, **arguments: Any) -> Any:
        self.stop(address)
        return self.start(address, **arguments)

    def compact(self, node: Any) -> None:
        """Have a node take a snapshot, and its log cut to what follows."""
        before = node.getStatus()["log_len"]
        node.forceLogCompaction()
        self.tick_until(lambda: node.getStatus()["log_len"] < before, "a shorter log")

    def ready(self, node: Any) -> Any:
        self.tick_until(node.isReady, "the node to be in step")
        return node


class Way(NamedTuple):
    """One way to a durable node."""

    name: str
    base: type

    def node_class(self, application: type) -> type:
        return type(application.__name__, (application, self.base), {})

    @contextmanager
    def nodes(
        self, directory: Path, application: type = Application, size: int = 1, **conf: Any
    ) -> Iterator[Documented]:
        """A cluster of nodes, none of them started."""
        with installed() if self.base is _Installed else nullcontext():
            conf = {**(ALONE if size == 1 else {}), **conf}
            made = Documented(directory, size, self.node_class(application), **conf)
            try:
                yield made
            finally:
                made.stop_all()


DURABLE = Way("DurableSyncObj", _Durable)
INSTALLED = Way("install()", _Installed)

WAYS = [DURABLE, INSTALLED]

each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
