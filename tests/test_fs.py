"""The real disk: what every promise of the log comes down to."""

import errno
import os
import stat
import sys

import pytest

from raftwal.fs import DISK, DiskFile, copy_file, make_directories

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="syncs through F_FULLFSYNC there")


@pytest.fixture
def file(tmp_path):
    file = DISK.create(str(tmp_path / "file"))
    yield file
    file.close()


@pytest.fixture
def synced(monkeypatch):
    """What reached the system: ``(call, what kind of file)``."""
    calls = []

    def record(name):
        real = getattr(os, name)

        def sync(fd):
            kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
            calls.append((name, kind, os.fstat(fd).st_size))
            real(fd)

        monkeypatch.setattr(os, name, sync)

    record("fsync")
    record("fdatasync")
    return calls


def test_syncs_reach_the_system_after_the_write(file, synced):
    file.write(0, b"data")
    file.sync_data()
    assert synced == [("fdatasync", "file", 4)]
    file.write(4, b"more")
    file.sync()
    assert synced[1:] == [("fsync", "file", 8)]


def test_directory_sync_reaches_the_system(tmp_path, synced):
    DISK.sync_directory(str(tmp_path))
    assert [call[:2] for call in synced] == [("fsync", "directory")]


def test_every_directory_that_is_made_is_durable_in_its_parent(tmp_path, synced):
    make_directories(DISK, str(tmp_path / "a" / "b" / "c"))
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert [call[:2] for call in synced] == [("fsync", "directory")] * 3


def test_copy_is_durable_with_its_name(tmp_path, synced):
    (tmp_path / "source").write_bytes(bytes(range(256)) * 10)
    copy_file(DISK, str(tmp_path / "source"), str(tmp_path / "copy"), chunk_bytes=100)
    assert (tmp_path / "copy").read_bytes() == bytes(range(256)) * 10
    assert [call[:2] for call in synced] == [("fsync", "file"), ("fsync", "directory")]


def test_short_reads_are_completed(file, monkeypatch):
    file.write(0, b"0123456789")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: real(fd, min(length, 3), at))
    assert file.read(2, 8) == b"23456789"
    assert file.read(5, 100) == b"56789"
    assert file.read(10, 1) == b""


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_allocation_where_the_file_system_cannot(file, monkeypatch, error):
    """The file is extended all the same; only the blocks are not reserved."""

    def refuse(fd, offset, length):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file.write(0, b"data")
    file.allocate(100)
    assert file.read(0, 1000) == b"data" + bytes(96)
    file.allocate(50)
    assert file.size() == 100


def test_allocation_on_a_full_disk_fails(file, monkeypatch):
    def refuse(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.allocate(100)
    assert file.size() == 0


def test_allocation_reserves_blocks(file):
    file.allocate(1 << 20)
    assert os.stat(file.path).st_blocks * 512 >= 1 << 20


def test_lock_excludes_a_second_open_file_until_it_is_closed(file):
    second = DiskFile(file.path, os.O_RDWR)
    assert file.try_lock()
    assert not second.try_lock()
    file.close()
    assert second.try_lock()
    second.close()


def test_closing_twice_is_harmless(file):
    file.close()
    file.close()


PIECES = [
    [b"one"],
    [b"a", bytearray(b"bc"), b"", b"def"],
    [b"%d." % number for number in range(3000)],
    [bytes((number,)) * (1 << 19) for number in range(5)],
    [b"large" * (1 << 20)],
    [b"large" * (1 << 19), b"small"],
]


@pytest.mark.parametrize(
    ("pieces", "at_once"),
    [(pieces, most) for pieces in PIECES for most in (None, 1000)]
    + [(pieces, most) for pieces in PIECES[:2] for most in (1, 3)],
)
def test_pieces_are_written_one_behind_the_other(file, monkeypatch, pieces, at_once):
    """Also where the system takes only some of the bytes, or has no call for pieces."""
    if at_once is not None:
        pwrite, pwritev = os.pwrite, os.pwritev
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:at_once], at))
        monkeypatch.setattr(
            os, "pwritev", lambda fd, some, at: pwritev(fd, [b"".join(some)[:at_once]], at)
        )
    file.write(7, *pieces)
    expected = b"".join(pieces)
    assert file.read(7, len(expected) + 1) == expected
    monkeypatch.setattr("raftwal.fs._HAS_PWRITEV", False)
    file.write(8, *pieces)
    assert file.read(8, len(expected) + 1) == expected


@pytest.mark.parametrize("pieces", [[b"one"], [b"a", b"b"]])
def test_a_system_that_takes_nothing_is_an_error(file, monkeypatch, pieces):
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    monkeypatch.setattr(os, "pwritev", lambda fd, some, at: 0)
    with pytest.raises(OSError, match="error"):
        file.write(0, *pieces)
