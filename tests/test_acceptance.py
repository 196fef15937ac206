"""Whatever a log accepts can be read back: writer and reader keep the same rules."""

from __future__ import annotations

import os
import random

from raftwal import WAL, Entry, HardState, SnapshotMetadata
from raftwal.errors import EntryGapError, InvalidEntryError
from raftwal.testing import InlineExecutor, SimulatedDisk
from raftwal.wal.reading import read_whole_log

SEQUENCES = int(os.environ.get("RAFTWAL_SEQUENCES", "2000"))


def any_call(wal: WAL, source: random.Random) -> WAL:
    kind = source.randrange(3)
    if kind == 0:
        first, term = source.randrange(8), source.randrange(6)
        entries = [
            Entry(term + (source.random() < 0.2) * n, first + n, bytes(source.randrange(60)))
            for n in range(source.randrange(4))
        ]
        state = HardState(source.randrange(6), source.randrange(3), source.randrange(8))
        wal.save(source.choice((state, None)), entries)
    elif kind == 1:
        wal.save_snapshot(SnapshotMetadata(source.randrange(14), source.randrange(6)))
    else:
        wal = wal.reopen()
        wal.read_all()
    return wal


def test_what_is_accepted_is_readable_and_what_is_not_is_refused():
    """Any calls in any order, also those that Raft never makes.

    But for one: behind a snapshot that is ahead of it a log cannot be read from its
    beginning, and is not meant to.
    """
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}; replay with RAFTWAL_SEED={seed}")
    accepted = refused = 0
    for number in range(SEQUENCES):
        source = random.Random(seed + number)
        disk = SimulatedDisk()
        size = source.choice((100, 400, 4096))
        wal = WAL.create("/log", b"m", segment_bytes=size, fs=disk, executor=InlineExecutor())
        try:
            for _ in range(source.randrange(1, 14)):
                try:
                    wal = any_call(wal, source)
                    accepted += 1
                except InvalidEntryError:
                    refused += 1
            wal.close()
            read_whole_log(disk, "/log")
        except EntryGapError:
            continue
        except ValueError as error:
            raise AssertionError(f"seed {seed + number}: {error}") from error
    assert accepted > SEQUENCES < refused * 5
