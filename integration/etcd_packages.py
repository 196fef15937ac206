"""etcd's own packages, driven by a test: the program under ``etcd/``, built and asked.

One release line of etcd a program: ``EtcdPackages("newest")``, or one of the older lines
in `LINES`.  Every operation is a method; what etcd returns as an error is raised as
`EtcdError` with its whole text.
"""

from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from conftest import missing, program

from raftwal import ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata

SOURCE = Path(__file__).parent / "etcd"
NEWEST = "newest"
LINES = (NEWEST, "3.6", "3.5", "3.4")
NO_LIMIT = (1 << 64) - 1
ENTRY_TYPES = tuple(EntryType)


class EtcdError(Exception):
    """What etcd's package answered instead of a result."""

    @property
    def text(self) -> str:
        return str(self.args[0])

    @property
    def is_panic(self) -> bool:
        """Whether etcd's package panicked, or ended the whole program."""
        return self.text.startswith(("panic: ", "exited: "))


class Dump(NamedTuple):
    """What etcd's ``ReadAll`` gives."""

    metadata: bytes | None
    hard_state: HardState
    entries: list[Entry]


@functools.cache
def built(line: str) -> Path:
    """The program for a release line, built once a session.

    A ``go`` that is not there, or too old, or modules that cannot be had, are missing
    tools; a program that does not compile is a failure.
    """
    go = program("go")
    module_file = SOURCE / ("go.mod" if line == NEWEST else f"go.{line}.mod")
    check_go_version(go, module_file)
    directory = Path(tempfile.mkdtemp(prefix="raftwal-etcd-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    settings = [] if line == NEWEST else [f"-modfile={module_file}", f"-tags=etcd{tag_of(line)}"]
    listed = run_go(go, "list", "-deps", *settings, ".")
    if listed.returncode:
        missing(f"the Go modules of etcd {line}: {listed.stderr.strip()[-500:]}")
    target = directory / f"etcd-{line}"
    done = run_go(go, "build", "-buildvcs=false", *settings, "-o", str(target), ".")
    assert done.returncode == 0, done.stderr
    return target


def tag_of(line: str) -> str:
    return line.replace(".", "_")


def run_go(go: str, *words: str) -> subprocess.CompletedProcess:
    # The toolchain that is here, or none: a test does not fetch another one.
    return subprocess.run(
        [go, *words],
        cwd=SOURCE,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )


def check_go_version(go: str, module_file: Path) -> None:
    """A ``go`` that is older than what the modules ask for is a missing one."""
    wanted = re.search(r"^go ([0-9.]+)$", module_file.read_text(), re.MULTILINE)
    found = re.search(r"go([0-9.]+)", run_go(go, "version").stdout)
    assert wanted is not None, module_file
    if found is None or numbers(found[1]) < numbers(wanted[1]):
        missing(f"go >= {wanted[1]} (there is {found[1] if found else 'another'})")


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part]


class EtcdPackages:
    """One running program.  A log that is open stays open from call to call; one at a time."""

    def __init__(self, line: str = NEWEST) -> None:
        self.line = line
        self._program = built(line)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> EtcdPackages:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End the program as a crash would; the next call starts it anew."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer's fields, as JSON has them.  Raises `EtcdError`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [str(self._program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        request = {"op": operation, **arguments}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            # zap's Fatal ends the program whatever the logger.
            code = self._process.wait()
            self.kill()
            raise EtcdError(f"exited: {code}")
        answer = json.loads(line)
        if answer["error"] is not None:
            raise EtcdError(answer["error"])
        return answer

    # The log.

    def create(self, directory: Path, metadata: bytes | None, segment_bytes: int) -> None:
        self.ask(
            "create",
            dir=str(directory),
            metadata=encoded(metadata),
            segment_bytes=segment_bytes,
        )

    def open(
        self, directory: Path, segment_bytes: int, snapshot: SnapshotMetadata | None = None
    ) -> Dump:
        """Open to append, and read all."""
        answer = self.ask(
            "open",
            dir=str(directory),
            segment_bytes=segment_bytes,
            snapshot=record_fields(snapshot),
        )
        return dump_of(answer)

    def reopen(self, snapshot: SnapshotMetadata | None = None) -> Dump:
        """Close, open to append, and read all."""
        return dump_of(self.ask("reopen", snapshot=record_fields(snapshot)))

    def save(self, state: HardState | None, entries: Iterable[Entry] = ()) -> None:
        self.ask("save", state=state_fields(state), entries=entry_fields(entries))

    def save_snapshot(self, snapshot: SnapshotMetadata) -> None:
        self.ask("snapshot", **record_fields(snapshot))

    def sync(self) -> None:
        self.ask("sync")

    def release_to(self, index: int) -> None:
        self.ask("release", index=index)

    def close(self) -> None:
        self.ask("close")

    def read(self, directory: Path, snapshot: SnapshotMetadata | None = None) -> Dump:
        return dump_of(self.ask("read", dir=str(directory), snapshot=record_fields(snapshot)))

    def verify(self, directory: Path, snapshot: SnapshotMetadata | None = None) -> HardState | None:
        """The last hard state; 3.4 gives none."""
        answer = self.ask("verify", dir=str(directory), snapshot=record_fields(snapshot))
        return state_of(answer["state"])

    def valid_snapshots(self, directory: Path) -> list[SnapshotMetadata]:
        answer = self.ask("valid_snapshots", dir=str(directory))
        return [record_of(fields) for fields in answer["snapshots"]]

    def repair(self, directory: Path) -> bool:
        return self.ask("repair", dir=str(directory))["ok"]

    def exist(self, directory: Path) -> bool:
        return self.ask("exist", dir=str(directory))["ok"]

    # Snapshot files.

    def snap_save(self, directory: Path, snapshot: Snapshot) -> None:
        self.ask("snap_save", dir=str(directory), **snapshot_fields(snapshot))

    def snap_load(self, directory: Path) -> Snapshot | None:
        return snapshot_of(self.ask("snap_load", dir=str(directory))["snapshot"])

    def snap_load_newest(
        self, directory: Path, snapshots: Sequence[SnapshotMetadata]
    ) -> Snapshot | None:
        vouched = [record_fields(snapshot) for snapshot in snapshots]
        answer = self.ask("snap_load_newest", dir=str(directory), snapshots=vouched)
        return snapshot_of(answer["snapshot"])

    def snap_read(self, path: Path) -> Snapshot | None:
        return snapshot_of(self.ask("snap_read", path=str(path))["snapshot"])

    def snap_db_save(self, directory: Path, index: int, data: bytes) -> int:
        answer = self.ask("snap_db_save", dir=str(directory), index=index, data=encoded(data))
        return answer["size"]

    def snap_db_path(self, directory: Path, index: int) -> Path:
        return Path(self.ask("snap_db_path", dir=str(directory), index=index)["path"])

    def snap_db_release(self, directory: Path, newest: SnapshotMetadata) -> None:
        self.ask("snap_db_release", dir=str(directory), index=newest.index, term=newest.term)

    # Files, and the rule of when to sync.

    def purge(self, directory: Path, suffix: str, keep: int) -> None:
        self.ask("purge", dir=str(directory), suffix=suffix, max=keep)

    def try_lock(self, path: Path) -> bool:
        """Whether nobody holds the file's lock.  Raises `EtcdError` for anything else."""
        try:
            return self.ask("try_lock", path=str(path))["ok"]
        except EtcdError as error:
            if error.text == "fileutil: file already locked":
                return False
            raise

    def preallocate(self, path: Path, size: int, *, extend: bool) -> int:
        """The file's size after it."""
        return self.ask("preallocate", path=str(path), size=size, extend=extend)["size"]

    def must_sync(self, state: HardState, previous: HardState, entry_count: int) -> bool:
        answer = self.ask(
            "must_sync",
            state=state_fields(state),
            previous=state_fields(previous),
            entry_count=entry_count,
        )
        return answer["must_sync"]

    # raft.MemoryStorage; ``memory_new`` comes first, and starts over.

    def memory_new(self) -> None:
        self.ask("memory_new")

    def memory_append(self, entries: Iterable[Entry]) -> None:
        self.ask("memory_append", entries=entry_fields(entries))

    def memory_set_hard_state(self, state: HardState) -> None:
        self.ask("memory_set_hard_state", state=state_fields(state))

    def memory_apply_snapshot(self, snapshot: Snapshot) -> None:
        self.ask("memory_apply_snapshot", **snapshot_fields(snapshot))

    def memory_create_snapshot(
        self, index: int, conf_state: ConfState | None, data: bytes | None
    ) -> Snapshot | None:
        answer = self.ask(
            "memory_create_snapshot",
            index=index,
            conf_state=membership_fields(conf_state),
            data=encoded(data),
        )
        return snapshot_of(answer["snapshot"])

    def memory_compact(self, index: int) -> None:
        self.ask("memory_compact", index=index)

    def memory_initial_state(self) -> tuple[HardState, ConfState]:
        answer = self.ask("memory_initial_state")
        return state_of(answer["state"]), membership_of(answer["conf_state"])

    def memory_entries(self, lo: int, hi: int, limit: int = NO_LIMIT) -> list[Entry]:
        return entries_of(self.ask("memory_entries", lo=lo, hi=hi, max=limit)["entries"])

    def memory_term(self, index: int) -> int:
        return self.ask("memory_term", index=index)["term"]

    def memory_first_index(self) -> int:
        return self.ask("memory_first_index")["index"]

    def memory_last_index(self) -> int:
        return self.ask("memory_last_index")["index"]

    def memory_snapshot(self) -> Snapshot | None:
        return snapshot_of(self.ask("memory_snapshot")["snapshot"])


# From raftwal's values to JSON's, and back.


def encoded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def state_fields(state: HardState | None) -> dict[str, int] | None:
    return None if state is None else state._asdict()


def state_of(fields: dict[str, int] | None) -> HardState | None:
    return None if fields is None else HardState(**fields)


def entry_fields(entries: Iterable[Entry]) -> list[list[Any]]:
    return [
        [entry.term, entry.index, int(entry.type), encoded(entry.data)]  # as in etcd/messages.go
        for entry in entries
    ]


def entries_of(rows: list[list[Any]]) -> list[Entry]:
    """etcd gives an entry of a type that there is not, too: as a number."""
    return [
        Entry(term, index, decoded(data), EntryType(kind) if kind in ENTRY_TYPES else kind)
        for term, index, kind, data in rows
    ]


def dump_of(answer: dict[str, Any]) -> Dump:
    return Dump(
        decoded(answer["metadata"]), state_of(answer["state"]), entries_of(answer["entries"])
    )


def membership_fields(conf_state: ConfState | None) -> dict[str, Any] | None:
    return None if conf_state is None else conf_state._asdict()


def membership_of(fields: dict[str, Any] | None) -> ConfState | None:
    if fields is None:
        return None
    ids = (tuple(fields[name] or ()) for name in ConfState._fields[:4])
    return ConfState(*ids, auto_leave=fields["auto_leave"])


def record_fields(snapshot: SnapshotMetadata | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    return {
        "index": snapshot.index,
        "term": snapshot.term,
        "conf_state": membership_fields(snapshot.conf_state),
    }


def record_of(fields: dict[str, Any]) -> SnapshotMetadata:
    return SnapshotMetadata(fields["index"], fields["term"], membership_of(fields["conf_state"]))


def snapshot_fields(snapshot: Snapshot) -> dict[str, Any]:
    return {**record_fields(snapshot.metadata), "data": encoded(snapshot.data)}


def snapshot_of(fields: dict[str, Any] | None) -> Snapshot | None:
    return None if fields is None else Snapshot(record_of(fields), decoded(fields["data"]) or b"")
