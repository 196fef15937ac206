"""Damage to a closed log: of each kind that a disk, or somebody, can do to it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

SECTOR = 512


class Damage(NamedTuple):
    """``kind`` of damage to one segment, at ``where``; both are fractions of what there is."""

    kind: str
    segment: float
    where: float
    amount: int


class Done(NamedTuple):
    """What was done: to which segment, and the first of its bytes that is another, or gone."""

    kind: str
    segment: str
    first: int
    words: str


KINDS = (
    "truncate",
    "flip a bit",
    "set a byte",
    "zero a sector",
    "zero some sectors",
    "zero the rest",
    "zero from a sector on",
    "garbage at the end",
    "garbage in the space left",
    "cut the last bytes",
    "remove a segment",
    "empty a segment",
    "swap two segments",
    "duplicate a segment",
)
FRACTIONS = st.floats(0, 1, exclude_max=True)
DAMAGES = st.builds(Damage, st.sampled_from(KINDS), FRACTIONS, FRACTIONS, st.integers(1, 1 << 16))


def do(damage: Damage, directory: Path) -> Done | None:
    """Do it; ``None`` when it changes nothing."""
    paths = sorted(directory.glob("*.wal"))
    path = paths[int(damage.segment * len(paths))]
    before = path.read_bytes()
    match damage.kind:
        case "remove a segment":
            path.unlink()
            return Done(damage.kind, path.name, 0, "removed")
        case "duplicate a segment":
            sequence, index = paths[-1].stem.split("-")
            copy = directory / f"{int(sequence, 16) + 1:016x}-{index}.wal"
            shutil.copyfile(path, copy)
            return Done(damage.kind, copy.name, 0, f"copied from {path.name}")
        case "swap two segments":
            other = paths[int(damage.where * len(paths))]
            path.write_bytes(other.read_bytes())
            other.write_bytes(before)
            return Done(damage.kind, path.name, 0, f"swapped with {other.name}")
    after, words = in_one_segment(damage, before)
    if after == before:
        return None
    path.write_bytes(after)
    return Done(damage.kind, path.name, first_difference(before, after), words)


def first_difference(before: bytes, after: bytes) -> int:
    shorter = min(len(before), len(after))
    return next((at for at in range(shorter) if before[at] != after[at]), shorter)


def in_one_segment(damage: Damage, before: bytes) -> tuple[bytes, str]:  # noqa: PLR0911
    """The segment's bytes after the damage, and what was done, in words."""
    data = bytearray(before)
    end = len(before.rstrip(b"\0"))
    at = int(damage.where * end)
    amount = damage.amount
    sector = at - at % SECTOR
    match damage.kind:
        case "truncate":
            return before[:at], f"truncated to {at} of {len(data)}"
        case "cut the last bytes":
            at = max(0, end - 1 - amount % 40)
            return before[:at], f"truncated to {at}: {end} bytes of records"
        case "empty a segment":
            return b"", "emptied"
        case "flip a bit":
            data[at] ^= 1 << amount % 8
            return data, f"bit {amount % 8} of byte {at} flipped"
        case "set a byte":
            data[at] = amount % 256
            return data, f"byte {at} set to {amount % 256}"
        case "zero a sector" | "zero some sectors":
            sectors = 1 if damage.kind == "zero a sector" else 2 + amount % 8
            beyond = min(len(data), sector + sectors * SECTOR)
            data[sector:beyond] = bytes(beyond - sector)
            return data, f"zero from {sector} to {beyond}"
        case "zero the rest" | "zero from a sector on":
            first = sector if damage.kind == "zero from a sector on" else at
            data[first:] = bytes(len(data) - first)
            return data, f"zero from {first} on"
        case "garbage at the end":
            data += garbage(amount)
            return data, f"garbage behind byte {len(before)}"
        case "garbage in the space left":
            # Behind the last record and its padding, somewhere.
            first = end + int(damage.where * (len(data) - end))
            made = garbage(amount)[: len(data) - first]
            data[first : first + len(made)] = made
            return data, f"garbage from {first} to {first + len(made)}"
        case unknown:
            raise AssertionError(unknown)


def garbage(seed: int) -> bytes:
    return random.Random(seed).randbytes(1 + seed % 700)


class Bounds(NamedTuple):
    """Where a record's parts begin in its segment: length field, message, padding; its end."""

    start: int
    message: int
    padding: int
    end: int


def records_in(data: bytes) -> list[Bounds]:
    """The records of an undamaged segment."""
    found = []
    start = 0
    while start + 8 <= len(data) and (field := data[start : start + 8]) != bytes(8):
        padding = start + 8 + int.from_bytes(field[:7], "little")
        end = padding + (field[7] & 7)
        found.append(Bounds(start, start + 8, padding, end))
        start = end
    return found
