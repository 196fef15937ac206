"""Two Patroni members with PostgreSQL and a Raft controller, each in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clusters import free_addresses
from patroni_environment import PatroniEnvironment
from patroni_node import DEADLINE_SECONDS, PASSWORD, Member, RaftProcess, wait_until


class PatroniCluster:
    """All of it, below ``directory``."""

    def __init__(self, environment: PatroniEnvironment, directory: Path) -> None:
        self._environment = environment
        self.directory = directory
        directory.mkdir(mode=0o755)
        addresses = free_addresses(10)
        self.members = [
            Member(environment, directory / f"member{number}", *addresses[at : at + 4])
            for number, at in ((1, 0), (2, 4))
        ]
        self.controller = RaftProcess(environment, directory / "controller", *addresses[8:])
        self.all: list[RaftProcess] = [*self.members, self.controller]
        for each in self.all:
            each.configure([other for other in self.all if other is not each])

    def logs(self) -> str:
        return "\n".join(each.last_words() for each in self.all)

    @contextmanager
    def one_more(self, name: str) -> Iterator[RaftProcess]:
        """A controller that the others are not told of: it joins by itself.

        It is removed in the end.
        """
        joining = RaftProcess(self._environment, self.directory / name, *free_addresses(2))
        self._environment.make_directory(joining.raft_dir)
        joining.configure(self.all)
        joining.start()
        wait_until(joining.is_ready, f"{name} to join")
        self.all.append(joining)
        yield joining
        joining.stop()
        self.all.remove(joining)

        def is_removed() -> bool:
            # It is denied while there is no leader: the node may have been that.
            self.admin(self.controller, "-remove", joining.address)
            return self.partners() == {len(self.all) - 1}

        wait_until(is_removed, f"{name} to be removed")

    def partners(self) -> set[int]:
        """How many others each node knows of."""
        counts = set()
        for each in self.all:
            lines = self.admin(each, "-status").splitlines()
            counts |= {int(line.split()[1]) for line in lines if "partner_nodes_count:" in line}
        return counts

    def start(self) -> None:
        """All at once."""
        for each in self.all:
            each.start()

    def kill(self) -> None:
        """SIGKILL to every process of it, PostgreSQL's too, at one moment."""
        self._environment.kill_everything(self.directory)
        for each in self.all:
            if each.process is not None:
                each.wait_for_exit()

    def primary(self) -> Member:
        """Wait for the one member that has the leader lock."""
        found: list[Member] = []

        def is_one() -> bool:
            found[:] = [member for member in self.members if member.is_primary()]
            return len(found) == 1

        wait_until(is_one, "one PostgreSQL primary")
        return found[0]

    def other(self, member: Member) -> Member:
        (other,) = (each for each in self.members if each is not member)
        return other

    def wait_until_whole(self) -> Member:
        """One primary, which all know, and a replica that streams from it; the primary."""

        def is_whole() -> bool:
            views = [_roles(member.get("/cluster")) for member in self.members]
            return all(view == {"leader": "running", "replica": "streaming"} for view in views)

        wait_until(is_whole, "a leader that runs and a replica that streams")
        return self.primary()

    def raft_leader(self) -> RaftProcess:
        """Wait until all that run follow one leader."""
        found: list[RaftProcess] = []

        def all_follow_one() -> bool:
            running = [each for each in self.all if each.is_running]
            known = {each.knows_leader() for each in running}
            found[:] = [each for each in running if known == {each.address}]
            return len(found) == 1

        wait_until(all_follow_one, "a Raft leader that all follow")
        return found[0]

    def move_raft_leader(self, to: RaftProcess) -> None:
        def leads() -> bool:
            leader = self.raft_leader()
            if leader is not to:
                self.admin(leader, "-transfer", to.address)
            return self.raft_leader() is to

        wait_until(leads, f"{to.name} to lead")

    def admin(self, node: RaftProcess, *command: str) -> str:
        """PySyncObj's own tool, which speaks the nodes' protocol."""
        return subprocess.run(
            [str(self._environment.bin / "syncobj_admin"), "-conn", node.address,
             "-pass", PASSWORD, *command],
            capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS,
        ).stdout  # fmt: skip

    def same_content(self) -> dict[str, Any]:
        """Wait until all have applied the same, and check that they hold the same."""
        inside: list[dict[str, Any] | None] = []

        def at_one_index() -> bool:
            # All at once: they go on.
            asked = [each.ask_to_tell() for each in self.all]
            inside[:] = [each.told() for each in self.all] if all(asked) else [None]
            return None not in inside and len({each["applied"] for each in inside if each}) == 1

        wait_until(at_one_index, "all at one index")
        first, *others = [each["content"] for each in inside if each is not None]
        for other in others:
            assert other == first
        return first

    @contextmanager
    def writer(self, prefix: str, size: int) -> Iterator[Writer]:
        """A client that writes to the DCS all the time."""
        writer = Writer(self._environment, self.directory, self.all, prefix, size)
        try:
            yield writer
        finally:
            writer.close()


def _roles(view: Any) -> dict[str, str]:
    return {each["role"]: each["state"] for each in (view or {}).get("members", [])}


class Writer:
    """The program ``patroni/dcs_writer.py``, and what was acknowledged to it."""

    def __init__(
        self,
        environment: PatroniEnvironment,
        directory: Path,
        nodes: Sequence[RaftProcess],
        prefix: str,
        size: int,
    ) -> None:
        addresses = [node.address for node in nodes]
        program = str(environment.directory / "dcs_writer.py")
        self._answers = directory / f"writer{prefix.replace('/', '-')}"
        # Not below the cluster's directory: it is no part of it when that is killed.
        self._process = environment.start(
            [str(environment.bin / "python"), program, prefix, str(size), PASSWORD, *addresses],
            environment.directory,
            self._answers,
        )

    def acknowledged(self) -> list[str]:
        """The keys that were acknowledged so far."""
        lines = self._answers.read_text().splitlines(keepends=True)
        return [line.rstrip() for line in lines if line.endswith("\n") and line.startswith("/")]

    def wait_for_more(self, count: int) -> None:
        target = len(self.acknowledged()) + count
        wait_until(lambda: len(self.acknowledged()) >= target, f"{count} keys more")

    def close(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_SECONDS)
