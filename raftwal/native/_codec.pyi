from collections.abc import Sequence
from typing import TypeVar

from raftwal.model import Entry, EntryType, HardState

_AnyEntry = tuple[int, int, bytes | None, int]
_E = TypeVar("_E", bound=Entry)

CRC_METHOD: str

def extend_crc(crc: int, data: bytes | memoryview) -> int: ...
def extend_crc_by_tables(crc: int, data: bytes | memoryview) -> int: ...
def begin_write_back(fd: int, offset: int, length: int) -> None: ...
def write_back(fd: int, offset: int, length: int) -> None: ...
def check_sequence(entries: Sequence[_AnyEntry]) -> tuple[int, int] | None: ...
def encode_entries(
    entries: Sequence[_AnyEntry], crc: int
) -> tuple[list[bytes | bytearray], bytes, int, int] | None: ...
def hand_over_frames(
    offset: int, page_offset: int, buffered: int, sizes: bytes
) -> tuple[int, int, int]: ...
def decode_entries(
    buffer: bytes | memoryview,
    offset: int,
    crc: int,
    first_kept: int,
    most: int,
    entry_class: type[_E],
    entry_types: tuple[EntryType, ...],
) -> tuple[list[_E], int, int, list[tuple[int, int]], int, int, int]: ...

class Tail:
    limit: int
    is_ahead: int
    is_reserved: int
    average: float
    @property
    def offset(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def takes_saves(self) -> bool: ...
    def __init__(self, hard_state_class: type[HardState], tells: bool, /) -> None: ...
    def open(
        self,
        fd: int,
        syncs: bool,
        offset: int,
        crc: int,
        segment_bytes: int,
        limit: int,
        last_index: int,
        last_term: int,
        lowest_term: int,
        hard_state: HardState,
        /,
    ) -> None: ...
    def close(
        self,
    ) -> (
        tuple[
            int,
            int,
            int,
            tuple[int, int, int],
            int,
            bytes,
            int,
            int,
            tuple[int, float, float],
        ]
        | None
    ): ...
    def save(
        self, hard_state: HardState | None, entries: object, /
    ) -> bool | tuple[int, float, float] | None: ...
    def queue(self, hard_state: HardState | None, entries: object, /) -> int: ...
    def commit(self, write: int, /) -> bool | tuple[int, float, float] | None: ...
    def hard_state(self) -> tuple[int, int, int]: ...
    def count_entries(self) -> int: ...
