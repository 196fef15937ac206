"""Three nodes as processes, one of which meets a fault; what must hold at the end of it."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from injected_faults import InjectedFaults, command
from steady_clients import SteadyClients
from witnessed_kvstore import EVERYTHING

from examples.demo.cluster import KVCluster, KVNodeProcess
from raftwal import WAL, HardState
from raftwal.pysyncobj.node_ids import member_id

ROOT = Path(__file__).parents[1]
NODE_PROGRAM = Path(__file__).with_name("witnessed_kvstore.py")
# A call that is not answered in this time was left hanging.
WRITE_TIMEOUT = "10"
DEADLINE_SECONDS = 60.0


class FaultyCluster(KVCluster):
    """Nodes that write down what they promise, and clients that keep what they are told.

    `check` ends each story: everything acknowledged is on every node, no term has two
    leaders, nobody votes twice.  It is sound then, and only then.
    """

    def __init__(self, directory: Path, options: Sequence[str] = ()) -> None:
        super().__init__(directory, 3, ["--write-timeout", WRITE_TIMEOUT, *options])
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        for node in self.nodes:
            # ``python -m examples.kvstore`` becomes ``python witnessed_kvstore.py``.
            arguments = node.command[node.command.index("examples.kvstore") + 1 :]
            program = [sys.executable, str(NODE_PROGRAM), str(promises_file(node))]
            # env(1) becomes the program that it starts: one process, whose id is known.
            node.command = ["env", f"PYTHONPATH={path}", *program, *arguments]
        self.acknowledged: dict[str, str] = {}
        self.is_sound = False
        self._saved: dict[str, HardState] = {}
        self._traces = 0

    def logs(self) -> str:
        """For `conftest`: what the nodes wrote."""
        return self.log_tails()

    @contextmanager
    def clients(self) -> Iterator[SteadyClients]:
        """Clients of all nodes; what they were told counts from then on."""
        self.is_sound = False
        with SteadyClients(self.nodes) as clients:
            try:
                yield clients
            finally:
                clients.stop()
                self.acknowledged |= clients.acknowledged()

    def of_role(self, role: str) -> KVNodeProcess:
        leader = self.wait_for_leader()
        return leader if role == "leader" else self.others(leader)[0]

    def others(self, node: KVNodeProcess) -> list[KVNodeProcess]:
        return [each for each in self.nodes if each is not node]

    def faults_in(self, node: KVNodeProcess, *faults: str) -> InjectedFaults:
        """A context in which a running node's system calls fail."""
        return InjectedFaults(node.process.pid, self._next_trace(), *faults)

    def start_with_faults_in(self, node: KVNodeProcess, *faults: str) -> None:
        """Start a node whose system calls fail from the first one on."""
        plain = node.command
        # The node is the child, and strace the one beside it that ends with it.
        beside = ["-D"]
        if not any("signal=" in fault for fault in faults):
            # A start makes thousands of other calls, which keep their speed with this.
            # (It also makes strace forget the signals that it is to send.)
            beside.append("--seccomp-bpf")
        node.command = [*command(self._next_trace(), faults), *beside, *plain]
        try:
            node.start()
        finally:
            node.command = plain

    def wait_until_failed(self, node: KVNodeProcess) -> str:
        """Wait for ``/healthz`` to say that the storage has failed; the reason it gives."""
        node.wait_until(lambda: not is_healthy(node), "failed", DEADLINE_SECONDS)
        return node.request("GET", "/healthz").text

    def wait_for_leader_besides(self, node: KVNodeProcess) -> KVNodeProcess:
        """Wait until one of the other nodes leads in the newest term that there is."""
        leading: list[KVNodeProcess] = []

        def another_leads() -> bool:
            statuses = [(each, each.status()) for each in self.others(node)]
            newest = max(status["raft_term"] for _, status in statuses)
            leading[:] = [
                each
                for each, status in statuses
                if status["role"] == "leader" and status["raft_term"] == newest
            ]
            return bool(leading)

        self.others(node)[0].wait_until(another_leads, "led by another", DEADLINE_SECONDS)
        return leading[0]

    def check(self) -> None:
        """All nodes run, catch up, and have kept every promise."""
        self.wait_ready(DEADLINE_SECONDS)
        self.wait_in_step(DEADLINE_SECONDS)
        assert self.acknowledged, "nothing was acknowledged, so nothing was checked"
        for node in self.nodes:
            values = json.loads(node.get(EVERYTHING))
            lost = {
                key: values.get(key)
                for key, expected in self.acknowledged.items()
                if values.get(key) != expected
            }
            assert not lost, f"{node.name} lost {len(lost)} acknowledged writes: {lost}"
            check_votes(node)
        check_leaders(self.nodes)
        self.is_sound = True

    def check_disk(self, node: KVNodeProcess) -> None:
        """What a node that has stopped has on disk: all it promised, and no less than before.

        Read from the log itself, without recovery.
        """
        with WAL.open_for_read(node.data_dir / "wal") as wal:
            contents = wal.read_all()
        state = contents.hard_state
        before = self._saved.get(node.name, HardState())
        assert state.term >= before.term, f"{node.name}: term {before.term}, then {state.term}"
        if state.term == before.term and before.vote:
            assert state.vote == before.vote, f"{node.name} voted twice in term {state.term}"
        self._saved[node.name] = state
        promises = promises_of(node)
        votes = [promise for promise in promises if "vote_in" in promise]
        if votes:
            assert votes[-1]["vote_in"] <= state.term, f"{node.name}: {votes[-1]} is not on disk"
            if votes[-1]["vote_in"] == state.term:
                assert state.vote == member_id(votes[-1]["vote_for"]), f"{votes[-1]}: {state}"
        # Of the newest term alone: what an older one acknowledged may have been replaced.
        acknowledged = [
            promise["acknowledged"]
            for promise in promises
            if "acknowledged" in promise and promise["term"] == state.term
        ]
        last_index = contents.entries[-1].index
        assert max(acknowledged, default=0) <= last_index, f"{node.name} ends at {last_index}"

    def _next_trace(self) -> Path:
        self._traces += 1
        return self.nodes[0].data_dir.with_name(f"trace-{self._traces}")


def is_healthy(node: KVNodeProcess) -> bool:
    return node.request("GET", "/healthz").status_code == 200


def is_serving(node: KVNodeProcess) -> bool:
    """Whether it answers at all; false while it starts."""
    try:
        node.request("GET", "/healthz")
    except httpx.TransportError:
        return False
    return True


def promises_file(node: KVNodeProcess) -> Path:
    return node.data_dir.with_name(f"{node.name}.promises")


def promises_of(node: KVNodeProcess) -> list[dict]:
    """What left the node, oldest first, and the calls of its hook.

    The last line of a node that was killed may be half a line: nothing left behind it.
    """
    lines = promises_file(node).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def hook_calls(node: KVNodeProcess) -> list[str]:
    return [promise["hook"] for promise in promises_of(node) if "hook" in promise]


def check_votes(node: KVNodeProcess) -> None:
    """One vote a term, and terms that do not go back."""
    term = 0
    votes: dict[int, str] = {}
    for promise in promises_of(node):
        if "vote_in" in promise:
            assert promise["vote_in"] >= term, f"{node.name}: from term {term} to {promise}"
            term = promise["vote_in"]
            vote = votes.setdefault(term, promise["vote_for"])
            assert vote == promise["vote_for"], f"{node.name}: {promise}, and before {vote}"


def check_leaders(nodes: Sequence[KVNodeProcess]) -> None:
    """One leader a term: the only node that sent entries or heartbeats in it."""
    leaders: dict[int, set[str]] = defaultdict(set)
    for node in nodes:
        for promise in promises_of(node):
            if "leads_in" in promise:
                leaders[promise["leads_in"]].add(node.name)
    assert leaders, "no leader wrote down anything, so nothing was checked"
    two = {term: names for term, names in leaders.items() if len(names) > 1}
    assert not two, f"two leaders in a term: {two}"


def last_words(node: KVNodeProcess, since: int) -> str:
    """What the node printed behind the first ``since`` bytes of its log."""
    return node.log.read_bytes()[since:].decode()
