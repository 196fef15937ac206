"""`SimulatedDisk`: a disk in memory that loses power, fails and fills up on demand.

It stands in for `raftwal.fs.DISK` wherever raftwal takes a file system (``fs=``)::

    disk = SimulatedDisk()
    storage = RaftStorage.open("/node", fs=disk, executor=InlineExecutor())
    storage.save(HardState(1, 1, 0), [Entry(1, 1, b"promised")])
    for left in disk.outcomes(100):                    # what a power cut may leave
        assert RaftStorage.open("/node", fs=left).recovered.entries

What is durable and what is not: see `raftwal.testing.simulated_inodes`.
"""

from __future__ import annotations

import errno
import math
import os
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftwal.fs import File
from raftwal.testing.crash_choices import Always, Drawn, Scripted, every_way, some_ways
from raftwal.testing.simulated_inodes import Directory, Inode
from raftwal.wal.segments import SECTOR_BYTES


class PowerCutError(BaseException):
    """The simulated machine is off: nothing that is called from here on has any effect.

    Not an ``Exception``, so that what handles errors does not handle this.
    """


class Fault(NamedTuple):
    """What is to go wrong: the ``nth`` call of ``call`` on a path that ends in ``path``.

    ``call`` is a method of `raftwal.fs.File` or `raftwal.fs.FileSystem`.  A write that
    fails has written a part, an allocation has reserved a part, and a sync that fails has
    lost what was pending.  ``repeats`` makes all later calls fail, too.
    """

    call: str
    error: int = errno.EIO
    nth: int = 1
    path: str = ""
    repeats: bool = False


class SimulatedDisk:
    """A `raftwal.fs.FileSystem` in memory.  For one thread.

    ``seed`` decides what is not decided otherwise: how much of a failed write there is,
    which outcomes are tried where there are too many.  ``capacity`` is in bytes, of file
    contents.  ``before`` is called ahead of each call with its name and path; a slow sync
    is a ``before`` that moves the simulation's clock.
    """

    def __init__(self, seed: int = 0, *, capacity: int | None = None) -> None:
        self.seed = seed
        self.capacity = capacity
        self.faults: list[Fault] = []
        self.before: Callable[[str, str], None] | None = None
        self.calls: list[tuple[str, str]] = []
        self.cut_power_at: int | None = None
        """The number of the call, from 0, at which the power is cut instead of it."""
        self.is_off = False
        self._random = random.Random(seed)
        self._root = Directory()

    # What happens to it.

    def cut_power(self) -> None:
        """Every further call raises `PowerCutError` and has no effect."""
        self.is_off = True

    def after_crash(self, seed: int) -> SimulatedDisk:
        """What one power cut, or crash of the system, now would leave; drawn from ``seed``."""
        return self._left(Drawn(random.Random(seed)))

    def after_kill(self) -> SimulatedDisk:
        """What a process finds that is started where another was killed: all that was written,
        no more durable than it was, and no locks.  The old disk is off from here on.
        """
        left = SimulatedDisk(self.seed, capacity=self.capacity)
        left.faults = self.faults
        left._root = self._root
        left._root.unlock_all()
        self.cut_power()
        return left

    def outcomes(self, most: int) -> Iterator[SimulatedDisk]:
        """What a power cut now may leave: every outcome where there are at most ``most``,
        else nothing of what is pending, all of it, and others drawn from the seed.

        Outcomes that are the same are given once.
        """
        possible = math.prod(node.possibilities() for node in self._root.reachable())
        seen: set[object] = set()
        for choices in every_way() if possible <= most else some_ways(self.seed, most):
            left = self._left(choices)
            fingerprint = left.fingerprint()
            if fingerprint not in seen:
                seen.add(fingerprint)
                yield left
            if isinstance(choices, Scripted) and not choices.go_on():
                return

    def _left(self, choices: Drawn | Scripted | Always) -> SimulatedDisk:
        left = SimulatedDisk(self.seed, capacity=self.capacity)
        left._root = self._root.after_crash(choices)
        return left

    def write_back(self) -> None:
        """Make everything durable, as a system does that is left alone for long enough."""
        self._root.sync_all()

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """One bit of a file at rest changes."""
        inode = self._inode(path)
        inode.content[offset] ^= 1 << bit
        changed = bytearray(inode.durable)
        if offset < len(changed):
            changed[offset] ^= 1 << bit
            inode.durable = bytes(changed)

    def break_sector(self, path: str, offset: int) -> None:
        """The sector at ``offset`` reads as an error from now on."""
        self._inode(path).bad_sectors.add(offset // SECTOR_BYTES)

    def fingerprint(self) -> object:
        """Equal for disks on which the same is read."""
        return tuple(sorted(_files(self._root, "")))

    def content(self, path: str) -> bytes:
        """A file's bytes, as they are read now."""
        return bytes(self._inode(path).content)

    def paths(self) -> list[str]:
        """The paths of all files."""
        return [path for path, _ in sorted(_files(self._root, ""))]

    # What is asked of it: `raftwal.fs.FileSystem`.

    def open(self, path: str) -> File:
        """Open an existing file to read and write."""
        self._begin("open", path)
        return _SimulatedFile(self, path, self._inode(path))

    def open_read_only(self, path: str) -> File:
        """Open an existing file to read."""
        self._begin("open_read_only", path)
        return _SimulatedFile(self, path, self._inode(path))

    def create(self, path: str) -> File:
        """Open a file to write, empty."""
        self._begin("create", path)
        directory, name = self._place(path)
        node = directory.names.get(name)
        if isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        if node is None:
            node = Inode()
            directory.add(name, node)
        else:
            node.resize(0)
        return _SimulatedFile(self, path, node)

    def make_directory(self, path: str) -> None:
        """Make a directory; its parent must exist and it must not."""
        self._begin("make_directory", path)
        directory, name = self._place(path)
        if name in directory.names or not name:
            raise _error(errno.EEXIST, path)
        directory.add(name, Directory())

    def exists(self, path: str) -> bool:
        """Whether the name exists."""
        self._begin("exists", path)
        return self._find(path) is not None

    def is_directory(self, path: str) -> bool:
        """Whether the name is a directory."""
        self._begin("is_directory", path)
        return isinstance(self._find(path), Directory)

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        self._begin("list", path)
        return sorted(self._directory(path).names)

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name in the same directory."""
        self._begin("rename", source)
        directory, name = self._place(source)
        other, new_name = self._place(target)
        if other is not directory:
            raise _error(errno.EXDEV, target)
        if name not in directory.names:
            raise _error(errno.ENOENT, source)
        replaced = directory.names.get(new_name)
        if isinstance(replaced, Directory) and replaced.names:
            raise _error(errno.ENOTEMPTY, target)
        directory.rename(name, new_name)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._begin("remove", path)
        self._inode(path)
        directory, name = self._place(path)
        directory.remove(name)

    def remove_tree(self, path: str) -> None:
        """Remove a directory and all in it."""
        self._begin("remove_tree", path)
        for name in list(self._directory(path).names):
            child = os.path.join(path, name)
            if isinstance(self._find(child), Directory):
                self.remove_tree(child)
            else:
                self.remove(child)
        directory, name = self._place(path)
        directory.remove(name)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        self._begin("sync_directory", path)
        self._directory(path).sync()

    # How it is done.

    def _begin(self, call: str, path: str, fail: Callable[[], None] | None = None) -> None:
        """Note a call; cut the power or fail it where that is due.  ``fail`` is what a
        call that fails does all the same.
        """
        if self.is_off:
            raise PowerCutError(path)
        if self.before is not None:
            self.before(call, path)
        if len(self.calls) == self.cut_power_at:
            self.cut_power()
            raise PowerCutError(f"before {call} {path}")
        self.calls.append((call, path))
        for number, fault in enumerate(self.faults):
            if fault.call == call and path.endswith(fault.path):
                if fault.nth > 1:
                    self.faults[number] = fault._replace(nth=fault.nth - 1)
                    continue
                if not fault.repeats:
                    del self.faults[number]
                if fail is not None:
                    fail()
                raise _error(fault.error, path)

    def _room(self) -> int | None:
        if self.capacity is None:
            return None
        used = sum(len(node.content) for node in _nodes(self._root) if isinstance(node, Inode))
        return max(0, self.capacity - used)

    def _place(self, path: str) -> tuple[Directory, str]:
        parent, name = os.path.split(os.path.abspath(path))
        return self._directory(parent), name

    def _find(self, path: str) -> Inode | Directory | None:
        node: Inode | Directory | None = self._root
        for name in os.path.abspath(path).split("/")[1:]:
            if name:
                node = node.names.get(name) if isinstance(node, Directory) else None
        return node

    def _inode(self, path: str) -> Inode:
        node = self._find(path)
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        return node

    def _directory(self, path: str) -> Directory:
        node = self._find(path)
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, Inode):
            raise _error(errno.ENOTDIR, path)
        return node


class _SimulatedFile:
    """A `raftwal.fs.File` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: Inode) -> None:
        self.path = path
        self._disk = disk
        self._inode = inode
        self._errors_seen = inode.errors

    def size(self) -> int:
        self._disk._begin("size", self.path)
        return len(self._inode.content)

    def read(self, offset: int, length: int) -> bytes:
        self._disk._begin("read", self.path)
        for number in self._inode.bad_sectors:
            if offset < (number + 1) * SECTOR_BYTES and number * SECTOR_BYTES < offset + length:
                raise _error(errno.EIO, self.path)
        return bytes(self._inode.content[offset : offset + length])

    def write(self, offset: int, *pieces: bytes | bytearray) -> None:
        disk, inode = self._disk, self._inode
        data = b"".join(pieces)

        def write_up_to(end: int) -> None:
            # A kernel writes page by page, so what is short ends with one; or, unkinder,
            # with a sector.
            part = data[: max(0, end - end % SECTOR_BYTES - offset)]
            if part:
                inode.write(offset, part)

        disk._begin(
            "write",
            self.path,
            lambda: write_up_to(disk._random.randrange(offset, offset + len(data) + 1)),
        )
        room = disk._room()
        grows = offset + len(data) - len(inode.content)
        if room is not None and grows > room:
            write_up_to(offset + len(data) - (grows - room))
            raise _error(errno.ENOSPC, self.path)
        inode.write(offset, data)

    def sync_data(self) -> None:
        self._sync("sync_data")

    def write_back(self, offset: int, length: int) -> None:
        # What is not synced may be on the disk or not, with this or without.
        self._disk._begin("write_back", self.path)

    def sync(self) -> None:
        self._sync("sync")

    def _sync(self, call: str) -> None:
        inode = self._inode
        try:
            self._disk._begin(call, self.path, inode.lose)
        finally:
            seen, self._errors_seen = self._errors_seen, inode.errors
        if seen < inode.errors:
            # Another open file's sync failed.  Linux tells each of them once.
            raise _error(errno.EIO, self.path)
        inode.sync()

    def truncate(self, size: int) -> None:
        self._disk._begin("truncate", self.path)
        self._inode.resize(size)

    def allocate(self, size: int) -> None:
        disk, inode = self._disk, self._inode
        grows = size - len(inode.content)

        def allocate_part() -> None:
            if grows > 0:
                inode.resize(len(inode.content) + disk._random.randrange(grows + 1))

        disk._begin("allocate", self.path, allocate_part)
        room = disk._room()
        if room is not None and grows > room:
            inode.resize(len(inode.content) + room)
            raise _error(errno.ENOSPC, self.path)
        if grows > 0:
            inode.resize(size)

    def first_hole(self, offset: int) -> int:
        self._disk._begin("first_hole", self.path)
        return min(offset, len(self._inode.content))

    def next_data(self, offset: int) -> int:
        return offset

    def try_lock(self) -> bool:
        self._disk._begin("try_lock", self.path)
        if self._inode.lock_holder not in (None, self):
            return False
        self._inode.lock_holder = self
        return True

    def close(self) -> None:
        if self._inode.lock_holder is self:
            self._inode.lock_holder = None

    def __del__(self) -> None:
        self.close()


def _nodes(directory: Directory) -> Iterator[Inode | Directory]:
    for node in directory.names.values():
        yield node
        if isinstance(node, Directory):
            yield from _nodes(node)


def _files(directory: Directory, path: str) -> Iterator[tuple[str, bytes]]:
    for name, node in directory.names.items():
        if isinstance(node, Directory):
            yield from _files(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", bytes(node.content)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
