"""`SnapshotSerializer`: PySyncObj's dump, kept as snapshots in RaftStorage."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pysyncobj.config import SERIALIZER_STATE

from raftwal.background import Background
from raftwal.errors import InvalidSettingError, RaftwalError
from raftwal.events import log
from raftwal.model import SnapshotMetadata
from raftwal.pysyncobj.dump import DumpChunks, DumpDescription, open_dump
from raftwal.pysyncobj.dump_opening import Deserializer, DumpOpener, described, described_by
from raftwal.pysyncobj.forked_pickle import (
    CAN_FORK,
    PROTOCOL,
    Chunks,
    ForkedPickle,
    gzip_chunks,
)
from raftwal.pysyncobj.node import DurableNode
from raftwal.pysyncobj.snapshot_receiving import SnapshotReceiving
from raftwal.pysyncobj.snapshot_sending import Chunk, SnapshotSending
from raftwal.recovery import SNAPSHOT_DIRECTORY
from raftwal.snapshot_files import ChunksOf
from raftwal.spool import CHUNK_BYTES

# After a snapshot that could not be saved (a full disk, most often), PySyncObj would
# try again at the next tick, and pickle the whole state each time.
RETRY_SECONDS = 10.0


class SnapshotSerializer:
    """Takes the place of PySyncObj's ``Serializer``; the constructor's arguments are its.

    The state holds still only between two commands, in the thread that ticks.  So a forked
    child pickles it, which has it as it was then; without a fork (``conf.useFork``) that
    thread does, and is held up for as long.  Compressing and writing happen beside it.
    """

    def __init__(
        self,
        node: DurableNode,
        transmission_batch_size: int,
        try_use_fork: bool,
        serializer: Callable[[str, Any], None] | None,
        deserializer: Deserializer | None,
        serialize_checker: Callable[[], int] | None,
    ) -> None:
        level = node.settings.snapshot_compression
        if level not in range(10):
            raise InvalidSettingError(f"snapshot_compression is 0 to 9, not {level!r}")
        self._node = node
        self._level = level
        self._forks = try_use_fork and CAN_FORK
        self._serializer = serializer
        self._serialize_checker = serialize_checker
        # An application that brings its own serializer writes and reads files.
        directory = os.path.join(node.data_dir, SNAPSHOT_DIRECTORY)
        self._written_file = os.path.join(directory, "application-written.tmp")
        read_file = os.path.join(directory, "application-read.tmp")
        self._opener = DumpOpener(deserializer, read_file)
        if serializer is not None or deserializer is not None:
            for left_by_a_crash in (self._written_file, read_file):
                with contextlib.suppress(OSError):
                    os.unlink(left_by_a_crash)
        executor = node.settings.executor
        self._writing = Background(executor, "raftwal-snapshot")
        # One that takes long to write must not hold up what peers wait for.
        self._reading = Background(executor, "raftwal-snapshot-read")
        self._sending = SnapshotSending(
            node, transmission_batch_size, self._reading, time.monotonic
        )
        self._receiving = SnapshotReceiving(node, self._opener, self._reading)
        self._saving: Future[SnapshotMetadata] | None = None
        self._child: ForkedPickle | None = None
        self._is_recording = False
        self._is_recorded = False
        self._application_saving: Any = None
        self._saving_id = 0
        self._not_before = 0.0
        self._is_sent_a_snapshot = False
        node.call_on_close(self._close)

    def serialize(self, data: tuple[Any, ...], id: int) -> None:
        """Begin a snapshot of ``(state, last entry, entry before it, nodes)``."""
        if self._busy or time.monotonic() < self._not_before:
            return
        if self._sending.hold_up_the_next_snapshot():
            self._node.take_snapshot_soon()
            return
        self._saving_id = id
        started = time.perf_counter()
        try:
            if self._serializer is not None:
                self._application_saving = data[1:]
                self._serializer(self._written_file, data[1:])
                if self._serialize_checker is None:
                    self._save_application_file()
                return
            description = described(data[1:])
            if self._forks:
                self._child = ForkedPickle.begin(data, self._level)
                self._save(description, self._child.chunks())
            else:
                buffer = io.BytesIO()
                pickle.Pickler(buffer, PROTOCOL).dump(data)
                pickled = ChunksOf(buffer.getvalue())
                self._save(description, gzip_chunks(pickled, self._level))
        except Exception:
            log.exception("snapshot_not_taken", path=self._node.data_dir)
            self._application_saving = None
            self._leave_child()
            self._not_before = time.monotonic() + RETRY_SECONDS
        else:
            log.info(
                "snapshot_begun",
                path=self._node.data_dir,
                index=description.last_index,
                forked=self._forks,
                # For so long the thread that ticks was held up.
                seconds=round(time.perf_counter() - started, 6),
            )

    def checkSerializing(self) -> tuple[int, int | None]:
        """What became of the snapshot that was begun, told once.  PySyncObj asks in each tick."""
        self._sending.end_round()
        self._receiving.advance()
        self._answer_leader()
        if self._application_saving is not None and self._serialize_checker is not None:
            state = self._serialize_checker()
            if state == SERIALIZER_STATE.SUCCESS:
                self._save_application_file()
            elif state == SERIALIZER_STATE.FAILED:
                self._application_saving = None
                return self._failed()
        if self._is_recorded:
            self._is_recorded = False
            return SERIALIZER_STATE.SUCCESS, self._saving_id
        if self._saving is None:
            return (
                (SERIALIZER_STATE.SERIALIZING, self._saving_id)
                if self._busy
                else (SERIALIZER_STATE.NOT_SERIALIZING, None)
            )
        if not self._saving.done():
            return SERIALIZER_STATE.SERIALIZING, self._saving_id
        saving, self._saving = self._saving, None
        self._leave_child()
        try:
            metadata = saving.result()
        except Exception as error:
            log.warning("snapshot_not_saved", path=self._node.data_dir, error=str(error))
            return self._failed()
        self._record(metadata)
        return SERIALIZER_STATE.SERIALIZING, self._saving_id

    def deserialize(self) -> tuple[Any, ...]:
        """The received snapshot that PySyncObj is installing, or the recovered one."""
        node = self._node
        data = self._receiving.take_installed()
        if data is None:
            description = node.take_recovered_dump()
            if description is None:
                raise RaftwalError("there is no snapshot to load", path=node.data_dir)
            try:
                data = described_by(description, self._open_recovered())
            except Exception as error:
                # PySyncObj would log this and go on with an empty state.
                node.fail(error)
                raise
        node.expect_load_up_to(data[1][1])
        return data

    def getTransmissionData(self, transmissionID: Any) -> Chunk | None:
        """The next piece of the newest snapshot, for one peer; ``None`` without one.

        While a snapshot is taken, none is begun to be sent: it would have to begin anew.
        """
        return self._sending.next_piece(transmissionID, may_begin=not self._busy)

    def setTransmissionData(self, data: Chunk | None) -> bool:
        """Take one piece of the leader's snapshot, and install it when it is whole.

        Always ``False``: PySyncObj loads it once it is durable.  It is opened before it is
        kept, so that a damaged one never replaces anything.
        """
        self._is_sent_a_snapshot = True
        if data is not None:
            self._receiving.take(data)
        return False

    def cancelTransmisstion(self, id: Any) -> None:  # PySyncObj's spelling
        """The peer is gone; begin anew when it is back."""
        self._sending.cancel(id)

    @property
    def _busy(self) -> bool:
        return (
            self._saving is not None or self._application_saving is not None or self._is_recording
        )

    def _failed(self) -> tuple[int, int]:
        self._not_before = time.monotonic() + RETRY_SECONDS
        return SERIALIZER_STATE.FAILED, self._saving_id

    def _save_application_file(self) -> None:
        data, self._application_saving = self._application_saving, None
        self._save(described(data), _taken_from(self._written_file))

    def _save(self, description: DumpDescription, content: Chunks) -> None:
        """Save a snapshot's file in the background; `_record` does the rest."""
        storage = self._node.storage

        def save() -> SnapshotMetadata:
            # A child whose pickle has no place to go is ended here, where nobody waits for it.
            with contextlib.closing(content), storage.spool() as spool:
                for chunk in content:
                    spool.append(chunk)
                storage.save_snapshot_stream(description.metadata, DumpChunks(description, spool))
            return description.metadata

        self._saving = self._writing.submit(save)

    def _record(self, metadata: SnapshotMetadata) -> None:
        """Enter a durable snapshot file in the log, with a commit index that vouches for it."""
        self._is_recording = True
        storage = self._node.storage
        self._node.in_storage_order(lambda: storage.record_snapshot(metadata), self._was_recorded)

    def _was_recorded(self, _: None) -> None:
        self._is_recording, self._is_recorded = False, True
        self._sending.close()

    def _open_recovered(self) -> tuple[Any, ...]:
        dump = open_dump(self._node.storage)
        if dump is None:
            raise RaftwalError("the recovered snapshot is gone", path=self._node.data_dir)
        with dump:
            return self._opener.open(dump.read, dump.size)

    def _answer_leader(self) -> None:
        """Show a leader that sends a snapshot that this node is there.

        PySyncObj answers no piece of it.  A leader closes a connection on which nothing comes
        for ``connectionTimeout``, and steps down without answers from a majority.
        """
        if self._is_sent_a_snapshot:
            self._is_sent_a_snapshot = False
            self._node.answer_leader()

    def _leave_child(self) -> None:
        if self._child is not None:
            # It is gone by now, unless there was no thread that could have read from it.
            self._child.close()
            self._child = None

    def _close(self) -> None:
        self._sending.close()
        if self._child is not None:
            self._child.kill()
        if self._saving is not None:
            self._saving.exception()
        self._leave_child()
        self._receiving.close()
        self._writing.close()
        self._reading.close()


def _taken_from(path: str) -> Chunks:
    """A file's bytes; it is removed."""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    os.unlink(path)
