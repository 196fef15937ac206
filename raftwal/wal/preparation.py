"""The next segment, prepared in the background one ahead of need."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Executor, Future

from raftwal.background import Background
from raftwal.errors import LockedError
from raftwal.fs import File, FileSystem


class SegmentPreparation:
    """Keeps one preallocated, locked, nameless segment ready: ``0.tmp`` or ``1.tmp``.

    ``executor`` runs the preparation; a thread of its own by default.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        segment_bytes: int,
        executor: Executor | None = None,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._background = Background(executor, "raftwal-preallocate")
        self._prepared = 0
        self._next: Future[File] = self._background.submit(self._prepare)

    def take(self) -> File:
        """The prepared segment, waiting for it if need be; the next one is begun.

        Raises ``OSError`` when it could not be prepared, now or in the background.
        """
        try:
            file = self._next.result()
        except OSError:
            # Nothing was promised on this file, and the space may be there by now.
            file = self._prepare()
        self._prepared += 1
        self._next = self._background.submit(self._prepare)
        return file

    def close(self) -> None:
        """Remove the segment that was prepared and not taken."""
        with contextlib.suppress(OSError):
            file = self._next.result()
            file.close()
            self._fs.remove(file.path)
        self._background.close()

    def _prepare(self) -> File:
        # Two names in turn: the one taken last keeps its name until it is renamed.
        path = os.path.join(self._directory, f"{self._prepared % 2}.tmp")
        file = self._fs.create(path)
        try:
            if not file.try_lock():
                raise LockedError("a segment being prepared is locked", path=path)
            file.allocate(self._segment_bytes)
        except OSError:
            file.close()
            with contextlib.suppress(OSError):
                self._fs.remove(path)
            raise
        return file
