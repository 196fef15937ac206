"""Leaving a cluster after a storage failure: nobody waits for a node that cannot promise."""

from __future__ import annotations

import os
import queue
from typing import Any

from pysyncobj import FAIL_REASON

from raftwal.events import log

_FOLLOWER = 0


def leave_cluster(sync_obj: Any, data_dir: str) -> None:
    """Close the connections, and lead no longer."""
    try:
        sync_obj._SyncObj__transport.destroy()
    except Exception as error:
        log.warning("transport_not_closed", path=data_dir, error=str(error))
    sync_obj._SyncObj__connectedNodes.clear()
    sync_obj._SyncObj__raftLeader = None
    try:
        sync_obj._SyncObj__setState(_FOLLOWER)
    except Exception:
        # The application's onStateChanged; the state is set by then.
        log.exception("state_callback_failed", path=data_dir)


def fail_commands(sync_obj: Any) -> None:
    """Call back whoever waits.

    A command that others may know of gets ``UNKNOWN_OUTCOME``: they may yet commit it.
    One that never left this node gets ``REQUEST_DENIED``.
    """
    waiting = sync_obj._SyncObj__commandsWaitingCommit
    for index in sorted(waiting):
        for _, callback in waiting.pop(index):
            _call(callback, FAIL_REASON.UNKNOWN_OUTCOME)
    replies = sync_obj._SyncObj__commandsWaitingReply
    for request in sorted(replies):
        _call(replies.pop(request), FAIL_REASON.UNKNOWN_OUTCOME)
    # What callbacks queue anew waits for the next tick.
    for callback in _take_queued(sync_obj._SyncObj__commandsQueue):
        _call(callback, FAIL_REASON.REQUEST_DENIED)


def forget_frames(error: BaseException) -> None:
    """Let go of the frames that an error was raised through: they hold the SyncObj, and the
    error is kept for as long as somebody may ask for it.
    """
    next_error: BaseException | None = error
    while next_error is not None and next_error.__traceback__ is not None:
        next_error.__traceback__ = None
        next_error = next_error.__cause__ or next_error.__context__


def _take_queued(commands: Any) -> list[Any]:
    callbacks = []
    while True:
        try:
            callbacks.append(commands.get_nowait()[1])
        except queue.Empty:
            return callbacks


def _call(callback: Any, reason: int) -> None:
    if not callable(callback):
        return  # None, or a remote caller's address: its own timeout tells it
    try:
        callback(None, reason)
    except Exception:
        log.exception("callback_failed", callback=repr(callback), pid=os.getpid())
