"""The send barrier: what makes a promise waits for the disk, everything else flows.

Messages that arrive pass here, too, on their way to PySyncObj's handler: see
`raftwal.pysyncobj.reception`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Send = Callable[[Any, Any], bool]
Handler = Callable[[Any, Any], None]

# Messages that promise nothing: entries on their way to followers, and commands on
# their way to and from the leader, which are answered once they are committed.
# Whatever is not listed waits, so that a message this version does not know is safe.
_FLOWING = frozenset(("append_entries", "apply_command", "apply_command_response", "timeout_now"))


class Saves(Protocol):
    """The saves of a node, numbered in their order from 1."""

    @property
    def durable(self) -> int:
        """The last one that is durable, as are all before it."""

    @property
    def of_promises(self) -> int:
        """The one with which all terms, votes and entries of this moment will be durable."""

    @property
    def of_term(self) -> int:
        """The one with which the term and the vote of this moment will be durable."""


class _Held(NamedTuple):
    save: int
    send: Send
    node: Any
    message: Any


class SendBarrier:
    """Stands between PySyncObj and its transport.

    A message waits for the save that makes durable what it depends on; those that wait
    for the same leave in their order.  ``completed`` gives each message what it lacks
    before it leaves; ``received`` stands around PySyncObj's handler.
    """

    def __init__(
        self,
        saves: Saves,
        completed: Callable[[Any], Any] = lambda message: message,
        received: Callable[[Handler], Handler] = lambda handler: handler,
        may_promise: Callable[[], bool] = lambda: True,
    ) -> None:
        self._saves = saves
        self._completed = completed
        self._received = received
        self._may_promise = may_promise
        self._promises: deque[_Held] = deque()
        self._others: deque[_Held] = deque()
        self._closed = False

    def send(self, transport_send: Send, node: Any, message: Any) -> bool:
        """Send, hold until `release`, or, after a failure, drop; ``False`` only if dropped."""
        if self._closed:
            return False
        message = self._completed(message)
        if _promises_nothing(message):
            # Entries of a term that a crash could undo would be a promise: a node that
            # is a majority alone can lead in the tick in which it votes for itself.
            held, save, may_leave = self._others, self._saves.of_term, True
        else:
            held, save, may_leave = self._promises, self._saves.of_promises, self._may_promise()
        if may_leave and not held and save <= self._saves.durable:
            return transport_send(node, message)
        held.append(_Held(save, transport_send, node, message))
        return True

    def release(self) -> None:
        """Send what waited for something that is durable now."""
        for held in (self._others, self._promises):
            while held and held[0].save <= self._saves.durable and not self._closed:
                _, transport_send, node, message = held.popleft()
                transport_send(node, message)

    def close(self) -> None:
        """Drop what is held and all that is yet to come."""
        self._closed = True
        self._promises.clear()
        self._others.clear()

    def guard_class(self, transport_class: Any) -> Any:
        """A subclass of a transport class that sends through this barrier.

        PySyncObj takes anything that makes a transport when called: what is not a
        class has its transports guarded one by one.
        """
        barrier = self
        if not isinstance(transport_class, type):
            return lambda *arguments: barrier.guard(transport_class(*arguments))

        class GuardedTransport(transport_class):
            def send(self, node: Any, message: Any) -> bool:
                return barrier.send(super().send, node, message)

            def setOnMessageReceivedCallback(self, callback: Handler | None) -> None:
                super().setOnMessageReceivedCallback(barrier.guard_handler(callback))

        GuardedTransport.__name__ = transport_class.__name__
        GuardedTransport.__qualname__ = transport_class.__qualname__
        return GuardedTransport

    def guard(self, transport: Any) -> Any:
        """The same transport object, sending and receiving through this barrier."""
        transport_send = transport.send
        set_callback = transport.setOnMessageReceivedCallback

        def send(node: Any, message: Any) -> bool:
            return self.send(transport_send, node, message)

        transport.send = send
        transport.setOnMessageReceivedCallback = lambda callback: set_callback(
            self.guard_handler(callback)
        )
        return transport

    def guard_handler(self, handler: Handler | None) -> Handler | None:
        """PySyncObj's handler for what arrives, with what stands around it."""
        return None if handler is None else self._received(handler)


def _promises_nothing(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    kind = message.get("type")
    if kind == "next_node_idx":
        # A sign of life, which says nothing about the log.
        return not message.get("success", True) and not message.get("reset", True)
    return kind in _FLOWING
