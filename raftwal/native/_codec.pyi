from collections.abc import Sequence
from typing import TypeVar

from raftwal.model import Entry, EntryType

_AnyEntry = tuple[int, int, bytes | None, int]
_E = TypeVar("_E", bound=Entry)

CRC_METHOD: str

def extend_crc(crc: int, data: bytes | memoryview) -> int: ...
def extend_crc_by_tables(crc: int, data: bytes | memoryview) -> int: ...
def check_sequence(entries: Sequence[_AnyEntry]) -> tuple[int, int] | None: ...
def encode_entries(
    entries: Sequence[_AnyEntry], crc: int
) -> tuple[list[bytes | bytearray], bytes, int, int] | None: ...
def hand_over_frames(
    offset: int, page_offset: int, buffered: int, sizes: bytes
) -> tuple[int, int, int]: ...
def decode_entries(
    buffer: bytes,
    offset: int,
    crc: int,
    first_kept: int,
    most: int,
    entry_class: type[_E],
    entry_types: tuple[EntryType, ...],
) -> tuple[list[_E], int, int, list[tuple[int, int]], int, int, int]: ...
