"""A state pickled by a forked child, which has it as it was at the fork, into a pipe.

The thread that forks is held up for as long as the fork takes: it grows with the memory that
the process holds, not with the time that pickling takes.

The child is a copy of one thread.  What another thread held at the fork, a lock of the log or of
a metric, stays held in it for ever.  So it pickles, compresses, writes to its pipe and leaves; it
logs nothing, opens no file of the application's, and its end runs none of the handlers that the
end of a process runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import struct
import threading
import time
import traceback
import warnings
import weakref
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NoReturn

from raftwal.errors import RaftwalError

PROTOCOL = 4
"""The first in which a pickle is written while it is made, in frames of 64 KiB; one of an older
protocol is gathered in memory as a whole.  Python 3.4 and newer read it."""

SILENT_SECONDS = 120
"""A child that produces nothing for so long hangs, and its alarm clock ends it: in a lock that
another thread held at the fork, most likely."""

CAN_FORK = hasattr(os, "fork") and hasattr(select, "poll")

Chunks = Generator[bytes, None, None]
"""Bytes in pieces; closing it lets go of what makes them."""

_GZIP_WINDOW = 31
"""zlib's ``wbits`` for a gzip header and trailer, and the largest window."""
_PIECE_BYTES = 1 << 20
_LOOK_MILLISECONDS = 1000
_EXIT_SECONDS = 30.0
_MOST_FILES = 1 << 20

# What the child sends: a kind and a length, then that many bytes.
_HEADER = struct.Struct("<cI")
_DATA = b"D"
_END = b"E"
_REASON = b"R"
_TOTAL = struct.Struct("<Q")
_MOST_REASON_BYTES = 4000


def gzip_chunks(chunks: Iterable[bytes], level: int) -> Chunks:
    """The chunks compressed, as a gzip file that says nothing of its time."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


class ForkedPickle:
    """A child that pickles; `chunks` gives what it makes of it.

    ``begin`` it in the thread in which the state holds still.  `chunks` and `close` are for one
    other thread, `kill` for any.
    """

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = pipe
        self._lock = threading.Lock()
        self._is_reaped = False
        self._exit_code: int | None = None
        _children.add(self)

    @classmethod
    def begin(cls, data: object, level: int) -> ForkedPickle:
        """Fork a child that sends ``data`` as a gzipped pickle, compressed at ``level`` (0 to 9).

        Raises ``OSError`` when there is no process to be had, or no memory for it.
        """
        reading, writing = os.pipe()
        try:
            pid = _fork_and_run(data, level, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(pid, reading)

    def chunks(self) -> Chunks:
        """The gzip file, whole: it ends without an error only if the child sent all of it.

        Raises `RaftwalError` with the child's reason, or with how it ended.
        """
        try:
            received = 0
            for kind, payload in self._messages():
                if kind == _REASON:
                    raise RaftwalError(
                        f"the state cannot be pickled: {payload.decode(errors='replace')}"
                    )
                if kind == _END:
                    if payload != _TOTAL.pack(received):
                        break
                    self._wait()
                    # Another part of the application may have taken the status.
                    if self._exit_code not in (0, None):
                        break
                    return
                received += len(payload)
                yield payload
            self._wait()
            raise RaftwalError(f"the process that pickled the state {self._how_it_ended()}")
        finally:
            self.close()

    def kill(self) -> None:
        """End the child, if it is still there."""
        # Asked first: where the application waits for all children, another process may have
        # its number by now.
        if not self._has_ended():
            with self._lock, contextlib.suppress(ProcessLookupError):
                if not self._is_reaped:
                    os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """End the child and leave no zombie.  Idempotent."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self.kill()
        self._wait()

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """What the child sent, up to its end."""
        buffer = bytearray()
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while True:
            while len(buffer) >= _HEADER.size:
                kind, length = _HEADER.unpack_from(buffer)
                end = _HEADER.size + length
                if len(buffer) < end:
                    break
                yield kind, bytes(buffer[_HEADER.size : end])
                del buffer[:end]
            # A process that the application forks meanwhile may hold the other end open, so
            # the pipe alone does not tell that the child is gone.
            is_gone = self._has_ended()
            if poll.poll(0 if is_gone else _LOOK_MILLISECONDS):
                data = os.read(self._pipe, _PIECE_BYTES)
                if not data:
                    return
                buffer += data
            elif is_gone:
                return

    def _has_ended(self) -> bool:
        with self._lock:
            if self._is_reaped:
                return True
            try:
                # By its pid, never any child: the application has its own.
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                # The application waits for all children, or ignores their ends.
                self._is_reaped = True
                return True
            if pid == self._pid:
                self._is_reaped = True
                self._exit_code = os.waitstatus_to_exitcode(status)
            return self._is_reaped

    def _wait(self) -> None:
        """Until the child has ended; it is given some time, since it has memory to give back."""
        deadline = time.monotonic() + _EXIT_SECONDS
        pause = 0.001
        while not self._has_ended():
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(pause)
            pause = min(0.05, pause * 2)

    def _how_it_ended(self) -> str:
        code = self._exit_code
        if code is None:
            return "ended, and the application took its exit status"
        if code >= 0:
            return f"left early, with exit status {code}"
        if -code == signal.SIGALRM:
            return f"made no progress for {SILENT_SECONDS} seconds"
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        advice = ": as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by {name}{advice}"


_children: weakref.WeakSet[ForkedPickle] = weakref.WeakSet()


def _kill_all() -> None:
    for child in list(_children):
        child.kill()


# A program that ends waits for its threads, also for one that reads what a child sends.
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_kill_all)


def _fork_and_run(data: object, level: int, pipe: int) -> int:
    # From Python 3.12 on a fork of several threads is warned of.  What the warning is about is
    # what the child above keeps to.  The filter is for this module's call alone.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__)
    # A signal that arrives in the child before it has left the application's handlers behind
    # would run them a second time.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _run_child(data, level, pipe, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


# From here on, the child.


def _run_child(data: object, level: int, pipe: int, mask: set[Any]) -> NoReturn:
    status = 1
    try:
        # Whatever it touches would have to be copied, object by object.
        gc.disable()
        status = _pickle_into(pipe, data, level, mask)
    finally:
        os._exit(status)


def _leave_the_parent(pipe: int, mask: set[Any]) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SILENT_SECONDS)
    # A connection that the parent closes is closed for the other side once nobody has it any
    # more; and the parent's port and the lock of its log must not outlive it.
    os.closerange(3, pipe)
    os.closerange(pipe + 1, _MOST_FILES)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        # When memory runs out, rather the child than the node.
        file.write(b"1000")
    signal.pthread_sigmask(signal.SIG_SETMASK, mask - {signal.SIGALRM})


def _pickle_into(pipe: int, data: object, level: int, mask: set[Any]) -> int:
    sending = _Sending(pipe, level)
    try:
        _leave_the_parent(pipe, mask)
        pickle.Pickler(sending, PROTOCOL).dump(data)
        sending.finish()
    except BrokenPipeError:
        return 1  # the parent is gone, or wants no more
    except BaseException as error:
        reason = traceback.format_exception_only(type(error), error)[-1].strip()
        sending.send(_REASON, reason.encode("utf-8", "replace")[:_MOST_REASON_BYTES])
        return 1
    return 0


class _Sending:
    """The file that the pickler writes to."""

    def __init__(self, pipe: int, level: int) -> None:
        self._pipe = pipe
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
        self._sent = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            self._send_data(self._compressor.compress(view[start : start + _PIECE_BYTES]))
            signal.alarm(SILENT_SECONDS)

    def finish(self) -> None:
        self._send_data(self._compressor.flush())
        self.send(_END, _TOTAL.pack(self._sent))

    def _send_data(self, data: bytes) -> None:
        if data:
            self._sent += len(data)
            self.send(_DATA, data)

    def send(self, kind: bytes, payload: bytes) -> None:
        # The parent reads as fast as its disk writes; that is no silence of this process's.
        signal.alarm(0)
        view = memoryview(_HEADER.pack(kind, len(payload)) + payload)
        while view:
            view = view[os.write(self._pipe, view) :]
        signal.alarm(SILENT_SECONDS)
