"""A transport of an application's own: messages go through a switchboard that a test works."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from typing import Any

from pysyncobj.transport import Transport


class Switchboard:
    """Connects the nodes of one process.

    ``passes`` says of each message whether it is delivered; ``holds`` whether it waits
    until `let_go`.  Both are given the ids of sender and receiver, and the message.
    """

    def __init__(self) -> None:
        self.passes: Callable[[str, str, Any], bool] = lambda *_: True
        self.holds: Callable[[str, str, Any], bool] = lambda *_: False
        self._held: list[tuple[str, str, Any]] = []
        self._lines: dict[str, SwitchedTransport] = {}

    def transport(self, *arguments: Any) -> SwitchedTransport:
        """What PySyncObj calls to make a transport; it need not be a class."""
        return SwitchedTransport(self, *arguments)

    def isolate(self, *node_ids: str) -> None:
        """Nothing passes between these nodes and the others."""
        self.passes = lambda sender, receiver, _: (sender in node_ids) == (receiver in node_ids)

    def connect_all(self) -> None:
        self.passes = lambda *_: True

    def let_go(self) -> None:
        held, self._held = self._held, []
        for sender, receiver, message in held:
            self._put(sender, receiver, message)

    @property
    def held(self) -> int:
        return len(self._held)

    def plug_in(self, line: SwitchedTransport) -> None:
        self._lines[line.id] = line

    def unplug(self, line: SwitchedTransport) -> None:
        if self._lines.get(line.id) is line:
            del self._lines[line.id]

    def is_connected(self, node_id: str) -> bool:
        return node_id in self._lines

    def send(self, sender: str, receiver: str, message: Any) -> bool:
        if receiver not in self._lines:
            return False
        # Not the sender's objects.
        message = pickle.loads(pickle.dumps(message))
        if self.holds(sender, receiver, message):
            self._held.append((sender, receiver, message))
        elif self.passes(sender, receiver, message):
            self._put(sender, receiver, message)
        return True

    def _put(self, sender: str, receiver: str, message: Any) -> None:
        line = self._lines.get(receiver)
        if line is not None:
            line.arrived.append((sender, message))


class SwitchedTransport(Transport):
    """One node's line: what arrived is handled in its ticks."""

    def __init__(self, switchboard: Switchboard, sync_obj: Any, self_node: Any, others: Any):
        super().__init__(sync_obj, self_node, others)
        self.id = self_node.id
        self.arrived: deque[tuple[str, Any]] = deque()
        self._switchboard = switchboard
        self._nodes = {node.id: node for node in others}
        self._connected: set[str] = set()
        switchboard.plug_in(self)
        sync_obj.addOnTickCallback(self._on_tick)

    def addNode(self, node: Any) -> None:
        self._nodes[node.id] = node

    def dropNode(self, node: Any) -> None:
        self._nodes.pop(node.id, None)

    def send(self, node: Any, message: Any) -> bool:
        return self._switchboard.send(self.id, node.id, message)

    def destroy(self) -> None:
        self._switchboard.unplug(self)
        self._nodes.clear()

    def _on_tick(self) -> None:
        for node in list(self._nodes.values()):
            if self._switchboard.is_connected(node.id) and node.id not in self._connected:
                self._connected.add(node.id)
                self._onNodeConnected(node)
        for node_id in list(self._connected):
            if node_id not in self._nodes or not self._switchboard.is_connected(node_id):
                self._connected.discard(node_id)
                if node_id in self._nodes:
                    self._onNodeDisconnected(self._nodes[node_id])
        while self.arrived:
            sender, message = self.arrived.popleft()
            if sender in self._nodes:
                self._onMessageReceived(self._nodes[sender], message)
