"""`SnapshotSerializer`: PySyncObj's dump, kept as snapshots in RaftStorage."""

from __future__ import annotations

import gzip
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pysyncobj import pickle
from pysyncobj.config import SERIALIZER_STATE

from raftwal.background import Background
from raftwal.errors import RaftwalError
from raftwal.events import log
from raftwal.fs import FILE_MODE
from raftwal.model import Snapshot
from raftwal.pysyncobj.dump import Dump
from raftwal.pysyncobj.node import DurableNode
from raftwal.recovery import SNAPSHOT_DIRECTORY

# After a snapshot that could not be saved (a full disk, most often), PySyncObj would
# try again at the next tick, and pickle the whole state each time.
RETRY_SECONDS = 10.0

Chunk = tuple[bytes, bool, bool]
"""As PySyncObj sends it: data, whether it is the first, whether it is the (empty) last."""


class SnapshotSerializer:
    """Takes the place of PySyncObj's ``Serializer``; the constructor's arguments are its.

    The state is pickled in the thread that ticks, since only between two commands does
    it hold still; compressing and writing happen in a thread of their own.
    """

    def __init__(
        self,
        node: DurableNode,
        transmission_batch_size: int,
        serializer: Callable[[str, Any], None] | None,
        deserializer: Callable[[str], Any] | None,
        serialize_checker: Callable[[], int] | None,
    ) -> None:
        self._node = node
        self._batch_size = transmission_batch_size
        self._serializer = serializer
        self._deserializer = deserializer
        self._serialize_checker = serialize_checker
        self._background = Background(node.settings.executor, "raftwal-snapshot")
        self._saving: Future[Snapshot] | None = None
        self._application_saving: Any = None
        self._saving_id = 0
        self._not_before = 0.0
        self._outgoing: dict[Any, tuple[bytes, int]] = {}
        self._incoming: list[bytes] | None = None
        self._received: tuple[Any, ...] | None = None
        # An application that brings its own serializer writes and reads files.
        directory = os.path.join(node.data_dir, SNAPSHOT_DIRECTORY)
        self._written_file = os.path.join(directory, "application-written.tmp")
        self._read_file = os.path.join(directory, "application-read.tmp")
        node.call_on_close(self._close)

    def serialize(self, data: tuple[Any, ...], id: int) -> None:
        """Begin a snapshot of ``(state, last entry, entry before it, nodes)``."""
        if self._busy or time.monotonic() < self._not_before:
            return
        self._saving_id = id
        try:
            if self._serializer is not None:
                self._application_saving = data[1:]
                self._serializer(self._written_file, data[1:])
                if self._serialize_checker is None:
                    self._save_application_file()
                return
            buffer = io.BytesIO()
            pickle.dump(data, buffer)
            self._submit(data[1:], buffer.getvalue, compress=True)
        except Exception:
            log.exception("snapshot_not_taken", path=self._node.data_dir)
            self._application_saving = None
            self._not_before = time.monotonic() + RETRY_SECONDS

    def checkSerializing(self) -> tuple[int, int | None]:
        """What became of the snapshot that was begun, told once."""
        if self._application_saving is not None and self._serialize_checker is not None:
            state = self._serialize_checker()
            if state == SERIALIZER_STATE.SUCCESS:
                self._save_application_file()
            elif state == SERIALIZER_STATE.FAILED:
                self._application_saving = None
                return self._failed()
        if self._saving is None:
            return (
                (SERIALIZER_STATE.SERIALIZING, self._saving_id)
                if self._busy
                else (SERIALIZER_STATE.NOT_SERIALIZING, None)
            )
        if not self._saving.done():
            return SERIALIZER_STATE.SERIALIZING, self._saving_id
        saving, self._saving = self._saving, None
        try:
            snapshot = saving.result()
        except Exception as error:
            log.warning("snapshot_not_saved", path=self._node.data_dir, error=str(error))
            return self._failed()
        self._record(snapshot)
        return SERIALIZER_STATE.SUCCESS, self._saving_id

    def deserialize(self) -> tuple[Any, ...]:
        """The received snapshot that PySyncObj is installing, or the recovered one."""
        node = self._node
        if self._received is not None:
            data, self._received = self._received, None
        else:
            dump = node.take_recovered_dump()
            if dump is None:
                raise RaftwalError("there is no snapshot to load", path=node.data_dir)
            try:
                data = _described_by(dump, self._load(dump.content))
            except Exception as error:
                # PySyncObj would log this and go on with an empty state.
                node.fail(error)
                raise
        node.expect_load_up_to(data[1][1])
        return data

    def getTransmissionData(self, transmissionID: Any) -> Chunk | None:
        """The next piece of the newest snapshot, for one peer; ``None`` without one."""
        if transmissionID not in self._outgoing:
            try:
                snapshot = self._node.storage.load_snapshot()
            except RaftwalError as error:
                log.warning("snapshot_not_sent", path=self._node.data_dir, error=str(error))
                return None
            if snapshot is None:
                return None
            self._outgoing[transmissionID] = (Dump.of_snapshot(snapshot).content, 0)
        content, sent = self._outgoing[transmissionID]
        piece = content[sent : sent + self._batch_size]
        if piece:
            self._outgoing[transmissionID] = (content, sent + len(piece))
        else:
            del self._outgoing[transmissionID]
        return piece, sent == 0, not piece

    def setTransmissionData(self, data: Chunk | None) -> bool:
        """Take one piece of the leader's snapshot; ``True`` once it is whole and durable.

        It is opened before it is kept, so that a damaged one never replaces anything.
        One that the state machine is past, or whose last entry the log holds, is passed
        over: what follows that entry in the log may have been acknowledged (Raft paper,
        figure 13, step 6).
        """
        if data is None:
            return False
        piece, is_first, is_last = data
        if is_first:
            self._incoming = []
        if self._incoming is None:
            return False
        self._incoming.append(pickle.to_bytes(piece))
        if not is_last:
            return False
        content, self._incoming = b"".join(self._incoming), None
        try:
            received = self._load(content)
            dump = _dump_of(received[1:], content)
        except Exception as error:
            log.warning("snapshot_received_damaged", path=self._node.data_dir, error=str(error))
            if self._deserializer is not None:
                # It may have replaced half of the application's state.
                self._node.fail(error)
            return False
        index, term = dump.last_index, dump.last[2]
        node = self._node
        if index <= node.applied_index() or node.journal.holds(index, term):
            log.info("snapshot_received_old", path=node.data_dir, index=index)
            if self._deserializer is not None:
                # The application's state is the snapshot's by now.
                node.apply_again_from(index)
            return False
        node.install(dump)
        self._received = _described_by(dump, received)
        return True

    def cancelTransmisstion(self, id: Any) -> None:  # PySyncObj's spelling
        """The peer is gone; begin anew when it is back."""
        self._outgoing.pop(id, None)

    @property
    def _busy(self) -> bool:
        return self._saving is not None or self._application_saving is not None

    def _failed(self) -> tuple[int, int]:
        self._not_before = time.monotonic() + RETRY_SECONDS
        return SERIALIZER_STATE.FAILED, self._saving_id

    def _save_application_file(self) -> None:
        described, self._application_saving = self._application_saving, None
        self._submit(described, lambda: _take_file(self._written_file), compress=False)

    def _submit(
        self, described: tuple[Any, ...], content: Callable[[], bytes], *, compress: bool
    ) -> None:
        """Save a snapshot's file in the background; `_record` does the rest."""

        def save() -> Snapshot:
            data = content()
            dump = _dump_of(described, gzip.compress(data, 6) if compress else data)
            snapshot = dump.to_snapshot()
            self._node.storage.save_snapshot_file(snapshot)
            return snapshot

        self._saving = self._background.submit(save)

    def _record(self, snapshot: Snapshot) -> None:
        """Enter a durable snapshot file in the log, with a commit index that vouches for it."""
        node = self._node
        node.save_pending()
        try:
            node.storage.record_snapshot(snapshot.metadata)
        except BaseException as error:  # an interrupt is as final
            node.fail(error)
            raise
        self._outgoing.clear()

    def _load(self, content: bytes) -> tuple[Any, ...]:
        """What PySyncObj's own ``deserialize`` gives: state, entries, nodes."""
        if self._deserializer is not None:
            fd = os.open(self._read_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            with open(fd, "wb") as file:
                file.write(content)
            try:
                return (None, *self._deserializer(self._read_file))
            finally:
                os.unlink(self._read_file)
        # All of it is decompressed first: that is what checks its checksum.
        return tuple(pickle.loads(gzip.decompress(content)))

    def _close(self) -> None:
        if self._saving is not None:
            self._saving.exception()
        self._background.close()


def _dump_of(described: tuple[Any, ...], content: bytes) -> Dump:
    last, previous, nodes = described[:3]
    # PySyncObj's nodes: objects with an id, or plain addresses in old dumps.
    node_ids = sorted(str(getattr(node, "id", node)) for node in nodes if node is not None)
    return Dump(tuple(previous), tuple(last), tuple(node_ids), content)


def _described_by(dump: Dump, data: tuple[Any, ...]) -> tuple[Any, ...]:
    """``data`` with the dump's own entries.

    An application's deserializer may give lists for tuples; PySyncObj compares them
    with the journal's and throws the journal away if they differ.
    """
    return (data[0], dump.last, dump.previous, *data[3:])


def _take_file(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    os.unlink(path)
    return content
