"""The send barrier: what makes a promise waits for the disk, everything else flows.

Messages that arrive pass here, too, on their way to PySyncObj's handler: see
`raftwal.pysyncobj.reception`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

Send = Callable[[Any, Any], bool]
Handler = Callable[[Any, Any], None]

# Messages that promise nothing: entries on their way to followers, and commands on
# their way to and from the leader, which are answered once they are committed.
# Whatever is not listed waits, so that a message this version does not know is safe.
_FLOWING = frozenset(("append_entries", "apply_command", "apply_command_response", "timeout_now"))


class SendBarrier:
    """Stands between PySyncObj and its transport.

    ``completed`` gives each message what it lacks before it leaves; ``received`` stands
    around PySyncObj's handler.
    """

    def __init__(
        self,
        is_durable: Callable[[], bool],
        is_term_durable: Callable[[], bool] = lambda: True,
        completed: Callable[[Any], Any] = lambda message: message,
        received: Callable[[Handler], Handler] = lambda handler: handler,
    ) -> None:
        self._is_durable = is_durable
        self._is_term_durable = is_term_durable
        self._completed = completed
        self._received = received
        self._held: deque[tuple[Send, Any, Any]] = deque()
        self._closed = False

    def send(self, transport_send: Send, node: Any, message: Any) -> bool:
        """Send, hold until `release`, or, after a failure, drop; ``False`` only if dropped.

        Held messages keep their order.
        """
        if self._closed:
            return False
        message = self._completed(message)
        if isinstance(message, dict) and message.get("type") in _FLOWING:
            # Entries of a term that a crash could undo would be a promise: a node that
            # is a majority alone can lead in the tick in which it votes for itself.
            if self._is_term_durable():
                return transport_send(node, message)
        elif not self._held and self._is_durable():
            return transport_send(node, message)
        self._held.append((transport_send, node, message))
        return True

    def release(self) -> None:
        """Send what is held: what it promises is durable now."""
        while self._held and not self._closed:
            transport_send, node, message = self._held.popleft()
            transport_send(node, message)

    def close(self) -> None:
        """Drop what is held and all that is yet to come."""
        self._closed = True
        self._held.clear()

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
