"""The same calls give the same files, answers and errors, whether saves go straight to the file
or by Python.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from implementations import native_codec, saves_in_python

from raftwal import Entry, HardState, SnapshotMetadata
from raftwal.errors import RaftwalError
from raftwal.fs import DISK
from raftwal.model import MAX_UINT64
from raftwal.testing import UnsyncedDisk
from raftwal.wal.log import WAL

native_codec()

SEGMENT_BYTES = (4_096, 16_384, 65_536, 1 << 20)
CALLS = 120


class Script:
    """Calls that a seed decides, on what the calls before have made of the log."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.segment_bytes = self.random.choice(SEGMENT_BYTES)
        self.preallocation = self.random.choice((*["reserve"] * 7, "zeros"))
        self.term = 1

    def data(self) -> bytes | None:
        kind = self.random.random()
        if kind < 0.1:
            return self.random.choice((None, b""))
        if kind < 0.92:
            return self.random.randbytes(self.random.randrange(1, 200))
        return bytes(self.random.randrange(4_000, 2 * self.segment_bytes))

    def entries(self, last_index: int) -> list[Entry] | tuple[Entry, ...]:
        kind = self.random.random()
        first = last_index + 1
        if kind < 0.08:
            self.term += self.random.randrange(1, 3)
        elif kind < 0.12:
            first = max(1, last_index - self.random.randrange(4))
        elif kind < 0.14:
            first = 0
        elif kind < 0.16:
            first = self.random.choice((last_index + 2, MAX_UINT64, -1, 1 << 64))
        term = self.random.choice((0, 1 << 64)) if self.random.random() < 0.02 else self.term
        entries = [
            Entry(term, first + position, self.data(), self.random.choice((0, 0, 0, 1, 2, True)))
            for position in range(self.random.choice((1, 1, 1, 2, 5, 40)))
        ]
        if self.random.random() < 0.03:
            entries[-1] = entries[-1]._replace(
                **self.random.choice(({"type": 3}, {"data": "text"}, {"term": None}, {"index": 1}))
            )
        return self.random.choice((list, tuple))(entries)

    def state(self, state: HardState) -> HardState | None:
        kind = self.random.random()
        if kind < 0.5:
            return state._replace(term=max(self.term, state.term), commit=state.commit + 1)
        if kind < 0.6:
            return state
        if kind < 0.8:
            return HardState(self.term, self.random.randrange(4), state.commit)
        return self.random.choice(
            (
                None,
                HardState(),
                HardState(max(0, self.term - 1), 0, 0),
                HardState(self.term, 1, 1 << 64),
                HardState(self.term, MAX_UINT64, MAX_UINT64),
                HardState(self.term, 0, None),
                (self.term, 0, 0),
            )
        )

    def call(self, log: WAL) -> WAL:
        """Make one call; the log that is to be gone on with."""
        kind = self.random.random()
        if kind < 0.4:
            log.save(None, self.entries(log.last_index))
        elif kind < 0.55:
            entries = self.entries(log.last_index)
            log.save(self.state(log.hard_state), entries)
        elif kind < 0.75:
            state = self.state(log.hard_state)
            for _ in range(self.random.choice((1, 1, 1, 1_500 if self.seed % 8 == 0 else 3))):
                log.save(state)
                if isinstance(state, HardState) and isinstance(state.commit, int):
                    state = state._replace(commit=state.commit + 1)
        elif kind < 0.87:
            data = [self.data() for _ in range(self.random.choice((1, 2, 5)))]
            log.save_next(
                lambda first: [Entry(self.term, first + at, one) for at, one in enumerate(data)]
            )
        elif kind < 0.89:
            index = max(0, log.last_index + self.random.randrange(-3, 3))
            log.save_snapshot(SnapshotMetadata(index, self.term if index else 0))
        elif kind < 0.92:
            log.flush()
        elif kind < 0.95:
            log.sync()
        elif kind < 0.97:
            log.submit(self.state(log.hard_state), self.entries(log.last_index)).result(60)
        elif kind < 0.98:
            log.release_to(self.random.randrange(log.last_index + 1))
        else:
            log = log.reopen()
            log.read_all()
        return log


def told_by(path: Path, seed: int) -> list[object]:
    """What each call of the script said, and the bytes it left in the directory at its end."""
    script = Script(seed)
    told: list[object] = []
    log = WAL.create(
        path,
        b"metadata",
        segment_bytes=script.segment_bytes,
        # Without syncs there are no zeros either.
        fs=DISK if script.preallocation == "zeros" else UnsyncedDisk(),
        preallocation=script.preallocation,
    )
    with contextlib.closing(log):
        for _ in range(CALLS):
            try:
                log = script.call(log)
            except (RaftwalError, TypeError) as error:
                told.append((type(error), str(error).replace(str(path), "")))
            told.append((log.last_index, log.hard_state))
        log.close()
    told += [(file.name, file.read_bytes()) for file in sorted(path.iterdir())]
    return told


@pytest.mark.parametrize("seed", range(20))
def test_the_same_calls_give_the_same_files_and_answers(seed, tmp_path):
    print(f"seed {seed}")
    straight = told_by(tmp_path / "straight", seed)
    with saves_in_python():
        by_python = told_by(tmp_path / "by_python", seed)
    assert len(straight) == len(by_python)
    for number, (one, other) in enumerate(zip(straight, by_python, strict=True)):
        assert one == other, f"seed {seed}: answer {number}"


def test_the_scripts_have_most_saves_go_straight_to_the_file(tmp_path):
    """Else the comparison would compare Python with itself."""
    script = Script(0)
    log = WAL.create(tmp_path / "log", fs=UnsyncedDisk(), segment_bytes=1 << 20)
    straight = 0
    with contextlib.closing(log):
        for _ in range(CALLS):
            with contextlib.suppress(RaftwalError):
                log = script.call(log)
            assert log._tail is not None
            straight += log._tail.takes_saves
    assert straight > CALLS / 4, straight
