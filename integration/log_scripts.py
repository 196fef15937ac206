"""Scripts of calls on a log, as a Raft node makes them, and who performs them.

Hypothesis draws *steps*: small numbers, relative to whatever the log holds by then, so
that they shrink well.  `calls_of` turns steps into *calls*, which are absolute: the same
calls go to raftwal and to etcd's packages (`RaftwalLog`, `EtcdLog`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from etcd_packages import Dump, EtcdPackages
from hypothesis import strategies as st

import raftwal
from raftwal import WAL, ConfState, Entry, EntryType, HardState, SnapshotMetadata
from raftwal.fs import DISK
from raftwal.wal.purging import purge_segments

# The calls.


class Save(NamedTuple):
    state: HardState | None
    entries: list[Entry]


class SaveSnapshot(NamedTuple):
    snapshot: SnapshotMetadata


class Sync(NamedTuple):
    pass


class Release(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index


class Purge(NamedTuple):
    keep: int


class Reopen(NamedTuple):
    """Close, and open to append from ``start``; ``repair`` in between, ``swap`` writers."""

    start: SnapshotMetadata | None
    segment_bytes: int
    repair: bool
    swap: bool


Call = Save | SaveSnapshot | Sync | Release | Purge | Reopen


class Script(NamedTuple):
    metadata: bytes | None
    segment_bytes: int
    calls: list[Call]


# The steps.


class Data(NamedTuple):
    """An entry's data: ``size`` bytes made by ``fill``, none at all for -1."""

    size: int
    fill: str
    type: EntryType

    def made(self, seed: int) -> bytes | None:
        if self.size < 0:
            return None
        if self.fill == "zeros":
            return bytes(self.size)
        if self.fill == "random":
            return random.Random(seed).randbytes(self.size)
        return (b"%d:" % seed * (self.size + 1))[: self.size]


class Append(NamedTuple):
    """Entries; ``back`` of those not yet committed are replaced by them."""

    data: list[Data]
    back: int
    with_state: bool
    commit: int


class Vote(NamedTuple):
    """A hard state of a later term, or a vote in this one."""

    term_bits: int
    vote: int


class Commit(NamedTuple):
    by: int


class Snapshot(NamedTuple):
    """One of the node's own, ``back`` entries behind the commit index."""

    back: int


class Receive(NamedTuple):
    """A snapshot from a peer, ``ahead`` of the log."""

    ahead: int


class ReleaseStep(NamedTuple):
    purge_keep: int | None


class ReopenStep(NamedTuple):
    start: int
    segment_bytes: int
    repair: bool
    swap: bool


SEGMENT_SIZES = st.sampled_from([1, 512, 1000, 2048, 4096, 20000, 1 << 16, 1 << 18])
SIZES = st.one_of(
    st.integers(-1, 40),
    st.integers(440, 530),
    st.sampled_from([1000, 2000, 4000, 4096, 5000]),
)
LARGE_SIZES = st.sampled_from([70_000, 131_000, 131_072, 131_100, 140_000, 270_000])
DATA = st.builds(
    Data,
    st.one_of(SIZES, SIZES, SIZES, SIZES, SIZES, SIZES, LARGE_SIZES),
    st.sampled_from(["text", "text", "random", "zeros"]),
    st.sampled_from([EntryType.NORMAL, EntryType.NORMAL, *EntryType]),
)
APPENDS = st.builds(
    Append,
    st.lists(DATA, min_size=1, max_size=5),
    st.sampled_from([0, 0, 0, 1, 2, 5]),
    st.booleans(),
    st.integers(0, 4),
)
STEPS = st.one_of(
    APPENDS,
    APPENDS,
    APPENDS,
    st.builds(Vote, st.sampled_from([0, 0, 1, 7, 14]), st.sampled_from([0, 1, 7, 2**64 - 1])),
    st.builds(Commit, st.integers(1, 3)),
    st.builds(Snapshot, st.integers(0, 3)),
    st.builds(Receive, st.integers(1, 5)),
    st.just(Sync()),
    st.builds(ReleaseStep, st.sampled_from([None, 1, 2])),
    st.builds(ReopenStep, st.integers(0, 3), SEGMENT_SIZES, st.booleans(), st.booleans()),
)
METADATA = st.sampled_from([None, b"", b"node 1", bytes(range(256)) * 3])


@st.composite
def scripts(draw: st.DrawFn, most_steps: int = 24) -> Script:
    # Long ones, too: by itself Hypothesis seldom draws a list of more than a few.
    fewest = draw(st.integers(1, most_steps))
    steps = draw(st.lists(STEPS, min_size=fewest, max_size=most_steps))
    return Script(draw(METADATA), draw(SEGMENT_SIZES), calls_of(steps))


def seeded_steps(seed: int, count: int) -> list[object]:
    """Steps without Hypothesis, for the same script every time."""
    draw = random.Random(seed)

    def data() -> Data:
        size = draw.choice([-1, 0, draw.randrange(40), draw.randrange(440, 530), 4096, 140_000])
        return Data(size, draw.choice(["text", "random", "zeros"]), draw.choice(list(EntryType)))

    makers = [
        lambda: Append(
            [data() for _ in range(draw.randrange(1, 5))],
            draw.choice([0, 0, 1, 3]),
            draw.random() < 0.5,
            draw.randrange(4),
        ),
        lambda: Vote(draw.choice([0, 1, 7]), draw.choice([0, 7, 2**64 - 1])),
        lambda: Commit(draw.randrange(1, 3)),
        lambda: Snapshot(draw.randrange(3)),
        Sync,
        lambda: ReleaseStep(None),
    ]
    weights = [8, 2, 2, 2, 1, 1]
    return [draw.choices(makers, weights)[0]() for _ in range(count)]


class _Node:
    """What a node would know of its log, to make calls that Raft allows."""

    def __init__(self) -> None:
        self.term, self.vote, self.commit = 1, 0, 0
        self.last = 0
        self.terms = {0: 0}
        self.floor = SnapshotMetadata()
        self.snapshots: list[SnapshotMetadata] = []
        self.made = 0

    def state(self) -> HardState:
        return HardState(self.term, self.vote, self.commit)

    def calls(self, step: object) -> Iterator[Call]:
        match step:
            case Append(data, back, with_state, commit):
                yield self.append(data, back, with_state, commit)
            case Vote(term_bits, vote):
                self.term += 1 << term_bits
                self.vote = vote
                yield Save(self.state(), [])
            case Commit(by):
                self.commit = min(self.last, self.commit + by)
                yield Save(self.state(), [])
            case Snapshot(back):
                index = max(self.floor.index, self.commit - back)
                if index:
                    yield self.snapshot(index)
            case Receive(ahead):
                index = self.last + ahead
                self.last = index
                self.terms[index] = self.term
                yield self.snapshot(index)
                # Nothing else may come between a received snapshot and its commit index.
                self.commit = index
                self.floor = self.snapshots[-1]
                yield Save(self.state(), [])
            case ReleaseStep(purge_keep):
                if self.snapshots:
                    self.floor = self.snapshots[-1]
                    yield Release(self.floor.index)
                    if purge_keep is not None:
                        yield Purge(purge_keep)
            case ReopenStep(start, segment_bytes, repair, swap):
                yield Reopen(self.start(start), segment_bytes, repair, swap)
            case Sync():
                yield step

    def append(self, data: list[Data], back: int, with_state: bool, commit: int) -> Save:
        first = max(self.commit, self.last - back) + 1
        replaces = first <= self.last
        if replaces:
            self.term += 1
            self.vote = 0
        entries = []
        for one in data:
            self.made += 1
            index = first + len(entries)
            entries.append(Entry(self.term, index, one.made(self.made), one.type))
            self.terms[index] = self.term
        self.last = entries[-1].index
        if not (with_state or replaces):
            return Save(None, entries)
        self.commit = min(self.last, self.commit + commit)
        return Save(self.state(), entries)

    def snapshot(self, index: int) -> SaveSnapshot:
        members = ConfState(voters=(1, 7, 2**64 - 1), learners=(5,), auto_leave=index % 2 == 0)
        snapshot = SnapshotMetadata(index, self.terms[index], members)
        if not self.snapshots or index >= self.snapshots[-1].index:
            self.snapshots.append(snapshot)
        return SaveSnapshot(snapshot)

    def start(self, number: int) -> SnapshotMetadata | None:
        """One of the snapshots from which the log can be read, or its beginning."""
        usable = [one for one in self.snapshots if one.index >= self.floor.index]
        beginning = [None] if self.floor.index == 0 else []
        choices = [*beginning, *usable]
        return choices[number % len(choices)]


def calls_of(steps: list[object]) -> list[Call]:
    node = _Node()
    return [call for step in steps for call in node.calls(step)]


# Who performs them.


class EtcdLog:
    """etcd's package as a performer."""

    def __init__(self, packages: EtcdPackages) -> None:
        self.packages = packages

    def create(self, directory: Path, metadata: bytes | None, segment_bytes: int) -> None:
        self.packages.create(directory, metadata, segment_bytes)

    def perform(self, directory: Path, call: Call) -> None:
        packages = self.packages
        match call:
            case Save(state, entries):
                packages.save(state, entries)
            case SaveSnapshot(snapshot):
                packages.save_snapshot(snapshot)
            case Sync():
                packages.sync()
            case Release(index):
                packages.release_to(index)
            case Purge(keep):
                packages.purge(directory, ".wal", keep)
            case unknown:
                raise AssertionError(f"a call that is not performed here: {unknown}")

    def open(self, directory: Path, start: SnapshotMetadata | None, segment_bytes: int) -> Dump:
        return self.packages.open(directory, segment_bytes, start)

    def reopen(self, start: SnapshotMetadata | None) -> Dump:
        return self.packages.reopen(start)

    def repair(self, directory: Path) -> None:
        assert self.packages.repair(directory)

    def close(self) -> None:
        self.packages.close()


class RaftwalLog:
    """raftwal as a performer."""

    def __init__(self) -> None:
        self.wal: WAL | None = None

    def create(self, directory: Path, metadata: bytes | None, segment_bytes: int) -> None:
        self.wal = WAL.create(directory, metadata, segment_bytes=segment_bytes)

    def perform(self, directory: Path, call: Call) -> None:
        wal = self.wal
        assert wal is not None
        match call:
            case Save(state, entries):
                wal.save(state, entries)
            case SaveSnapshot(snapshot):
                wal.save_snapshot(snapshot)
            case Sync():
                wal.sync()
            case Release(index):
                wal.release_to(index)
            case Purge(keep):
                purge_segments(DISK, str(directory), keep)
            case unknown:
                raise AssertionError(f"a call that is not performed here: {unknown}")

    def open(self, directory: Path, start: SnapshotMetadata | None, segment_bytes: int) -> Dump:
        return self._read(WAL.open(directory, start, segment_bytes=segment_bytes))

    def reopen(self, start: SnapshotMetadata | None) -> Dump:
        assert self.wal is not None
        return self._read(self.wal.reopen(start))

    def _read(self, opened: WAL) -> Dump:
        self.wal = opened
        contents = opened.read_all()
        return Dump(contents.metadata, contents.hard_state, contents.entries)

    def repair(self, directory: Path) -> None:
        assert not raftwal.repair(directory).repaired

    def close(self) -> None:
        if self.wal is not None:
            self.wal.close()


def write(writer: RaftwalLog | EtcdLog, directory: Path, script: Script) -> None:
    """Perform the whole script, and close."""
    writer.create(directory, script.metadata, script.segment_bytes)
    for call in script.calls:
        if isinstance(call, Reopen):
            writer.close()
            writer.open(directory, call.start, call.segment_bytes)
        else:
            writer.perform(directory, call)
    writer.close()
