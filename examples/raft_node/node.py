"""A Raft node in etcd's style (ready, save, send, apply, advance) on `raftwal.RaftStorage`.

`Raft` decides; after each call of it, `Node.process` does what it says, and sends nothing
before it is saved.  A node sends messages to itself, too: so a leader counts what it has saved.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from raftwal import Entry, HardState, Identity, RaftStorage, Snapshot, SnapshotMetadata


class Message(NamedTuple):
    kind: str
    sender: int
    to: int
    term: int
    commit: int
    log_index: int = 0  # vote: the last entry; append: the one before; reply: the last in common
    log_term: int = 0
    entries: Sequence[Entry] = ()
    snapshot: Snapshot | None = None


class Raft:
    def __init__(self, node_id: int, members: Sequence[int], storage: RaftStorage) -> None:
        self.id, self.members, self.log = node_id, members, storage
        self.term, self.vote, self.commit = storage.initial_state().hard_state
        self.become("follower", self.term)
        self.advance()

    def ready(self) -> tuple[HardState, list[Entry], Snapshot | None, list[Message]] | None:
        state = HardState(self.term, self.vote, self.commit)
        is_changed = state != self.log.hard_state or self.entries or self.messages
        return (state, self.entries, self.snapshot, self.messages) if is_changed else None

    def advance(self) -> None:
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.messages: list[Message] = []

    def become(self, role: str, term: int) -> None:
        self.vote = self.vote if term == self.term else 0
        self.role, self.term, self.elapsed, self.votes = role, term, 0, set[int]()
        self.match = dict.fromkeys(self.members, 0)
        self.next = dict.fromkeys(self.members, self.log.last_index + 1)

    def send(self, kind: str, to: int, **fields: Any) -> None:
        self.messages.append(Message(kind, self.id, to, self.term, self.commit, **fields))

    def tick(self) -> None:
        self.elapsed += 1
        if self.role == "leader":
            self.send_entries()
        elif self.elapsed >= random.randint(10, 20):
            self.become("candidate", self.term + 1)
            last = self.log.last_index
            for member in self.members:
                self.send("vote", member, log_index=last, log_term=self.log.term(last))

    def propose(self, command: bytes) -> None:
        self.entries.append(Entry(self.term, self.log.last_index + len(self.entries) + 1, command))

    def step(self, message: Message) -> None:
        if message.term > self.term:
            self.become("follower", message.term)
        if message.term == self.term:
            getattr(self, f"step_{message.kind}")(message)

    def step_vote(self, message: Message) -> None:
        last = (self.log.term(self.log.last_index), self.log.last_index)
        if self.vote in (0, message.sender) and (message.log_term, message.log_index) >= last:
            self.vote, self.elapsed = message.sender, 0
            self.send("vote_reply", message.sender)

    def step_vote_reply(self, message: Message) -> None:
        self.votes.add(message.sender)
        if self.role == "candidate" and len(self.votes) > len(self.members) // 2:
            self.become("leader", self.term)
            self.propose(b"{}")  # committing it commits what earlier leaders left

    def send_entries(self) -> None:
        for to in self.members:
            prior, end = self.next[to] - 1, self.log.last_index + 1
            if prior + 1 < self.log.first_index:
                state = self.log.snapshot()
                self.send("append", to, log_index=state.metadata.index, snapshot=state)
            else:
                new = self.log.entries(prior + 1, end, 1 << 20) if prior + 1 < end else []
                self.send("append", to, log_index=prior, log_term=self.log.term(prior), entries=new)

    def step_append(self, message: Message) -> None:
        if message.sender != self.id:
            self.role, self.elapsed = "follower", 0
        before, last, term_at = message.log_index, self.log.last_index, self.log.term
        matched = before + len(message.entries)
        if message.snapshot and before > self.commit:
            self.snapshot, self.commit = message.snapshot, before
        elif before > last or (before > self.commit and term_at(before) != message.log_term):
            matched = self.commit
        else:
            new = [entry for entry in message.entries if entry.index > self.commit]
            while new and new[0].index <= last and term_at(new[0].index) == new[0].term:
                del new[0]  # it may have been acknowledged: never cut back
            self.entries += new
            self.commit = max(self.commit, min(message.commit, matched))
        self.send("append_reply", message.sender, log_index=matched)

    def step_append_reply(self, message: Message) -> None:
        if self.role == "leader":
            self.next[message.sender] = message.log_index + 1
            self.match[message.sender] = max(self.match[message.sender], message.log_index)
            quorum = sorted(self.match.values())[(len(self.members) - 1) // 2]
            if quorum > self.commit and self.log.term(quorum) == self.term:
                self.commit = quorum


class Node:
    def __init__(self, node_id: int, members: Sequence[int], path: str, send: Callable[..., None]):
        self.storage = RaftStorage.open(path, identity=Identity(str(node_id)))
        self.raft, self.send = Raft(node_id, members, self.storage), send
        self.values, self.applied = dict[str, Any](), 0
        self.apply(self.raft.commit)

    def process(self) -> None:
        while ready := self.raft.ready():
            hard_state, entries, snapshot, messages = ready
            if snapshot:
                self.storage.save_snapshot(snapshot)
            self.storage.save(hard_state, entries)
            for message in messages:
                self.send(message)
            self.apply(hard_state.commit)
            self.raft.advance()

    def apply(self, commit: int) -> None:
        if self.applied < self.storage.first_index - 1:  # a restart, or a snapshot received
            snapshot = self.storage.snapshot()
            self.values, self.applied = json.loads(snapshot.data), snapshot.metadata.index
        while self.applied < commit:
            self.applied += 1
            (entry,) = self.storage.entries(self.applied, self.applied + 1)
            self.values.update(json.loads(entry.data or b"{}"))
        if commit >= self.storage.snapshot_metadata.index + 100:
            metadata = SnapshotMetadata(commit, self.storage.term(commit))
            self.storage.save_snapshot(Snapshot(metadata, json.dumps(self.values).encode()))
            self.storage.compact(commit - 10)
