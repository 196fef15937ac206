"""A log's first moments: made as a whole, or locked where it lies."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from raftwal.errors import LockedError, WriteFailedError
from raftwal.fs import File, FileSystem, make_directories
from raftwal.model import START_OF_LOG
from raftwal.wal.segments import SegmentName, is_empty_directory
from raftwal.wal.zeroing import Preallocation, write_first_zeros
from raftwal.wire.frames import CRC, METADATA, SNAPSHOT, encode_frame, extend_crc
from raftwal.wire.messages import encode_snapshot_record


class FirstSegment(NamedTuple):
    """The only segment of a log that was just made: open, locked, durable.

    Appending goes on at ``offset``, where the checksum chain is at ``crc``.
    """

    name: SegmentName
    file: File
    offset: int
    crc: int


def create_log(
    fs: FileSystem,
    directory: str,
    metadata: bytes | None,
    segment_bytes: int,
    preallocation: Preallocation = "reserve",
) -> FirstSegment:
    """Make the log in ``directory``; a crash leaves none or a whole one.

    Raises ``FileExistsError``, `ReadFailedError`, `WriteFailedError`.
    """
    if fs.exists(directory) and not is_empty_directory(fs, directory):
        raise FileExistsError(f"a log, or something else, is already there: {directory}")
    parent = os.path.dirname(directory)
    in_making = f"{directory}.tmp"
    segment = SegmentName(0, 0)
    crc, header = _first_header(metadata)
    file: File | None = None
    made = in_making
    try:
        make_directories(fs, parent)
        if fs.exists(in_making):
            fs.remove_tree(in_making)
        fs.make_directory(in_making)
        file = fs.create(os.path.join(in_making, str(segment)))
        if not file.try_lock():
            raise LockedError("the log being made is locked", path=file.path)
        file.allocate(segment_bytes)
        if preallocation == "zeros":
            # Now, while nobody waits: beside the first saves, they would hold those up.
            write_first_zeros(file, segment_bytes)
        file.write(0, header)
        file.sync()
        fs.sync_directory(in_making)
        fs.rename(in_making, directory)
        made = directory
        fs.sync_directory(parent)
    except OSError as error:
        if file is not None:
            file.close()
        # Under its final name too: opened later, it would pass for a durable one.
        with contextlib.suppress(OSError):
            fs.remove_tree(made)
        raise WriteFailedError(
            f"cannot create the log: {error.strerror or error}", path=directory
        ) from error
    file.path = os.path.join(directory, str(segment))
    return FirstSegment(segment, file, len(header), crc)


def _first_header(metadata: bytes | None) -> tuple[int, bytes]:
    crc = 0
    frames = [encode_frame(CRC, None, crc)]
    for record_type, data in (
        (METADATA, metadata),
        (SNAPSHOT, encode_snapshot_record(START_OF_LOG)),
    ):
        if data is not None:
            crc = extend_crc(crc, data)
        frames.append(encode_frame(record_type, data, crc))
    return crc, b"".join(frames)


def lock_segments(
    fs: FileSystem, directory: str, segments: list[SegmentName]
) -> list[tuple[SegmentName, File]]:
    """Open segments to write, each with its exclusive lock.

    Raises `LockedError` or `WriteFailedError`, holding nothing.
    """
    files: list[tuple[SegmentName, File]] = []
    try:
        for segment in segments:
            path = os.path.join(directory, str(segment))
            file = fs.open(path)
            files.append((segment, file))
            if not file.try_lock():
                raise LockedError("the log is open in another writer", path=path)
    except BaseException as error:
        for _, file in files:
            file.close()
        if isinstance(error, OSError) and not isinstance(error, LockedError):
            raise WriteFailedError(
                f"cannot open the log to write: {error.strerror or error}", path=directory
            ) from error
        raise
    return files
