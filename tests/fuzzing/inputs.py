"""The corpus, the targets it goes to, and inputs made from it, each by its seed and number."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from fuzzing import messages, segments
from fuzzing.message_mutation import (
    changed_bytes,
    changed_message,
    fields_of,
    varint,
)
from fuzzing.segment_mutation import SegmentMutation

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 4096

Target = Callable[[bytes], None]

# Each kind of input is a directory of the corpus.
TARGETS: dict[str, tuple[Target, ...]] = {
    "segment": (segments.alone, segments.last_of_two, segments.first_of_two),
    "record": (messages.record,),
    "snapshot_file": (messages.snapshot_file,),
    "pysyncobj_snapshot": (messages.pysyncobj_snapshot,),
    "identity": (messages.identity,),
}

# Out of every twelve inputs: what is cheap to try is tried more often.
_TURNS = (
    ("segment", 0),
    ("record", 0),
    ("segment", 1),
    ("record", 0),
    ("snapshot_file", 0),
    ("segment", 2),
    ("record", 0),
    ("pysyncobj_snapshot", 0),
    ("snapshot_file", 0),
    ("record", 0),
    ("pysyncobj_snapshot", 0),
    ("identity", 0),
)


def corpus(kind: str) -> list[Path]:
    return sorted((CORPUS / kind).iterdir())


class Input(NamedTuple):
    """One input, and the target it is for."""

    kind: str
    target: Target
    data: bytes


class Inputs:
    """The inputs of one seed: while the corpus stays as it is, any of them can be made again by
    its number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._files = {kind: [path.read_bytes() for path in corpus(kind)] for kind in TARGETS}

    def __getitem__(self, number: int) -> Input:
        kind, way = _TURNS[number % len(_TURNS)]
        source = random.Random(f"{self._seed}:{number}")
        data = source.choice(self._files[kind])
        for _ in range(source.choice((1, 1, 1, 2, 4))):
            data = mutated(kind, data, source, self._files[kind])
        return Input(kind, TARGETS[kind][way], data)


def mutated(
    kind: str,
    data: bytes,
    source: random.Random,
    others: list[bytes],
    most_bytes: int = MOST_BYTES,
) -> bytes:
    """``data`` changed as suits its kind; ``others`` are files to splice in."""
    if kind == "segment":
        return SegmentMutation(source, others, most_bytes)(data)
    if source.random() < 0.1:
        other = source.choice(others)
        cut = source.randint(0, len(data))
        data = data[:cut] + other[source.randint(0, len(other)) :]
    if kind == "snapshot_file":
        return _mutated_snapshot_file(data, source)[:most_bytes]
    if kind == "record" and source.random() < 0.1:
        return struct.pack("<Q", source.getrandbits(64) >> source.randrange(64)) + data[:8]
    return changed_message(source, data)[:most_bytes]


def _mutated_snapshot_file(data: bytes, source: random.Random) -> bytes:
    """With a checksum that fits again, most of the time."""
    fields = fields_of(data)
    inner = next((v for key, v in fields or () if key == 18 and isinstance(v, bytes)), None)
    if inner is None or source.random() < 0.2:
        return changed_message(source, data)
    inner = source.choice((changed_message, changed_message, changed_bytes))(source, inner)
    crc = google_crc32c.extend(0, inner)
    whole = b"\x08%b\x12%b%b" % (varint(crc), varint(len(inner), source), inner)
    return whole if source.random() < 0.9 else changed_bytes(source, whole)
