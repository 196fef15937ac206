"""When etcd would cut: a model of how much its writer has handed to the system.

etcd cuts a segment once the bytes it handed to the operating system, before the sync
of the save at hand, reach the segment size.  Its writer keeps 128 KiB back and hands
over whole pages beyond that.  raftwal writes a save in one piece, so it models that
writer, and cuts where etcd does: the same calls give the same files.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftwal.native import codec
from raftwal.wire.frames import LENGTH_FIELD_BYTES

_PAGE_BYTES = 4096
_KEPT_BACK_BYTES = 128 * 1024


class HandedOver:
    """Counts bytes the way etcd's page writer passes them on.

    ``offset`` is how far into the segment the system has got them.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._page_offset = offset % _PAGE_BYTES
        self._buffered = 0

    def append(self, sizes: Iterable[int], total: int) -> None:
        """Account for frames of these ``sizes``, ``total`` bytes in all, that a save adds."""
        if self._buffered + total <= _KEPT_BACK_BYTES:
            self._buffered += total
            return
        if codec is not None and isinstance(sizes, memoryview):
            self.offset, self._page_offset, self._buffered = codec.hand_over_frames(
                self.offset, self._page_offset, self._buffered, sizes
            )
            return
        for size in sizes:
            self._write(LENGTH_FIELD_BYTES)
            self._write(size - LENGTH_FIELD_BYTES)

    def flush(self) -> None:
        """Account for a sync: everything was handed over."""
        self.offset += self._buffered
        self._page_offset = (self._page_offset + self._buffered) % _PAGE_BYTES
        self._buffered = 0

    def _write(self, count: int) -> None:
        if self._buffered + count <= _KEPT_BACK_BYTES:
            self._buffered += count
            return
        slack = -(self._page_offset + self._buffered) % _PAGE_BYTES
        if slack:
            filled = min(slack, count)
            self._buffered += filled
            count -= filled
            if filled < slack:
                return
        self.flush()
        if count > _PAGE_BYTES:
            pages = count // _PAGE_BYTES * _PAGE_BYTES
            self.offset += pages
            count -= pages
        self._buffered += count
