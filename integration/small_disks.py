"""Small file systems of their own, to be filled, broken, cut from power and mounted again."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from errno import ENOSPC
from pathlib import Path

from conftest import missing, program

EXT4_BYTES = 8 << 20
TMPFS_BYTES = 1 << 20
# ext4's own ioctl, and its flag not to write out even the journal: what xfstests cuts the
# power with.  From here on the file system reports an error for every call.
_SHUT_DOWN = 0x8004587D
_LOSING_THE_JOURNAL = 2


class SmallDisk:
    """A file system on ``path``: ``ext4`` in an image beside it, or ``tmpfs``."""

    def __init__(self, kind: str, path: Path) -> None:
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            missing("root on Linux, to mount a small file system")
        self.path = path
        self._filler = path / "filler"
        path.mkdir()
        if kind == "tmpfs":
            self._source = ["-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "raftwal-test"]
        else:
            image = path.with_name(f"{path.name}.image")
            with image.open("wb") as file:
                file.truncate(EXT4_BYTES)
            subprocess.run([program("mkfs.ext4"), "-q", "-F", str(image)], check=True)
            self._source = ["-t", "ext4", "-o", "loop", str(image)]

    def mount(self) -> None:
        done = subprocess.run(
            [program("mount"), *self._source, str(self.path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            missing(f"permission to mount {' '.join(self._source[:4])}: {done.stderr.strip()}")

    def unmount(self) -> None:
        """Whatever still uses it: it is gone from its path at once."""
        if self.path.is_mount():
            subprocess.run([program("umount"), "--lazy", str(self.path)], check=True)

    def mount_again(self) -> None:
        """As after a restart of the machine: nothing may use it."""
        subprocess.run([program("umount"), str(self.path)], check=True)
        self.mount()

    def fill(self) -> None:
        """Leave no space, not a block."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1 << 9):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    assert error.errno == ENOSPC, error
            os.fsync(file.fileno())

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink()

    def set_read_only(self, read_only: bool) -> None:
        """Nothing may have a file open to write."""
        self._remount("ro" if read_only else "rw")

    def turn_read_only(self) -> None:
        """What ext4 does to itself after an error of the disk, whoever has files open."""
        self._remount("abort")

    def cut_power(self) -> None:
        """What was not synced is lost, the journal's last part too."""
        import fcntl  # noqa: PLC0415 - not on every system that collects the tests

        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUT_DOWN, struct.pack("I", _LOSING_THE_JOURNAL))
        finally:
            os.close(fd)

    def _remount(self, option: str) -> None:
        subprocess.run([program("mount"), "-o", f"remount,{option}", str(self.path)], check=True)


@contextmanager
def small_disks(kind: str, paths: Sequence[Path]) -> Iterator[list[SmallDisk]]:
    """Mounted at ``paths``, and unmounted whatever happens."""
    with ExitStack() as mounted:
        disks = []
        for path in paths:
            disk = SmallDisk(kind, path)
            mounted.callback(disk.unmount)
            disk.mount()
            disks.append(disk)
        yield disks
