"""Three nodes in one process: ``python -m examples.raft_node DIRECTORY``.  Run it twice."""

import json
import sys
from collections import deque
from collections.abc import Callable

from examples.raft_node.node import Message, Node

MEMBERS = (1, 2, 3)


def main(directory: str) -> None:
    """Write a hundred values more each time, and say what is there."""
    network: deque[Message] = deque()
    nodes = {
        node_id: Node(node_id, MEMBERS, f"{directory}/node-{node_id}", network.append)
        for node_id in MEMBERS
    }
    before = max(len(node.values) for node in nodes.values())

    def run_until(is_reached: Callable[[], bool]) -> None:
        while not is_reached():
            for node in nodes.values():
                node.raft.tick()
                node.process()
            while network:
                message = network.popleft()
                nodes[message.to].raft.step(message)
                nodes[message.to].process()

    run_until(lambda: any(node.raft.role == "leader" for node in nodes.values()))
    leader = next(node for node in nodes.values() if node.raft.role == "leader")
    for number in range(before, before + 100):
        leader.raft.propose(json.dumps({f"key {number}": number}).encode())
    leader.process()
    run_until(lambda: all(len(node.values) == before + 100 for node in nodes.values()))
    print(f"found {before} values, wrote 100; node {leader.raft.id} leads term {leader.raft.term}")
    for node in nodes.values():
        node.storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
