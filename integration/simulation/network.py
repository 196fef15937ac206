"""The network: what stands below PySyncObj's own TCPTransport, message by message.

`Connection` and `Server` take the places of its ``TcpConnection`` and ``TcpServer``.  A
connection keeps the order and loses nothing while it lasts; when it ends, what is in
flight may be lost, and each side learns of it in its own time, or not before it sends.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pysyncobj import pickle
from pysyncobj.tcp_connection import CONNECTION_STATE

if TYPE_CHECKING:
    from integration.simulation.machines import Machine, Process
    from integration.simulation.world import World

_CONNECTED = "connected"
_CLOSED = "closed"
_RETRANSMISSION_SECONDS = 0.4
_CONNECT_TRIES = 12
_SEND_SECONDS = 2e-4
# A leader that has no snapshot to send sends that, again and again, until its period is over.
_NOTHING_SECONDS = 1e-2


class End:
    """One end of a TCP connection, as the system holds it for a process."""

    def __init__(self, network: Network, process: Process | None, name: str) -> None:
        self.network = network
        self.process = process
        self.name = name
        self.peer: End
        self.connection: Connection | None = None
        self.incoming: deque[Any] = deque()
        self.is_closed = False
        self.vanished = False
        self._in_flight: deque[tuple[float, Any]] = deque()
        self._last_arrival = 0.0

    def send(self, item: Any) -> None:
        clock = self.network.clock
        arrival = clock.now + self.network.latency(self.name, self.peer.name)
        self._last_arrival = arrival = max(arrival, self._last_arrival)
        self._in_flight.append((arrival, item))
        clock.at(arrival, self._pump)

    def arrive(self, item: Any) -> None:
        if not self.is_closed and self.process is not None and self.process.is_alive:
            self.incoming.append(item)
            self.process.has_arrived(self)

    def close(self, *, abruptly: bool) -> None:
        """As the system does it for a process, alive or killed: the peer is told."""
        if self.is_closed:
            return
        self.is_closed = True
        self.incoming.clear()
        if abruptly:
            self._in_flight.clear()
        self.send(_CLOSED)

    def reset(self) -> None:
        """The network ends the connection; each side learns of it in its own time."""
        for end in (self, self.peer):
            end._in_flight.clear()
            end.send(_CLOSED)

    def vanish(self) -> None:
        """The power is cut: nobody is told."""
        self.is_closed = self.vanished = True
        self.incoming.clear()

    def _pump(self) -> None:
        network, peer = self.network, self.peer
        clock = network.clock
        while self._in_flight and self._in_flight[0][0] <= clock.now:
            if (self.name, peer.name) in network.cut:
                clock.after(_RETRANSMISSION_SECONDS * (0.5 + network.random.random()), self._pump)
                return
            _, item = self._in_flight.popleft()
            if peer.process is None:
                continue
            if peer.is_closed:
                # Nobody has this connection there any more.  One that is off says nothing.
                if network.machine(peer.name).is_on and item is not _CLOSED:
                    clock.after(network.latency(peer.name, self.name), self.arrive, _CLOSED)
                continue
            peer.arrive(item)


class Network:
    def __init__(self, world: World, seed: object) -> None:
        self.clock = world.clock
        self.random = random.Random(f"{seed} network")
        self.machine: Callable[[str], Machine] = world.machine
        self.note = world.trace.message
        self.watch = world.invariants.sent
        self.cut: set[tuple[str, str]] = set()
        """Pairs of machines between which nothing passes, in this direction."""
        self.slow: dict[tuple[str, str], float] = {}
        self.messages = 0
        self.base = 0.0005
        self.spread = 0.004

    def latency(self, source: str, target: str) -> float:
        seconds = self.base + self.spread * self.random.random()
        return seconds + self.slow.get((source, target), 0.0) * (0.5 + self.random.random())

    def open(self, process: Process, host: str, connection: Connection) -> End:
        """Begin to connect; the end says ``_CONNECTED`` or ``_CLOSED`` later."""
        near = End(self, process, process.machine.name)
        far = End(self, None, host)
        near.peer, far.peer = far, near
        near.connection = connection
        process.ends.append(near)
        self.clock.after(self.latency(near.name, host), self._knock, near, 1)
        return near

    def _knock(self, near: End, tries: int) -> None:
        far = near.peer
        if near.is_closed:
            return
        machine = self.machine(far.name)
        is_cut = (near.name, far.name) in self.cut or (far.name, near.name) in self.cut
        if is_cut or not machine.is_on:
            if tries == _CONNECT_TRIES:
                near.arrive(_CLOSED)
            else:
                wait = min(4.0, 0.5 * 2**tries) * (0.5 + self.random.random())
                self.clock.after(wait, self._knock, near, tries + 1)
            return
        process = machine.process
        back = self.latency(far.name, near.name)
        if process is None or not process.is_listening:
            self.clock.after(back, near.arrive, _CLOSED)
            return
        far.process = process
        process.ends.append(far)
        process.has_been_called(far)
        self.clock.after(back, near.arrive, _CONNECTED)


class Connection:
    """PySyncObj's ``TcpConnection``, with its quirks, on an `End`."""

    def __init__(
        self,
        poller: Any,
        onMessageReceived: Any = None,
        onConnected: Any = None,
        onDisconnected: Any = None,
        socket: End | None = None,
        timeout: float = 10.0,
        sendBufferSize: int = 0,
        recvBufferSize: int = 0,
        keepalive: Any = None,
    ) -> None:
        self.sendRandKey = None
        self.recvRandKey = None
        self.encryptor = None
        self._process: Process = poller.process
        self._clock = self._process.machine.world.clock
        self._on_message = onMessageReceived
        self._on_connected = onConnected
        self._on_disconnected = onDisconnected
        self._timeout = timeout
        self._last_read = self._clock.now
        self._end = socket
        self.state = CONNECTION_STATE.DISCONNECTED
        if socket is not None:
            socket.connection = self
            self.state = CONNECTION_STATE.CONNECTED

    def setOnConnectedCallback(self, callback: Any) -> None:
        self._on_connected = callback

    def setOnMessageReceivedCallback(self, callback: Any) -> None:
        self._on_message = callback

    def setOnDisconnectedCallback(self, callback: Any) -> None:
        self._on_disconnected = callback

    def connect(self, host: str, port: int) -> bool:
        self._last_read = self._clock.now
        self._end = self._process.machine.world.network.open(self._process, host, self)
        self.state = CONNECTION_STATE.CONNECTING
        return True

    def send(self, message: Any) -> None:
        if not self._process.is_alive:
            return
        data = pickle.dumps(message)
        if self._is_timed_out():
            self.disconnect()
        elif self._end is not None:
            network = self._end.network
            network.messages += 1
            says_nothing = isinstance(message, dict) and message.get("serialized", 0) is None
            self._clock.spend(_NOTHING_SECONDS if says_nothing else _SEND_SECONDS)
            network.watch(self._process, self._end.peer.name, message)
            network.note(self._process.machine.name, self._end.peer.name, message, data)
            self._end.send(data)

    def disconnect(self) -> None:
        was, self.state = self.state, CONNECTION_STATE.DISCONNECTED
        end, self._end = self._end, None
        if end is not None and self._process.is_alive:
            end.close(abruptly=end.network.random.random() < 0.5)
            self._process.forget(end)
        if was != CONNECTION_STATE.DISCONNECTED and self._on_disconnected is not None:
            self._on_disconnected()

    def getSendBufferSize(self) -> int:
        return 0

    def _is_timed_out(self) -> bool:
        return self._clock.now - self._last_read > self._timeout

    def process(self) -> None:
        """What PySyncObj does with what arrived on a connection."""
        end = self._end
        if end is None:
            return
        if self._is_timed_out() or _CLOSED in end.incoming:
            # What arrived together with the end is not read: nor does PySyncObj.
            self.disconnect()
            return
        if self.state == CONNECTION_STATE.CONNECTING:
            end.incoming.popleft()
            if self._on_connected is not None:
                self._on_connected()
            if self._end is None:
                return
            self.state = CONNECTION_STATE.CONNECTED
        self._last_read = self._clock.now
        while end.incoming and self._end is end:
            message = pickle.loads(end.incoming.popleft())
            if self._on_message is not None:
                self._on_message(message)


class Server:
    """PySyncObj's ``TcpServer``."""

    def __init__(
        self,
        poller: Any,
        host: str,
        port: Any,
        onNewConnection: Any,
        connectionTimeout: float = 3.5,
        **settings: Any,
    ) -> None:
        self._process: Process = poller.process
        self._poller = poller
        self._on_new_connection = onNewConnection
        self._timeout = connectionTimeout

    def bind(self) -> None:
        self._process.server = self

    def unbind(self) -> None:
        self._process.server = None

    def accept(self, end: End) -> None:
        if not end.is_closed:
            self._on_new_connection(Connection(self._poller, socket=end, timeout=self._timeout))


class Poller:
    """PySyncObj's poller of one process; it never waits, since the scheduler does."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def poll(self, timeout: float) -> None:
        self.process.handle_arrivals()

    def subscribe(self, *arguments: Any) -> None: ...

    def unsubscribe(self, *arguments: Any) -> None: ...


class Waker:
    """What ends a poll of the thread that ticks."""

    def __init__(self, poller: Poller) -> None:
        self._process = poller.process

    def wake(self) -> None:
        self._process.end_poll()

    def close(self) -> None: ...
