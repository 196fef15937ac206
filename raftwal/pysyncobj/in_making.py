"""What a migration makes: nothing under its own name until all of it is there.

A data directory is made as ``<target>.migrating`` and renamed.  A FileJournal is three
files, which no rename can give their names at once: while they get them, an empty file
stands in the journal's place, which PySyncObj refuses to start from; the journal itself
comes last.  In both ways the marker beside the source (see `migration_marker`) is durable
before the last rename, and names what is renamed: as long as that is there, the migration
has not come to its end, and the next one clears it away.
"""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import datetime, timezone
from types import TracebackType

from raftwal.errors import (
    LockedError,
    MigrationTargetExistsError,
    RaftwalError,
    WriteFailedError,
)
from raftwal.fs import File, FileSystem, make_directories
from raftwal.pysyncobj.migration_marker import (
    Marker,
    finished_marker,
    marker_path,
    read_marker,
    remove_marker,
    write_marker,
)
from raftwal.pysyncobj.node_files import NodeFiles
from raftwal.wal.segments import is_empty_directory

SUFFIX = ".migrating"
_LOCK = "lock"


def in_making(path: str) -> str:
    """The name under which what gets this name is made."""
    return f"{path}{SUFFIX}"


class _InMaking:
    """The way to a target's name; a context manager that clears away what did not get there.

    ``finished`` is the marker that the source had before, if a migration came to its end.
    """

    def __init__(self, fs: FileSystem, source: str, target: str) -> None:
        self._fs = fs
        self.source = source
        self._target = target
        self.path = in_making(target)
        self.finished = finished_marker(fs, source)
        self.notes: list[str] = []
        self._has_marked = False
        self._is_published = False

    def __enter__(self) -> None:
        try:
            self._begin()
        except OSError as error:
            raise self._failed(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._undo()
        finally:
            self._end()
        if isinstance(error, OSError) and not isinstance(error, RaftwalError):
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RaftwalError:
        if isinstance(error, RaftwalError):
            return error
        return WriteFailedError(
            f"cannot migrate: {error.strerror or error}",
            path=error.filename or self._target,
            advice="Mend the cause and try again: the source is as it was",
        )

    def _begin(self) -> None:
        raise NotImplementedError

    def _undo(self) -> None:
        raise NotImplementedError

    def _end(self) -> None: ...

    def _mark(self, digest: str) -> None:
        """Say durably that the source is old, and that nothing else is said of the target."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._has_marked = True
        try:
            write_marker(self._fs, self.source, Marker(self._target, self.path, digest, now))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            self.notes.append(
                f"{marker_path(self.source)} could not be written, so nothing keeps a node from "
                "being started from the old files: move them away"
            )
        remove_marker(self._fs, self._target)

    def _unmark(self) -> None:
        """Take back what `_mark` said, durably, here or in a migration that was cut off."""
        if self._has_marked or self.finished is None:
            with contextlib.suppress(OSError):
                remove_marker(self._fs, self.source)
            with contextlib.suppress(OSError):
                self._fs.remove(f"{marker_path(self.source)}.tmp")

    def _remove(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self._fs.remove(path)

    def _sync_directories_of(self, *paths: str) -> None:
        for directory in sorted({os.path.dirname(path) for path in paths}):
            self._fs.sync_directory(directory)


class DirectoryInMaking(_InMaking):
    """A data directory; ``path`` is where it is made.

    Raises `MigrationTargetExistsError`, `LockedError`, `WriteFailedError`.
    """

    def __init__(self, fs: FileSystem, source: str, target: str) -> None:
        super().__init__(fs, source, target)
        self._lock: File | None = None
        self._is_ours = False
        self._check_free()

    def _check_free(self) -> None:
        fs, target = self._fs, self._target
        if fs.exists(target) and not is_empty_directory(fs, target):
            raise MigrationTargetExistsError(
                "there is something already, and nothing is ever replaced", path=target
            )

    def _begin(self) -> None:
        fs = self._fs
        make_directories(fs, os.path.dirname(self._target))
        with contextlib.suppress(FileExistsError):
            fs.make_directory(self.path)
            self._is_ours = True
        try:
            self._lock = self._take_lock()
            self._is_ours = True
            self._check_free()
            self._clear()
        except LockedError:
            raise
        except MigrationTargetExistsError:
            # Another migration came to its end before the lock was asked for: the marker
            # beside the source is its.
            self._remove_made()
            self._end()
            raise
        except BaseException:
            self._undo()
            self._end()
            raise

    def _take_lock(self) -> File:
        lock = self._fs.create(os.path.join(self.path, _LOCK))
        if not lock.try_lock():
            lock.close()
            raise LockedError(
                "another migration to this target is under way",
                path=self.path,
                advice="Wait for it to end",
            )
        return lock

    def _clear(self) -> None:
        """Remove what an interrupted migration left."""
        fs = self._fs
        for name in fs.list(self.path):
            left_over = os.path.join(self.path, name)
            if fs.is_directory(left_over):
                fs.remove_tree(left_over)
            elif name != _LOCK:
                fs.remove(left_over)

    def publish(self, digest: str) -> None:
        """Give the directory its name.  Raises ``OSError``."""
        fs = self._fs
        # Lost with a crash, its name would be taken for one that it got.
        self._sync_directories_of(self.path)
        fs.sync_directory(self.path)
        self._mark(digest)
        self._is_published = True
        fs.rename(self.path, self._target)
        self._sync_directories_of(self._target)
        self._remove(os.path.join(self._target, _LOCK))

    def _undo(self) -> None:
        if not self._is_ours:
            return
        self._unmark()
        self._remove_made()
        # Opened later, one whose name is not durable would pass for one whose name is.
        if self._is_published and self._fs.exists(os.path.join(self._target, _LOCK)):
            with contextlib.suppress(OSError):
                self._fs.remove_tree(self._target)

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError):
            self._fs.remove_tree(self.path)

    def _end(self) -> None:
        if self._lock is not None:
            self._lock.close()


class FilesInMaking(_InMaking):
    """A journal, its ``.meta`` and a dump; ``files`` says where they are made.

    Raises `MigrationTargetExistsError`, `WriteFailedError`.
    """

    def __init__(self, fs: FileSystem, source: str, target: NodeFiles) -> None:
        super().__init__(fs, source, target.journal)
        self._files = target
        self.files = NodeFiles(
            in_making(target.journal),
            in_making(target.meta),
            target.dump and in_making(target.dump),
        )
        self._is_placed = False
        unfinished = read_marker(fs, source) if self.finished is None else None
        self._left_over = unfinished is not None and unfinished.target == target.journal
        for path in self._named():
            if fs.exists(path) and not self._is_left_over():
                raise MigrationTargetExistsError(
                    "there is something already, and nothing is ever replaced", path=path
                )

    def _named(self) -> list[str]:
        files = self._files
        return [path for path in (files.dump, files.meta, files.journal) if path is not None]

    def _is_left_over(self) -> bool:
        """Whether an interrupted migration has placed these: the empty journal says so."""
        if not self._left_over or not self._fs.exists(self._files.journal):
            return False
        try:
            file = self._fs.open_read_only(self._files.journal)
        except OSError:
            return False
        try:
            return file.size() == 0
        finally:
            file.close()

    def _begin(self) -> None:
        for path in self._named():
            make_directories(self._fs, os.path.dirname(path))
        if self._left_over:
            self._clear()
        for path in self._named():
            # Of one that was cut off before it said so beside its source.
            self._remove(in_making(path))

    def publish(self, digest: str) -> None:
        """Give the files, which are synced, their names.  Raises ``OSError``."""
        fs, journal = self._fs, self._files.journal
        made = [path for path in self._named() if fs.exists(in_making(path))]
        self._sync_directories_of(*made)
        self._mark(digest)
        self._is_placed = True
        placeholder = fs.create(journal)
        try:
            placeholder.sync()
        finally:
            placeholder.close()
        self._sync_directories_of(journal)
        for path in made:
            # The journal is the last: from its rename on a node can start.
            self._is_published = path == journal
            fs.rename(in_making(path), path)
            self._sync_directories_of(path)

    def _undo(self) -> None:
        self._clear()

    def _clear(self) -> None:
        if self._is_published:
            self._unmark()
        if self._is_placed or self._is_left_over():
            for path in self._named():
                self._remove(path)
            with contextlib.suppress(OSError):
                self._sync_directories_of(*self._named())
        self._unmark()
        for path in self._named():
            self._remove(in_making(path))
