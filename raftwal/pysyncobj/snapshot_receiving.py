"""A snapshot that the leader sends: spooled, opened, made durable, and only then loaded."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from pysyncobj import pickle

from raftwal.background import Background
from raftwal.errors import WriteFailedError
from raftwal.events import log
from raftwal.pysyncobj.dump import DumpChunks, DumpDescription
from raftwal.pysyncobj.dump_opening import DumpOpener, described, described_by
from raftwal.pysyncobj.node import DurableNode
from raftwal.pysyncobj.snapshot_sending import Chunk
from raftwal.spool import Spool


class _Opening:
    """A whole dump, on its way to what it holds."""

    def __init__(self, spool: Spool, prepared: Future[tuple[Any, ...] | None]) -> None:
        self.spool = spool
        self.prepared = prepared


class _Saving:
    """An opened dump, on its way to its file."""

    def __init__(
        self, description: DumpDescription, data: tuple[Any, ...], saved: Future[None]
    ) -> None:
        self.description = description
        self.data = data
        self.saved = saved


class SnapshotReceiving:
    """The thread that ticks calls; what takes long happens in the ``background``.

    Nothing is promised before the snapshot is recorded in the log.  So until then whatever
    goes wrong costs the transfer, and the leader begins anew.
    """

    def __init__(self, node: DurableNode, opener: DumpOpener, background: Background) -> None:
        self._node = node
        self._opener = opener
        self._background = background
        self._spool: Spool | None = None
        self._opening: _Opening | None = None
        self._saving: _Saving | None = None
        self._installed: tuple[Any, ...] | None = None

    def take(self, chunk: Chunk) -> None:
        """Take one piece; the first begins anew, whatever came before it."""
        piece, is_first, is_last = chunk
        if is_first:
            self._drop_spool()
            self._spool = self._node.storage.spool()
        spool = self._spool
        if spool is None:
            return
        try:
            spool.append(pickle.to_bytes(piece))
        except WriteFailedError as error:
            log.warning("snapshot_not_received", path=self._node.data_dir, error=str(error))
            self._drop_spool()
            return
        if is_last:
            self._spool = None
            if self._is_busy:
                self._discard(spool)
                return
            self._node.is_examining_snapshot = True
            opener, size = self._opener, spool.size
            prepared = self._background.submit(lambda: opener.prepare(spool.read, size))
            self._opening = _Opening(spool, prepared)
            self.advance()

    def advance(self) -> None:
        """Go on with a snapshot that is whole, as far as the background has got."""
        if self._opening is not None and self._opening.prepared.done():
            opening, self._opening = self._opening, None
            self._take_opened(opening)
        if self._saving is not None and self._saving.saved.done():
            saving, self._saving = self._saving, None
            self._take_saved(saving)
        if not self._is_busy:
            self._node.is_examining_snapshot = False

    def take_installed(self) -> tuple[Any, ...] | None:
        """What PySyncObj is to load of the snapshot that has just become durable, once."""
        data, self._installed = self._installed, None
        return data

    def close(self) -> None:
        """Wait for what is under way; nothing more comes of it."""
        if self._opening is not None:
            self._opening.prepared.exception()
            self._opening.spool.close()
        if self._saving is not None:
            self._saving.saved.exception()
        if self._spool is not None:
            self._spool.close()

    @property
    def _is_busy(self) -> bool:
        return self._opening is not None or self._saving is not None

    def _take_opened(self, opening: _Opening) -> None:
        node = self._node
        try:
            received = self._opener.finish(opening.prepared.result())
            description = described(received[1:])
        except Exception as error:
            log.warning("snapshot_received_damaged", path=node.data_dir, error=str(error))
            self._discard(opening.spool)
            if self._opener.is_the_applications:
                # It may have replaced half of the application's state.
                node.fail(error)
            return
        if self._is_needless(description):
            self._discard(opening.spool)
            return
        if self._opener.is_the_applications:
            # The application's state is the snapshot's by now.
            node.state_machine_is_at(description.last_index)
        spool = opening.spool

        def save() -> None:
            with spool:
                node.storage.save_snapshot_stream(
                    description.metadata, DumpChunks(description, spool)
                )

        self._saving = _Saving(
            description, described_by(description, received), self._background.submit(save)
        )

    def _take_saved(self, saving: _Saving) -> None:
        node = self._node
        error = saving.saved.exception()
        if error is not None:
            log.warning("snapshot_not_installed", path=node.data_dir, error=str(error))
            if self._opener.is_the_applications:
                # Its state is ahead of what this node has on disk.
                node.fail(error)
        elif self._opener.is_the_applications or not self._is_needless(saving.description):
            # PySyncObj loads it when it is recorded: see `DurableNode.install`.
            self._installed = saving.data
            node.install(saving.description)

    def _is_needless(self, description: DumpDescription) -> bool:
        """Whether the state machine is past it, or the log holds its last entry.

        What follows that entry in the log may have been acknowledged (Raft paper, figure
        13, step 6).
        """
        node, index = self._node, description.last_index
        if index > node.applied_index() and not node.journal.holds(index, description.last[2]):
            return False
        log.info("snapshot_received_old", path=node.data_dir, index=index)
        if self._opener.is_the_applications:
            # The application's state is the snapshot's by now.
            node.apply_again_from(index)
        return True

    def _drop_spool(self) -> None:
        if self._spool is not None:
            spool, self._spool = self._spool, None
            self._discard(spool)

    def _discard(self, spool: Spool) -> None:
        # To remove a large file takes long, too.
        self._background.submit(spool.close)
