"""Several real etcd servers that make one cluster, on loopback."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from etcd_server import EtcdServer, RefusedError, ask_to_put


class EtcdCluster:
    """Members by name, each with its data below ``directory``; ``settings`` as a server's."""

    def __init__(self, directory: Path, size: int = 3, **settings: object) -> None:
        self._directory = directory
        self._settings = settings
        self.members: dict[str, EtcdServer] = {}
        for number in range(1, size + 1):
            self._make(f"m{number}")

    def _make(self, name: str) -> EtcdServer:
        self.members[name] = EtcdServer(self._directory, name, **self._settings)
        return self.members[name]

    @property
    def running(self) -> list[EtcdServer]:
        return [member for member in self.members.values() if member.is_running]

    def start(self, *names: str) -> None:
        """Start these members, all by default, and wait until they serve."""
        starting = [self.members[name] for name in names or self.members]
        for member in starting:
            member.launch(self._initial_cluster())
        for member in starting:
            member.wait_until(member.healthy, "to be healthy")

    def kill(self) -> None:
        """Kill all members at one moment."""
        for member in self.members.values():
            member.send(signal.SIGKILL)
        for member in self.members.values():
            member.wait_for_exit()

    def logs(self) -> str:
        return "\n\n".join(member.logs() for member in self.members.values())

    def leader(self) -> EtcdServer:
        """Wait until all that run follow one leader, and return it."""
        found: list[EtcdServer] = []

        def all_follow_one() -> bool:
            statuses = [member.status() for member in self.running]
            leaders = {status.leader for status in statuses}
            found[:] = [
                member
                for member, status in zip(self.running, statuses, strict=True)
                if leaders == {status.member_id}
            ]
            return len(found) == 1

        self.running[0].wait_until(all_follow_one, "to have a leader that all follow")
        return found[0]

    def wait_until_applied(self) -> None:
        """Wait until all that run have applied whatever any of them knows to be committed."""

        def all_applied() -> bool:
            statuses = [member.status() for member in self.running]
            committed = max(status.commit for status in statuses)
            return all(status.commit == status.applied == committed for status in statuses)

        self.running[0].wait_until(all_applied, "to have applied what is committed")

    def move_leader(self, to: EtcdServer) -> None:
        leader = self.leader()
        if leader is not to:
            leader.etcdctl("move-leader", f"{to.status().member_id:x}")
        to.wait_until(lambda: self.leader() is to, "to lead")

    def add(self, name: str) -> EtcdServer:
        """Add a member as a learner, start it, and make it a voter once it has caught up."""
        leader = self.leader()
        member = self._make(name)
        urls = f"--peer-urls={member.peer_url}"
        added = json.loads(leader.etcdctl("member", "add", name, "--learner", urls, "-w", "json"))
        member_id = added["member"]["ID"]
        member.launch(self._initial_cluster(), "existing")

        def promoted() -> bool:
            try:
                leader.etcdctl("member", "promote", f"{member_id:x}")
            except RefusedError as error:
                # Not yet: "can only promote a learner member which is in sync with leader".
                assert "in sync" in str(error), error
                return False
            return True

        member.wait_until(promoted, "to be promoted")
        member.wait_until(member.healthy, "to be healthy")
        return member

    def remove(self, member: EtcdServer) -> None:
        """Remove a member and wait until it ends, which it does when it learns of it."""
        self.leader().etcdctl("member", "remove", f"{member.status().member_id:x}")
        member.wait_for_exit()

    def _initial_cluster(self) -> str:
        return ",".join(f"{each.name}={each.peer_url}" for each in self.members.values())


@contextmanager
def etcd_cluster(directory: Path, size: int = 3, **settings: object) -> Iterator[EtcdCluster]:
    made = EtcdCluster(directory, size, **settings)
    try:
        yield made
    finally:
        made.kill()


class Writers:
    """Clients that put as fast as they are answered, one for each member, until it dies.

    ``acknowledged`` is what the cluster said yes to.
    """

    def __init__(self, members: list[EtcdServer], value_sizes: tuple[int, ...]) -> None:
        self.acknowledged: dict[str, str] = {}
        self._value_sizes = value_sizes
        self._answered = threading.Condition()
        self._threads = [
            threading.Thread(target=self._write, args=(member,), name=f"writer to {member.name}")
            for member in members
        ]

    def _write(self, member: EtcdServer) -> None:
        connection = member.connect()
        number = 0
        try:
            while True:
                size = self._value_sizes[number % len(self._value_sizes)]
                key = f"{member.name}-{number}"
                value = f"{key}:".ljust(size, "x")
                ask_to_put(connection, key, value)
                with self._answered:
                    self.acknowledged[key] = value
                    self._answered.notify_all()
                number += 1
        except (OSError, HTTPException, RefusedError):
            pass
        finally:
            connection.close()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Wait until this many puts were acknowledged."""
        with self._answered:
            assert self._answered.wait_for(lambda: len(self.acknowledged) >= count, 60)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
