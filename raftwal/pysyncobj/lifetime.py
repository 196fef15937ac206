"""A node for as long as an asyncio program runs: `running`, `lifespan`, and what to await."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from raftwal.errors import InvalidSettingError, NodeNotReadyError
from raftwal.pysyncobj.awaiting import DEFAULT_TIMEOUT_SECONDS
from raftwal.pysyncobj.durable import DurableSyncObj
from raftwal.pysyncobj.settings import StorageFailureHook

# PySyncObj has no hook for "a leader is known", and its onReady is the application's.
_POLL_SECONDS = 0.02

_Node = TypeVar("_Node", bound=DurableSyncObj)
_Result = TypeVar("_Result")


@asynccontextmanager
async def running(
    make_node: Callable[[], _Node],
    *,
    ready_within: float | None = DEFAULT_TIMEOUT_SECONDS,
    on_storage_failure: StorageFailureHook | None = None,
) -> AsyncIterator[_Node]:
    """A node that runs inside ``async with``, made by ``make_node`` and destroyed at the end.

    ``make_node`` reads the log, which can take long, so it is called in a thread; so is
    what ends the node.  The block begins when the node is ready, and at once where
    ``ready_within`` (seconds) is ``None``.  After it, the node's thread has ended and all
    is saved, and calls that still wait have been failed.  A cancellation is raised after
    that, too, also one that comes while ``make_node`` is at work.

    ``on_storage_failure`` is called in the event loop, once, with the error, beside the
    hook in the node's own `StorageSettings`.

    Raises what ``make_node`` raises; `NodeNotReadyError`; `InvalidSettingError` for a node
    with ``autoTick=False``, which its own program must drive.
    """
    # One thread for the node's whole life: PySyncObj stops ticking once the thread that
    # made the node is gone.  If the program ends without leaving the block, the
    # interpreter ends this thread, and so the ticking.
    thread = ThreadPoolExecutor(1, thread_name_prefix="raftwal-node")
    loop = asyncio.get_running_loop()
    making = loop.run_in_executor(thread, make_node)
    try:
        node = await _to_its_end(making)
        if not node.conf.autoTick:
            raise InvalidSettingError(
                "a node with autoTick=False has no thread of its own",
                path=node.data_dir,
                advice="Leave autoTick as it is",
            )
        if on_storage_failure is not None:
            _call_in_loop(node, on_storage_failure)
        if ready_within is None:
            await _until_listening(node)
        else:
            await until_ready(node, timeout=ready_within)
        yield node
    finally:
        try:
            if making.exception() is None:
                await _to_its_end(loop.run_in_executor(thread, _destroy, making.result()))
        finally:
            thread.shutdown()


def lifespan(
    make_node: Callable[[], _Node],
    *,
    ready_within: float | None = None,
    on_storage_failure: StorageFailureHook | None = None,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, _Node]]]:
    """The ``lifespan`` of a Starlette or FastAPI application; ``request.state.node`` is the node.

    As `running`, but it does not wait until the node is ready unless it is told to: a
    node whose peers are down must come up too, and say so on ``/readyz``.
    """

    @asynccontextmanager
    async def of_application(_: Any) -> AsyncIterator[dict[str, _Node]]:
        async with running(
            make_node, ready_within=ready_within, on_storage_failure=on_storage_failure
        ) as node:
            yield {"node": node}

    return of_application


async def until_ready(
    node: DurableSyncObj, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS
) -> None:
    """Wait until the node is in step with its cluster and knows a leader.

    Raises `NodeNotReadyError` after ``timeout`` seconds, and at once where it never will be.
    """
    await _until(node, lambda: node.ready() is None, timeout, lambda: node.ready() or "")


async def until_leader(
    node: DurableSyncObj, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS
) -> str:
    """Wait until the node knows a leader; the leader's address, which may be its own.

    Raises `NodeNotReadyError` after ``timeout`` seconds, and at once where it never will.
    """
    leader: Any = None

    def is_known() -> bool:
        nonlocal leader
        leader = node._getLeader()
        return leader is not None

    await _until(node, is_known, timeout, lambda: "no leader")
    return str(leader.id)


async def _until(
    node: DurableSyncObj,
    condition: Callable[[], bool],
    timeout: float | None,
    why_not: Callable[[], str],
) -> None:
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while not condition():
        _check_may_become_ready(node)
        if deadline is not None and loop.time() >= deadline:
            raise NodeNotReadyError(f"{why_not()}, after {timeout:g} s", path=node.data_dir)
        await asyncio.sleep(_POLL_SECONDS)


async def _until_listening(node: DurableSyncObj) -> None:
    if node.conf.maxBindRetries:  # otherwise PySyncObj tries for ever
        while not node._SyncObj__transport.ready:
            _check_may_become_ready(node)
            await asyncio.sleep(_POLL_SECONDS)


def _check_may_become_ready(node: DurableSyncObj) -> None:
    if node.storage_failure is not None:
        raise NodeNotReadyError(
            f"storage failed: {node.storage_failure}", path=node.data_dir
        ) from node.storage_failure
    transport = node._SyncObj__transport
    bind_over = getattr(transport, "_bindOverEvent", None)  # an application's own may have none
    if bind_over is not None and bind_over.is_set() and not transport.ready:
        raise NodeNotReadyError(
            f"cannot listen on {node.conf.bindAddress or node.selfNode.id}",
            path=node.data_dir,
            advice="Is another process listening there?",
        )
    if node.conf.autoTick and not node.tick_thread_alive():
        raise NodeNotReadyError("the thread that ticks has ended", path=node.data_dir)


def _call_in_loop(node: DurableSyncObj, callback: StorageFailureHook) -> None:
    loop = asyncio.get_running_loop()
    told = False

    def tell(error: BaseException) -> None:
        nonlocal told
        if not told:
            told = True
            callback(error)

    def tell_from_any_thread(error: BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(tell, error)

    durable = node._durable_node
    own = durable.settings.on_storage_failure

    def hook(error: BaseException) -> None:
        # First: the application's own may raise, or end the process.
        tell_from_any_thread(error)
        if own is not None:
            own(error)

    durable.settings = durable.settings._replace(on_storage_failure=hook)
    if node.storage_failure is not None:
        # It may have failed before the hook was there.
        tell_from_any_thread(node.storage_failure)


def _destroy(node: DurableSyncObj) -> None:
    if not node.conf.autoTick:
        node.destroy()
        return
    node.destroy_synchronous()
    # PySyncObj leaves unanswered what still waits.  A tick of a node whose storage is
    # closed answers it, and does nothing else.
    node._onTick(0.0)


async def _to_its_end(work: Awaitable[_Result]) -> _Result:
    """What ``work`` in a thread comes to.  A cancellation waits for it: it cannot be stopped."""
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # or asyncio complains that nobody looked
        raise cancelled
    return future.result()
