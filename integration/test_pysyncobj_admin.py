"""PySyncObj's ``syncobj_admin`` against nodes that are processes, and are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from clusters import free_addresses
from pysyncobj import TcpUtility
from pysyncobj.utility import UtilityException

PROGRAM = Path(__file__).parent / "administered_words.py"
ADMIN = os.path.join(sysconfig.get_path("scripts"), "syncobj_admin")
SECONDS = 60


class Members:
    """Nodes as processes."""

    def __init__(self, directory: Path, *, derives: bool, password: str | None) -> None:
        self.directory = directory
        self.derives = derives
        self.password = password
        self.addresses = free_addresses(3)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, address: str) -> None:
        partners = ",".join(each for each in self.addresses if each != address)
        command = [sys.executable, *([] if self.derives else ["-m", "raftwal.pysyncobj"])]
        name = str(self.directory / address.replace(":", "-"))
        with open(f"{name}.log", "a") as log:
            self.processes[address] = subprocess.Popen(
                [*command, str(PROGRAM), address, partners, name, *filter(None, [self.password])],
                env={**os.environ, **({"RAFTWAL_DERIVES": "1"} if self.derives else {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def kill(self, *addresses: str) -> None:
        for address in addresses:
            process = self.processes.pop(address)
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def append(self, address: str, word: str) -> str:
        process = self.processes[address]
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def status(self, address: str) -> dict:
        try:
            return TcpUtility(self.password, timeout=5).executeCommand(address, ["status"]) or {}
        except UtilityException:
            return {}

    def wait_for(self, what: str, condition) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}\n{self.logs()}"

    def wait_for_version(self, address: str, version: int) -> None:
        self.wait_for(
            f"version {version} on {address}",
            lambda: self.status(address).get("enabled_code_version") == version,
        )

    def leader(self) -> str:
        """The member that all follow, once there is one."""
        found: list[str] = []

        def all_follow_one() -> bool:
            found[:] = {str(self.status(each).get("leader")) for each in self.processes}
            return len(found) == 1 and found[0] in self.processes

        self.wait_for("a leader", all_follow_one)
        return found[0]

    def admin(self, address: str, *arguments: str, password: str | None = None) -> str:
        given = password or self.password
        done = subprocess.run(
            [
                *(sys.executable, ADMIN, "-conn", address),
                *(("-pass", given) if given else ()),
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}:\n{path.read_text()}" for path in self.directory.glob("*.log")
        )


@pytest.fixture(
    params=[("installed", None), ("installed", "secret"), ("derived", None)],
    ids=lambda param: f"{param[0]}, {'encrypted' if param[1] else 'plain'}",
)
def members(request, tmp_path):
    how, password = request.param
    made = Members(tmp_path, derives=how == "derived", password=password)
    try:
        yield made
    finally:
        made.kill(*made.processes)


def test_what_the_administrator_has_done_survives_that_all_are_killed(members):
    for address in members.addresses:
        members.start(address)
    leader = members.leader()
    assert members.append(members.addresses[0], "a") == "appended 1"

    status = dict(line.split(": ", 1) for line in members.admin(leader, "-status").splitlines())
    assert status["self"] == status["leader"] == leader
    assert status["words"] == "a"
    assert status["storage_failure"] == "None"
    assert members.admin("nowhere", "-status") == "invalid address to connect"
    if members.password:
        assert members.admin(leader, "-status", password="wrong") == "connection lost"

    (new,) = free_addresses(1)
    assert members.admin(leader, "-add", new) == f"SUCCESS ADD {new}"
    assert members.admin(leader, "-add", new) == f"FAIL ADD {new}"
    assert members.admin(leader, "-remove", leader) == f"FAIL REMOVE {leader}"
    members.start(new)
    members.addresses.append(new)
    members.wait_for("the new member", lambda: members.status(new).get("words") == "a")

    assert members.admin(leader, "-set_version", "1") == "SUCCESS SET_VERSION 1"
    assert "wrong version" in members.admin(leader, "-set_version", "7")
    # Which version of a method is called is settled where it is called, by what is applied there.
    members.wait_for_version(new, 1)
    assert members.append(new, "b") == "appended 2"

    members.kill(*members.processes)
    for address in members.addresses:
        members.start(address)
    leader = members.leader()
    members.wait_for_version(leader, 1)
    assert members.append(leader, "c") == "appended 3"
    for address in members.addresses:
        members.wait_for("all words", lambda a=address: members.status(a).get("words") == "a B C")
        status = members.status(address)
        assert status["enabled_code_version"] == 1
        assert status["partner_nodes_count"] == 3

    other = next(each for each in members.addresses if each != leader)
    assert members.admin(other, "-transfer", leader) == f"FAIL TRANSFER {leader}"
    members.wait_for(
        "the other to be in step",
        lambda: members.admin(leader, "-transfer", other) == f"SUCCESS TRANSFER {other}",
    )
    members.wait_for("the other to lead", lambda: members.leader() == other)

    third = next(each for each in members.addresses if each not in (leader, other))
    members.append(other, "d")
    assert members.admin(other, "-remove", third) == f"SUCCESS REMOVE {third}"
    assert members.status(other)["partner_nodes_count"] == 2
