"""Small helpers that several tests share: what a directory holds, and logs made by hand."""

from __future__ import annotations

from pathlib import Path

from raftwal import WAL, Entry, HardState, LogContents
from raftwal.wal.segments import SECTOR_BYTES
from raftwal.wire.frames import CRC, METADATA, SNAPSHOT, encode_frame, extend_crc

FIRST_SEGMENT = "0000000000000000-0000000000000000.wal"
EMPTY_SNAPSHOT_RECORD = b"\x08\x00\x10\x00"


def contents_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``directory``: its size, and its bytes up to the zeros at its end."""
    return {
        str(path.relative_to(directory)): (len(data), data.rstrip(b"\0"))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for data in [path.read_bytes()]
    }


def segment_name(sequence: int, index: int) -> str:
    return f"{sequence:016x}-{index:016x}.wal"


def read(directory: Path) -> LogContents:
    with WAL.open_for_read(directory) as reader:
        return reader.read_all()


def open_and_read(directory: Path, segment_bytes: int = 4096) -> LogContents:
    with WAL.open(directory, segment_bytes=segment_bytes) as wal:
        return wal.read_all()


def entries(first: int, last: int, term: int = 1, size: int = 8) -> list[Entry]:
    """Entries whose data says their index and term, so that a wrong one shows."""
    return [
        Entry(term, index, (f"{term}:{index}:" * size)[:size].encode())
        for index in range(first, last + 1)
    ]


def make_log(
    directory: Path, last: int = 10, *, segment_bytes: int = 4096, size: int = 8, **settings: object
) -> None:
    """A closed log of ``last`` entries of term 1, saved one by one, all committed but one."""
    with WAL.create(directory, b"node 1", segment_bytes=segment_bytes, **settings) as wal:
        for entry in entries(1, last, size=size):
            wal.save(HardState(1, 7, entry.index - 1), [entry])


def entry_up_to_a_sector(segment: bytes, index: int, term: int = 1) -> Entry:
    """The entry, of an index below 128, whose record ends where a sector does when it stands
    behind the last one in ``segment``.
    """
    end = len(segment.rstrip(b"\0"))
    # A length field; type and checksum; the data's length; type, term and index; the length of
    # the entry's own data.  Padding evens out a checksum that takes fewer bytes.
    around = 8 + 8 + 3 + 6 + 3
    size = -(end + -end % 8 + around) % SECTOR_BYTES
    # Of less data the length would take fewer bytes.
    return Entry(term, index, b"." * (size if size >= 128 else size + SECTOR_BYTES))


class Frames:
    """Records framed by hand, in one checksum chain."""

    def __init__(self, crc: int = 0) -> None:
        self.crc = crc
        self.data = b""

    def add(self, record_type: int, data: bytes | None) -> Frames:
        if data is not None:
            self.crc = extend_crc(self.crc, data)
        self.data += encode_frame(record_type, data, self.crc)
        return self

    def add_header(self, metadata: bytes | None = b"node 1", *, first: bool = True) -> Frames:
        self.add(CRC, None)
        self.add(METADATA, metadata)
        return self.add(SNAPSHOT, EMPTY_SNAPSHOT_RECORD) if first else self

    def write(self, path: Path, size: int = 4096) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.data.ljust(size, b"\0"))
