"""Saves that need nothing but a write and a sync: in one call of the native twin each.

While the tail is open, records are queued and written there, by as many threads as come; whatever
else is done to the log closes it first, goes on in Python, and opens it behind that. So Python
alone decides what a log is; the native twin adds to it what cannot be anything but the usual.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from raftwal.errors import WriteFailedError
from raftwal.metrics import NO_WAL_METRICS, WALMetrics
from raftwal.model import EMPTY_HARD_STATE, Entry, HardState
from raftwal.native import codec
from raftwal.wal.admitted import Admitted
from raftwal.wal.appending import Appender

NOT_HERE = -1
"""What the tail answers to a save that is not for it."""

_CALLS = ("", "write", "data sync")


def direct_saves(appender: Appender, admitted: Admitted, metrics: WALMetrics) -> DirectSaves | None:
    """Where there is no native twin, or it has no tail on this system, there are none."""
    return DirectSaves(appender, admitted, metrics) if hasattr(codec, "Tail") else None


class DirectSaves:
    """The native tail of one log, open or closed.

    All methods but `tell` are for who holds the lock under which records are queued.
    """

    def __init__(self, appender: Appender, admitted: Admitted, metrics: WALMetrics) -> None:
        assert codec is not None
        self._appender = appender
        self._admitted = admitted
        self._metrics = metrics
        self._tells = metrics is not NO_WAL_METRICS
        self.tail = codec.Tail(HardState, self._tells)
        self.is_wanted = False
        """Whether it was a save that waits for its write which came last and found this closed."""

    def open(self) -> None:
        """Have saves go on natively, if any want to and can: there is nothing queued, and nobody
        writes.
        """
        if self.tail.is_ahead:
            # Who had the lead was interrupted before anything was done with it.
            return
        end = self._appender.direct_end() if self.is_wanted else None
        admitted = self._admitted
        if end is None:
            return
        term = admitted.terms.continued_in(admitted.last_index + 1)
        if term is None:
            return
        self.tail.open(
            end.descriptor.number,
            end.descriptor.syncs,
            end.offset,
            end.crc,
            end.segment_bytes,
            end.limit,
            admitted.last_index,
            term,
            max(admitted.hard_state.term, admitted.terms.replacing_term),
            admitted.synced_state,
        )
        progress = self._appender.progress
        self.tail.average = progress.average
        progress.elsewhere = self.tail

    def close(self) -> WriteFailedError | None:
        """Have saves go on in Python, behind those that were queued here, which are durable.

        The failure that this finds is the log's, and returned.
        """
        if not self.tail.is_ahead:
            return None
        try:
            return self._close()
        except BaseException as error:
            # An interrupt, say: what was written here would be written over from there.
            try:
                self.tail.close()
            finally:
                self._appender.fail(error)
            raise

    def _close(self) -> WriteFailedError | None:
        closed = self.tail.close()
        if closed is None:
            return None
        offset, crc, last_index, state, entries, queued, error, call, written = closed
        self._admitted.note_more(HardState(*state), last_index)
        self.tail.is_ahead = 0
        self._appender.progress.average = self.tail.average
        self._appender.progress.elsewhere = None
        self._appender.go_on_behind(offset, crc, last_index, self._admitted.hard_state, queued)
        if self._tells:
            self._note(entries)
        if not error:
            self._observe(written)
            return None
        cause = OSError(error, os.strerror(error))
        failure = self._appender.failed(_CALLS[call], cause)
        failure.__cause__ = cause
        return failure

    def queue_otherwise(
        self, answer: int, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> int:
        """What becomes of a save to which the tail gave no number of a write that makes it durable.

        The ``answer`` 0 says that it need not be durable.  After `NOT_HERE` the save is offered
        again if there is more room than the tail knew; if it is refused then, it is Python's
        turn, and the tail is closed.
        """
        if answer == NOT_HERE and self.tail.takes_saves:
            # The zeros may have got further since.
            limit = self._appender.limit
            if limit > self.tail.limit:
                self.tail.limit = limit
                answer = self.tail.queue(hard_state, entries)
        if answer == NOT_HERE:
            self.is_wanted = self._appender.is_on_the_system
            self.close()
        elif answer == 0 and self._tells:
            self._note(self.tail.count_entries())
        return answer

    def tell(self, written: tuple[int, float, float]) -> None:
        """Report a write: its bytes, its time in seconds, and that of its sync."""
        self._observe(written)
        if self._tells:
            self._note(self.tail.count_entries())

    def _observe(self, written: tuple[int, float, float]) -> None:
        count, write_seconds, sync_seconds = written
        if count:
            self._metrics.write_seconds.observe(write_seconds)
            self._metrics.written_bytes.inc(count)
            self._appender.note_sync(sync_seconds)

    def _note(self, entries: int) -> None:
        metrics = self._metrics
        state = self.hard_state
        if entries:
            metrics.entries.inc(entries)
            metrics.last_index.set(self.last_index)
        if state != EMPTY_HARD_STATE:
            metrics.term.set(state.term)
            metrics.commit_index.set(state.commit)

    @property
    def last_index(self) -> int:
        """That of the log, with all that was admitted."""
        return self.tail.last_index if self.tail.is_ahead else self._admitted.last_index

    @property
    def hard_state(self) -> HardState:
        """Likewise."""
        state = HardState(*self.tail.hard_state()) if self.tail.is_ahead else EMPTY_HARD_STATE
        return self._admitted.hard_state if state == EMPTY_HARD_STATE else state
