"""What a simulated disk holds: files and directories, what is durable apart from the rest.

The rules are those that POSIX leaves a file system, no kinder than ext4 in its default
mode and no kinder than XFS:

- What was written and not synced may be there after a crash, sector by sector, in any
  version that the sector has had since the last sync.
- A size that changed may be there or not, with or without the data: what was never written
  in what a file grew by is zero, or stale.
- A new name, a rename or a removal is there or not until its directory was synced, each by
  itself; a rename is there as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from raftwal.testing.crash_choices import Choices
from raftwal.wal.segments import SECTOR_BYTES


def _sectors(start: int, end: int) -> range:
    return range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES))


class Inode:
    """A file's bytes: as they are read now, as they are durable, and what lies between."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.durable = bytes(content)
        self._sizes: list[int] = []
        self._versions: dict[int, list[bytes]] = {}
        """For each sector, by its number, what it has held since the last sync."""
        self.lock_holder: object | None = None
        self.bad_sectors: set[int] = set()
        self.errors = 0
        """How many syncs failed: each open file has each of them reported once."""

    @property
    def is_clean(self) -> bool:
        """Whether the system takes all of it for durable; after a sync that failed it errs."""
        return not self._sizes and not self._versions

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes; not durable."""
        end = offset + len(data)
        if end > len(self.content):
            self.resize(end)
        if self.content[offset:end] == data == self.durable[
            offset:end
        ] and self._versions.keys().isdisjoint(_sectors(offset, end)):
            # Zeros over zeros, by the megabyte: a crash leaves nothing that it did not before.
            return
        self.content[offset:end] = data
        self._note(offset, end)

    def resize(self, size: int) -> None:
        """Cut, or extend with zeros; not durable."""
        before = len(self.content)
        if size == before:
            return
        if size < before:
            self.content[size:] = bytes(before - size)
            self._note(size, before)
            del self.content[size:]
        else:
            self.content += bytes(size - before)
        self._sizes.append(size)

    def _note(self, start: int, end: int) -> None:
        for number in _sectors(start, end):
            version = bytes(self.content[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
            self._versions.setdefault(number, []).append(version.ljust(SECTOR_BYTES, b"\0"))

    def sync(self) -> None:
        """Make durable what was changed since the last sync, failed or not."""
        if self.is_clean:
            return
        durable = bytearray(self.durable)
        for number in self._versions:
            start = number * SECTOR_BYTES
            sector = self.content[start : start + SECTOR_BYTES]
            durable += bytes(max(0, start - len(durable)))
            durable[start : start + SECTOR_BYTES] = sector
        if self._sizes:
            size = len(self.content)
            durable += bytes(max(0, size - len(durable)))
            del durable[size:]
        self.durable = bytes(durable)
        self._sizes.clear()
        self._versions.clear()

    def lose(self) -> None:
        """A sync failed: the kernel takes the pages for clean, and never writes them again.

        What is read stays as it is until a crash; the next sync reports success and does
        nothing for them (Rebello et al., USENIX ATC 2020, section 3).
        """
        self.errors += 1
        self._sizes.clear()
        self._versions.clear()

    def possibilities(self) -> int:
        """How many outcomes a crash has, stale bytes aside."""
        count = len({len(self.durable), *self._sizes})
        for versions in self._versions.values():
            count *= len(versions) + 1
        return count

    def after_crash(self, choices: Choices) -> Inode:
        """The file that one crash leaves."""
        sizes = list(dict.fromkeys([len(self.durable), *self._sizes]))
        size = sizes[choices.pick(len(sizes))]
        content = bytearray(self.durable[:size])
        if grown := size - len(content):
            is_stale = bool(self._versions) and choices.pick(2) == 1
            content += choices.stale(grown) if is_stale else bytes(grown)
        for number, versions in self._versions.items():
            start = number * SECTOR_BYTES
            if start < size and (picked := choices.pick(len(versions) + 1)):
                end = min(size, start + SECTOR_BYTES)
                content[start:end] = versions[picked - 1][: end - start]
        return Inode(bytes(content))


class _Change:
    """One change of a directory: names that go, and a name that comes."""

    def __init__(self, removed: str | None, added: str | None, node: Inode | Directory) -> None:
        self.removed = removed
        self.added = added
        self.node = node

    def apply(self, names: dict[str, Inode | Directory]) -> None:
        if self.removed is not None and names.get(self.removed) is self.node:
            del names[self.removed]
        if self.added is not None:
            names[self.added] = self.node


class Directory:
    """Names: as they are seen now, as they are durable, and what lies between."""

    def __init__(self) -> None:
        self.names: dict[str, Inode | Directory] = {}
        self._durable: dict[str, Inode | Directory] = {}
        self._changes: list[_Change] = []

    def add(self, name: str, node: Inode | Directory) -> None:
        """Give a new file or directory its name; not durable."""
        self._change(_Change(None, name, node))

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name, at once; not durable."""
        self._change(_Change(source, target, self.names[source]))

    def remove(self, name: str) -> None:
        """Take a name away; not durable."""
        self._change(_Change(name, None, self.names[name]))

    def _change(self, change: _Change) -> None:
        change.apply(self.names)
        self._changes.append(change)

    def sync(self) -> None:
        """Make the names durable; not what they stand for."""
        self._durable = dict(self.names)
        self._changes.clear()

    def unlock_all(self) -> None:
        """Nobody holds a lock on anything below."""
        for node in self.names.values():
            if isinstance(node, Directory):
                node.unlock_all()
            else:
                node.lock_holder = None

    def sync_all(self) -> None:
        """Make everything below durable."""
        self.sync()
        for node in self.names.values():
            if isinstance(node, Directory):
                node.sync_all()
            else:
                node.sync()

    def reachable(self) -> Iterator[Inode | Directory]:
        """Whatever a crash may leave below, and this."""
        seen: dict[int, Inode | Directory] = {id(node): node for node in self._durable.values()}
        seen.update((id(change.node), change.node) for change in self._changes)
        yield self
        for node in seen.values():
            if isinstance(node, Directory):
                yield from node.reachable()
            else:
                yield node

    def possibilities(self) -> int:
        """How many outcomes a crash has for the names here."""
        return 1 << len(self._changes)

    def after_crash(self, choices: Choices) -> Directory:
        """The directory that one crash leaves, durable as it is."""
        names = dict(self._durable)
        for change in self._changes:
            if choices.pick(2):
                change.apply(names)
        left = Directory()
        # One file under two names cannot be: a rename that took effect took the old one.
        for name, node in names.items():
            left.names[name] = node.after_crash(choices)
        left.sync()
        return left
