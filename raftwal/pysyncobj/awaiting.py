"""Replicated calls that an asyncio program can await: `committed`, `raises_to_caller`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConsumer

from raftwal.errors import (
    CommandError,
    CommandNotAppliedError,
    CommandOutcomeUnknownError,
    CommandTimeoutError,
)

DEFAULT_TIMEOUT_SECONDS = 30.0

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_REASONS = {number: name for name, number in vars(FAIL_REASON).items() if name.isupper()}

# Where PySyncObj gives these, the command is in no log, or another entry is committed in
# its place.
_NOT_APPLIED = {
    FAIL_REASON.QUEUE_FULL: "the queue of commands is full, here or on the leader",
    FAIL_REASON.MISSING_LEADER: "there is no leader",
    FAIL_REASON.DISCARDED: "another leader's entry was committed in its place",
    FAIL_REASON.NOT_LEADER: "it reached a node that leads no more",
    FAIL_REASON.REQUEST_DENIED: "the request was denied",
}
# Its documentation puts LEADER_CHANGED beside NOT_LEADER.  But it is given for a command
# that was sent, and the leader that was asked, or the next one, may have it in its log.
_MAY_BE_APPLIED = {
    FAIL_REASON.LEADER_CHANGED: "the leader changed before it answered",
    FAIL_REASON.UNKNOWN_OUTCOME: "what became of it cannot be told",
}


class Raised(NamedTuple):
    """What a method with `raises_to_caller` returns instead of raising."""

    error: Exception


def raises_to_caller(
    *errors: type[Exception],
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result | Raised]]:
    """Below ``@replicated``: what the method raises, of these types, is its answer.

    `committed` raises it where the call is awaited; a plain callback, or ``sync=True``,
    gets a `Raised`.  Name only errors that follow from the state and the arguments: each
    node must come to the same one.  What the method changed before it raised stays.

    Without this, PySyncObj never answers a command that raises.  It applies it again in
    each tick, on every node, and nothing that comes after it.
    """

    def decorate(
        method: Callable[_Arguments, _Result],
    ) -> Callable[_Arguments, _Result | Raised]:
        @functools.wraps(method)
        def answer(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result | Raised:
            try:
                return method(*arguments, **named)
            except errors as error:
                return Raised(error)

        return answer

    return decorate


async def committed(
    command: Callable[..., Any],
    /,
    *arguments: Any,
    timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
    **named: Any,
) -> Any:
    """Call a replicated method; its result, once it is committed and applied on this node.

    ``command`` is a bound method that takes PySyncObj's ``callback``: ``@replicated`` or
    ``@replicated_sync``, of a SyncObj or of a consumer, or one like ``addNodeToCluster``
    and ``ReplLockManager.tryAcquire``.  ``timeout`` is in seconds.  ``None`` waits for
    ever: PySyncObj itself forgets some calls, such as one whose connection to the leader
    breaks when the leader stays the same.

    A task that is cancelled while it waits stops waiting; the command may be applied all
    the same.

    Raises `CommandNotAppliedError`, `CommandOutcomeUnknownError` and its
    `CommandTimeoutError`; what ``command`` raises before anything is sent (arguments that
    cannot be pickled); and what `raises_to_caller` lets through.
    """
    sync_obj = _running_sync_obj_of(command)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[Any, int]] = loop.create_future()

    def settle(result: Any, reason: int) -> None:
        if not answer.done():
            answer.set_result((result, reason))

    def on_answer(result: Any, reason: int) -> None:
        # In the thread that ticks.  Once the loop is closed nobody waits, and PySyncObj
        # would give up the tick, and the answers to others, for an exception.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, reason)

    # Raised when the pipe that wakes the thread that ticks is full.  The command is in
    # the queue by then, and that thread has been told often enough.
    with contextlib.suppress(BlockingIOError):
        command(*arguments, callback=on_answer, **named)
    await asyncio.wait((answer,), timeout=timeout)
    if not answer.done():
        raise CommandTimeoutError(
            f"{_name_of(command)}: no answer within {timeout:g} s",
            reason="TIMEOUT",
            path=getattr(sync_obj, "data_dir", None),
        ) from _storage_failure_of(sync_obj)
    result, reason = answer.result()
    if reason != FAIL_REASON.SUCCESS:
        raise _error_of(command, reason, sync_obj) from _storage_failure_of(sync_obj)
    if isinstance(result, Raised):
        raise result.error
    return result


def _error_of(command: Callable[..., Any], reason: int, sync_obj: Any) -> CommandError:
    name = _REASONS.get(reason, str(reason))
    kind: type[CommandError] = (
        CommandNotAppliedError if reason in _NOT_APPLIED else CommandOutcomeUnknownError
    )
    text = _NOT_APPLIED.get(reason) or _MAY_BE_APPLIED.get(reason) or "PySyncObj gives no success"
    failure = _storage_failure_of(sync_obj)
    if failure is not None:
        text = f"storage failed: {getattr(failure, 'what', failure)}"
    return kind(
        f"{_name_of(command)}: {text}, {name}",
        reason=name,
        path=getattr(sync_obj, "data_dir", None),
    )


def _running_sync_obj_of(command: Callable[..., Any]) -> Any:
    """The SyncObj that will take the command; ``None`` where the method does not tell.

    One that was destroyed would never answer.
    """
    owner: Any = getattr(command, "__self__", None)
    if not isinstance(owner, (SyncObj, SyncObjConsumer)):
        if not hasattr(owner, "_consumer"):
            return None
        owner = owner._consumer()
    sync_obj = owner._syncObj if isinstance(owner, SyncObjConsumer) else owner
    if sync_obj is None or (sync_obj.conf.autoTick and not sync_obj.tick_thread_alive()):
        raise CommandNotAppliedError(
            f"{_name_of(command)}: its node does not run", reason="NOT_RUNNING"
        )
    return sync_obj


def _storage_failure_of(sync_obj: Any) -> BaseException | None:
    failure: BaseException | None = getattr(sync_obj, "storage_failure", None)
    return failure


def _name_of(command: Callable[..., Any]) -> str:
    return getattr(command, "__qualname__", repr(command))
