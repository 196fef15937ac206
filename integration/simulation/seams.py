"""While a run is on, what PySyncObj and raftwal ask of the system comes from the simulation.

Each name is replaced in the module that looks it up, and put back after the run.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import random
import types
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pysyncobj.journal
import pysyncobj.serializer
import pysyncobj.syncobj
import pysyncobj.transport
import structlog

import raftwal.pysyncobj.node
import raftwal.pysyncobj.serializer
import raftwal.snapshot_files
import raftwal.snapshots
import raftwal.spool
import raftwal.storage
from integration.simulation import file_journal, network

if TYPE_CHECKING:
    from integration.simulation.world import World


_ROOMS_OF_CHUNKS = (raftwal.spool, raftwal.snapshots, raftwal.snapshot_files)


@contextlib.contextmanager
def replaced(replacements: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes of modules or classes, replaced for a while; absent ones are added."""
    before: list[tuple[Any, str, bool, Any]] = []
    try:
        for owner, name, value in replacements:
            before.append((owner, name, name in vars(owner), vars(owner).get(name)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, existed, value in reversed(before):
            if existed:
                setattr(owner, name, value)
            else:
                delattr(owner, name)


def _none(*arguments: Any) -> Any:
    return types.SimpleNamespace()


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """Time, randomness, sockets, and the files of PySyncObj's own journal, are the run's."""
    clock = world.clock
    source = random.Random(f"{world.seed} random")
    time = types.SimpleNamespace(
        monotonic=clock.read, time=clock.read, perf_counter=lambda: clock.now, sleep=clock.spend
    )
    system = types.SimpleNamespace(
        urandom=source.randbytes,
        path=raftwal.pysyncobj.node.os.path,
        getpid=lambda: 1,
    )
    random_module = types.SimpleNamespace(random=source.random, choice=source.choice)
    replacements: list[tuple[Any, str, Any]] = [
        (pysyncobj.syncobj, "monotonicTime", clock.read),
        (pysyncobj.syncobj, "time", time),
        (pysyncobj.syncobj, "random", random_module),
        (pysyncobj.syncobj, "createPoller", lambda _: network.Poller(world.process_at_hand())),
        (pysyncobj.syncobj, "PIPE_NOTIFIER_ENABLED", False),
        (pysyncobj.transport, "monotonicTime", clock.read),
        (pysyncobj.transport, "TcpConnection", network.Connection),
        (pysyncobj.transport, "TcpServer", network.Server),
        (gzip, "time", time),
        (raftwal.pysyncobj.node, "time", time),
        (raftwal.pysyncobj.node, "os", system),
        (raftwal.pysyncobj.node, "Waker", network.Waker),
        # A process that is killed has no finalizers; and they would keep every run in memory.
        (raftwal.pysyncobj.node, "weakref", types.SimpleNamespace(ref=weakref.ref, finalize=_none)),
        (raftwal.pysyncobj.serializer, "time", time),
        (raftwal.storage, "time", time),
        # So small that simulated snapshots are spooled, and written in several calls.
        *((room, "CHUNK_BYTES", 256) for room in _ROOMS_OF_CHUNKS),
        *file_journal.replacements(world),
    ]
    with replaced(replacements), _logs_to(world.trace.note, world.name_at_hand):
        yield


@contextlib.contextmanager
def _logs_to(note: Callable[[str, str], None], name: Callable[[], str]) -> Iterator[None]:
    """What is logged goes to the trace, without the times that it took."""

    def take(_: Any, method: str, event: dict[str, Any]) -> Any:
        fields = " ".join(
            f"{key}={value}"
            for key, value in event.items()
            if key not in ("event", "seconds", "path")
        )
        note(name(), f"{event['event']} {fields}")
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            reason = f": {error!r}" if error is not None else ""
            note(name(), f"PySyncObj: {record.getMessage()}{reason}")

    configuration = structlog.get_config()
    structlog.configure(processors=[take], cache_logger_on_first_use=False)
    logger = logging.getLogger("pysyncobj")
    handler, propagates = Handler(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        structlog.configure(**configuration)
