"""Segment files: their names, their order, and the one a reader starts in."""

from __future__ import annotations

import itertools
import os
import re
from typing import NamedTuple

from raftwal.errors import MissingSegmentError, NotAWalError, ReadFailedError
from raftwal.events import log
from raftwal.fs import FileSystem

DEFAULT_SEGMENT_BYTES = 64_000_000
SECTOR_BYTES = 512
"""What a disk writes whole or not at all: the unit in which a write can tear."""

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")
_PREPARED_NAMES = ("0.tmp", "1.tmp")


_ZEROS = bytes(1 << 16)


def first_data(data: bytes | memoryview, start: int, end: int | None = None) -> int:
    """Where the first block that is not all zero begins, or ``end`` when all are.

    Blocks are of 64 KiB, counted from ``start``: a preallocated tail is tens of
    megabytes of zeros, and is passed over at the speed of memory.
    """
    end = len(data) if end is None else end
    for position in range(start, end, len(_ZEROS)):
        block_end = min(end, position + len(_ZEROS))
        if bytes(data[position:block_end]) != _ZEROS[: block_end - position]:
            return position
    return end


def is_zero(data: bytes | memoryview, start: int, end: int | None = None) -> bool:
    """Whether ``data[start:end]`` is all zero."""
    return first_data(data, start, end) == (len(data) if end is None else end)


class SegmentName(NamedTuple):
    """``sequence`` counts up by one; ``index`` is the first entry it may hold."""

    sequence: int
    index: int  # type: ignore[assignment]  # hides tuple.index

    def __str__(self) -> str:
        return f"{self.sequence:016x}-{self.index:016x}.wal"

    @classmethod
    def parse(cls, file_name: str) -> SegmentName | None:
        """The parts of a segment's file name, or ``None`` for any other name."""
        match = _NAME.fullmatch(file_name)
        if match is None:
            return None
        return cls(int(match[1], 16), int(match[2], 16))


def is_wal_directory(fs: FileSystem, directory: str) -> bool:
    """Whether the directory exists and holds at least one segment.

    Raises `ReadFailedError` when it cannot be looked into.
    """
    return fs.is_directory(directory) and any(map(SegmentName.parse, _list(fs, directory)))


def is_empty_directory(fs: FileSystem, directory: str) -> bool:
    """Whether the directory exists and holds nothing.  Raises `ReadFailedError`."""
    return fs.is_directory(directory) and not _list(fs, directory)


def _list(fs: FileSystem, directory: str) -> list[str]:
    try:
        return fs.list(directory)
    except OSError as error:
        raise ReadFailedError(
            f"cannot list the directory: {error.strerror}", path=directory
        ) from error


def list_segments(fs: FileSystem, directory: str) -> list[SegmentName]:
    """All segments, in order.  Raises `NotAWalError` when there is none.

    A segment being prepared and what a repair set aside are passed over; any other
    name is passed over with a warning.
    """
    if not fs.is_directory(directory):
        raise NotAWalError("there is no log: the directory does not exist", path=directory)
    segments = []
    for file_name in _list(fs, directory):
        segment = SegmentName.parse(file_name)
        if segment is not None:
            segments.append(segment)
        elif file_name not in _PREPARED_NAMES and not file_name.endswith(".broken"):
            log.warning("wal_unknown_file_ignored", path=os.path.join(directory, file_name))
    if not segments:
        raise NotAWalError("there is no log: the directory holds no segment", path=directory)
    return sorted(segments)


def segments_from(
    directory: str, segments: list[SegmentName], index: int | None
) -> list[SegmentName]:
    """The segments that a reader starting after entry ``index`` needs; all for ``None``.

    Raises `NotAWalError` when the log starts later, `MissingSegmentError` when the
    numbers are not consecutive.
    """
    if index is not None:
        first = next(
            (i for i in reversed(range(len(segments))) if segments[i].index <= index), None
        )
        if first is None:
            raise NotAWalError(
                f"the log does not reach back to index {index}: "
                f"its first segment starts at index {segments[0].index}",
                path=directory,
                index=index,
                advice="Start from a snapshot at or after that index, or put the "
                "missing segments back",
            )
        segments = segments[first:]
    for before, after in itertools.pairwise(segments):
        if after.sequence != before.sequence + 1:
            raise MissingSegmentError(
                f"segments are missing between {before} and {after}", path=directory
            )
    return segments
