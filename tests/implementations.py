"""The two implementations of the hot loops in one process: the native one, and the reference."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from unittest import mock

import google_crc32c
import pytest

from raftwal.native import codec

USERS = (
    "raftwal.wire.entries",
    "raftwal.wal.admission",
    "raftwal.wal.cut_rule",
    "raftwal.wal.direct",
)


@contextlib.contextmanager
def pure_python() -> Iterator[None]:
    """Inside, the native twin is not used, as where it was not built."""
    with contextlib.ExitStack() as stack:
        for user in USERS:
            stack.enter_context(mock.patch(f"{user}.codec", None))
        stack.enter_context(mock.patch("raftwal.wire.frames._extend", google_crc32c.extend))
        yield


@contextlib.contextmanager
def saves_in_python() -> Iterator[None]:
    """Inside, whoever opens a log has each write and sync go by Python's ``os``."""
    with mock.patch("raftwal.wal.direct.codec", None):
        yield


@contextlib.contextmanager
def small_windows() -> Iterator[None]:
    """Inside, segments are read a few records at a time."""
    with mock.patch("raftwal.wal.sound_records.WINDOW_BYTES", 64):
        yield


def native_codec():
    """The native twin; where it was not built, a skipped test, and a failed one in CI."""
    if codec is None:
        assert not os.environ.get("CI"), "the native twin was not built"
        pytest.skip("the native twin was not built", allow_module_level=True)
    return codec
