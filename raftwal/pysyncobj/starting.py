"""Whether a node may start from its data directory, beside files of PySyncObj's own."""

from __future__ import annotations

import os
from typing import Any, Literal

from raftwal.errors import IdentityMismatchError, InvalidSettingError
from raftwal.pysyncobj.migration import from_file_journal
from raftwal.pysyncobj.migration_marker import check_not_left
from raftwal.pysyncobj.settings import StorageSettings
from raftwal.wal.segments import is_empty_directory

Migrate = Literal["auto"] | None
"""``"auto"``: take over a FileJournal where there is no data directory yet.  ``None``:
refuse to start beside one."""


def check_migrate(migrate: Migrate) -> None:
    """Raises `InvalidSettingError`."""
    if migrate not in (None, "auto"):
        raise InvalidSettingError(f"migrate must be 'auto' or None, not {migrate!r}")


def settle_data_dir(
    data_dir: str, node_id: str, conf: Any, settings: StorageSettings, migrate: Migrate
) -> None:
    """See to it that a node does not start from less than it has promised on.

    Where there is no data directory yet, and the files that ``conf`` names are there, those
    are migrated, or the start is refused.  A directory is refused whose node has gone back to
    a FileJournal.

    Raises `IdentityMismatchError`, `MigrationRefusedError`, and what `from_file_journal`
    raises.
    """
    fs = settings.fs
    data_dir = os.path.abspath(data_dir)
    check_not_left(fs, data_dir)
    if not conf.journalFile or (fs.exists(data_dir) and not is_empty_directory(fs, data_dir)):
        return
    journal = os.path.abspath(conf.journalFile)
    dump = os.path.abspath(conf.fullDumpFile) if conf.fullDumpFile else None
    if not fs.exists(journal) and (dump is None or not fs.exists(dump)):
        return
    if migrate is None:
        raise IdentityMismatchError(
            "there is a journal of PySyncObj's own, and no raftwal directory beside it: "
            "starting empty would forget the node's term, vote and log",
            path=journal,
            advice="Give migrate='auto' to install() or DurableSyncObj, or --migrate auto to "
            "python -m raftwal.pysyncobj, to take it over, or use 'raftwal migrate'.  Or, while "
            "the rest of the cluster is in step, move the journal, its .meta and the dump away, "
            "and start this node alone: it gets everything from its peers",
        )
    from_file_journal(
        journal,
        dump,
        data_dir,
        node_id=node_id,
        cluster_name=settings.cluster_name,
        deserializer=conf.deserializer,
        segment_bytes=settings.segment_bytes,
        fs=fs,
        executor=settings.executor,
    )
