"""The file that says that what lies beside it was migrated, and is old from then on.

A migration leaves its source as it is.  Whoever starts a node from that later starts it
with a term, votes and a log of long ago: it may vote twice, and lacks what it has
acknowledged since.  So a file ``<source>.migrated`` is written beside the source, and
durable, before what was made of it gets its name.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import NamedTuple

from raftwal.errors import MigrationRefusedError
from raftwal.fs import FileSystem
from raftwal.pysyncobj.node_state import content_of


class Marker(NamedTuple):
    """What was made of a source: ``target``, under the name ``in_making`` until it was whole.

    ``digest`` is that of the source, ``time`` is in UTC.
    """

    target: str
    in_making: str
    digest: str
    time: str

    def is_finished(self, fs: FileSystem) -> bool:
        """Whether the target got its name, whatever became of it since."""
        return not fs.exists(self.in_making)


def marker_path(source: str) -> str:
    """The file beside a source (a journal, a data directory) that says it is old."""
    return f"{source}.migrated"


def read_marker(fs: FileSystem, source: str) -> Marker | None:
    """The marker beside ``source``, or ``None``.

    Raises `MigrationRefusedError` for a file of that name that is none, `ReadFailedError`.
    """
    path = marker_path(source)
    with content_of(fs, path) as content:
        if content is None:
            return None
        text = b"".join(content)
    try:
        facts = json.loads(text)
        return Marker(*(str(facts[field]) for field in Marker._fields))
    except (ValueError, KeyError, TypeError):
        raise MigrationRefusedError(
            "this should say what became of the files beside it, and cannot be read",
            path=path,
            advice="Find out whether a node ran on what was made of them; remove this file only "
            "if none did",
        ) from None


def write_marker(fs: FileSystem, source: str, marker: Marker) -> None:
    """Durable when it returns.  Raises ``OSError``."""
    path = marker_path(source)
    file = fs.create(f"{path}.tmp")
    try:
        file.write(0, json.dumps(marker._asdict(), indent=2).encode() + b"\n")
        file.sync()
    finally:
        file.close()
    fs.rename(f"{path}.tmp", path)
    fs.sync_directory(os.path.dirname(path))


def remove_marker(fs: FileSystem, source: str) -> None:
    """Durably; does nothing where there is none.  Raises ``OSError``."""
    path = marker_path(source)
    with contextlib.suppress(FileNotFoundError):
        fs.remove(path)
        fs.sync_directory(os.path.dirname(path))


def finished_marker(fs: FileSystem, source: str) -> Marker | None:
    """The marker of a migration that came to its end.  Raises as `read_marker` does."""
    marker = read_marker(fs, source)
    return marker if marker is not None and marker.is_finished(fs) else None


def check_newer(source: str, digest: str, marker: Marker | None) -> None:
    """Raises `MigrationRefusedError` when ``source`` is what was migrated before."""
    if marker is not None and marker.digest == digest:
        raise MigrationRefusedError(
            f"this was migrated to {marker.target} on {marker.time}, and has not changed "
            "since: a node that starts from it once more forgets what it has promised "
            "meanwhile",
            path=source,
            advice=f"Start the node from {marker.target}.  If that is gone, move what lies here "
            "away and let the node start empty while the rest of the cluster is in step.  If "
            f"no node ever ran on it, remove {marker_path(source)} and try again",
        )


def check_not_left(fs: FileSystem, data_dir: str) -> None:
    """Whether a node may start from its data directory, or has gone back to a FileJournal.

    Raises `MigrationRefusedError`.
    """
    if not fs.exists(marker_path(data_dir)):
        return
    marker = finished_marker(fs, data_dir)
    if marker is not None:
        raise MigrationRefusedError(
            f"this node went back to a FileJournal, {marker.target}, on {marker.time}: what it "
            "has promised since is not in this directory",
            path=data_dir,
            advice="Move this directory and the file "
            f"{os.path.basename(marker_path(data_dir))} away, and migrate the journal.  If "
            "no node ever ran on the journal, remove that file alone",
        )
