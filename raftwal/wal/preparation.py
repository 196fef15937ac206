"""The next segment, prepared in the background one ahead of need."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Executor, Future
from typing import NamedTuple

from raftwal.background import Background
from raftwal.errors import LockedError
from raftwal.fs import File, FileSystem
from raftwal.wal.zeroing import Preallocation, Progress, Zeroing


class PreparedSegment(NamedTuple):
    """A segment that has its size and its lock, and whoever fills it with zeros, if anybody."""

    file: File
    zeroing: Zeroing | None

    def close(self) -> None:
        """Have nobody write to it any more, and close it."""
        if self.zeroing is not None:
            self.zeroing.stop()
        self.file.close()


class SegmentPreparation:
    """Keeps one preallocated, locked, nameless segment ready: ``0.tmp`` or ``1.tmp``.

    ``executor`` runs the preparation; a thread of its own by default.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        segment_bytes: int,
        executor: Executor | None,
        preallocation: Preallocation,
        progress: Progress,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._progress = progress
        self._writes_zeros = preallocation == "zeros"
        self._background = Background(executor, "raftwal-preallocate")
        # The segment at hand and the next one: neither waits for the other, and a program
        # that ends waits for neither.
        self._zeros = Background(executor, "raftwal-zeros", passing=True)
        self._prepared = 0
        self._zeroings: list[Zeroing] = []
        self._next: Future[PreparedSegment] = self._background.submit(self._prepare)

    def take(self) -> PreparedSegment:
        """The prepared segment, waiting for it if need be; the next one is begun.

        There is no wait for its zeros.

        Raises ``OSError`` when it could not be prepared, now or in the background.
        """
        try:
            segment = self._next.result()
            if segment.zeroing is not None and segment.zeroing.failed:
                self._discard(segment)
                segment = self._prepare()
        except OSError:
            # Nothing was promised on this file, and the space may be there by now.
            segment = self._prepare()
        if segment.zeroing is not None:
            segment.zeroing.is_beside_records = True
        self._prepared += 1
        self._next = self._background.submit(self._prepare)
        return segment

    def write_zeros(
        self, path: str, start: int, *, is_beside_records: bool = True
    ) -> Zeroing | None:
        """Fill a segment with zeros from ``start`` on, unless its space is only reserved: as fast
        as records come, so that the next segment is full when this one is.
        """
        if not self._writes_zeros:
            return None
        zeroing = Zeroing(self._fs, path, start, self._progress, self._zeros, is_beside_records)
        self._zeroings = [one for one in self._zeroings if not one.has_ended] + [zeroing]
        return zeroing

    def write_no_more_zeros(self) -> None:
        """The log has failed: what is under way ends soon, without a wait for it."""
        self._writes_zeros = False
        for zeroing in self._zeroings:
            zeroing.end_soon()

    def close(self) -> None:
        """Remove the segment that was prepared and not taken."""
        with contextlib.suppress(OSError):
            self._discard(self._next.result())
        self._background.close()
        self._zeros.close()

    def _discard(self, segment: PreparedSegment) -> None:
        segment.close()
        self._fs.remove(segment.file.path)

    def _prepare(self) -> PreparedSegment:
        # Two names in turn: the one taken last keeps its name until it is renamed.
        path = os.path.join(self._directory, f"{self._prepared % 2}.tmp")
        file = self._fs.create(path)
        try:
            if not file.try_lock():
                raise LockedError("a segment being prepared is locked", path=path)
            # All of its space first: a full disk is found before the segment is needed.
            file.allocate(self._segment_bytes)
        except OSError:
            file.close()
            with contextlib.suppress(OSError):
                self._fs.remove(path)
            raise
        return PreparedSegment(file, self.write_zeros(path, 0, is_beside_records=False))
