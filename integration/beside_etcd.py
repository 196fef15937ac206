"""One script, two writers, and what each reads from the other's directory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from directories import contents_of
from etcd_packages import Dump, EtcdError, EtcdPackages
from log_scripts import EtcdLog, RaftwalLog, Reopen, Save, SaveSnapshot, Script

import raftwal
from raftwal import WAL, HardState, RaftwalError, SnapshotMetadata

OPEN_SEGMENT_BYTES = 4096


class Refused(NamedTuple):
    """An error instead of contents: what it is, what it says, and where it says that is."""

    kind: str
    text: str
    segment: str = ""
    offset: int | None = None


class Ways:
    """Every way into a log, each answering with contents or `Refused`."""

    name: str

    def read(self, directory: Path, start: SnapshotMetadata | None = None) -> object:
        raise NotImplementedError

    def open_to_append(self, directory: Path, start: SnapshotMetadata | None = None) -> object:
        raise NotImplementedError

    def verify(self, directory: Path, start: SnapshotMetadata | None = None) -> object:
        raise NotImplementedError

    def valid_snapshots(self, directory: Path) -> object:
        raise NotImplementedError

    def repair(self, directory: Path) -> object:
        raise NotImplementedError


class RaftwalWays(Ways):
    name = "raftwal"

    def read(self, directory: Path, start: SnapshotMetadata | None = None) -> Dump | Refused:
        try:
            contents = WAL.open_for_read(directory, start).read_all()
        except RaftwalError as error:
            return refused(error)
        return Dump(contents.metadata, contents.hard_state, contents.entries)

    def open_to_append(
        self, directory: Path, start: SnapshotMetadata | None = None
    ) -> Dump | Refused:
        try:
            with WAL.open(directory, start, segment_bytes=OPEN_SEGMENT_BYTES) as wal:
                contents = wal.read_all()
        except RaftwalError as error:
            return refused(error)
        return Dump(contents.metadata, contents.hard_state, contents.entries)

    def verify(self, directory: Path, start: SnapshotMetadata | None = None) -> HardState | Refused:
        try:
            return raftwal.verify(directory, start).hard_state
        except RaftwalError as error:
            return refused(error)

    def valid_snapshots(self, directory: Path) -> list[SnapshotMetadata] | Refused:
        try:
            return raftwal.valid_snapshots(directory)
        except RaftwalError as error:
            return refused(error)

    def repair(self, directory: Path) -> bool | Refused:
        try:
            raftwal.repair(directory)
        except RaftwalError as error:
            return refused(error)
        return True


def refused(error: RaftwalError) -> Refused:
    return Refused(type(error).__name__, str(error), Path(error.path or "").name, error.offset)


class EtcdWays(Ways):
    name = "etcd"

    def __init__(self, packages: EtcdPackages) -> None:
        self.packages = packages

    def read(self, directory: Path, start: SnapshotMetadata | None = None) -> Dump | Refused:
        try:
            return self.packages.read(directory, start)
        except EtcdError as error:
            return refused_by_etcd(error)

    def open_to_append(
        self, directory: Path, start: SnapshotMetadata | None = None
    ) -> Dump | Refused:
        try:
            dump = self.packages.open(directory, OPEN_SEGMENT_BYTES, start)
            self.packages.close()
        except EtcdError as error:
            return refused_by_etcd(error)
        return dump

    def verify(self, directory: Path, start: SnapshotMetadata | None = None) -> HardState | Refused:
        try:
            return self.packages.verify(directory, start)
        except EtcdError as error:
            return refused_by_etcd(error)

    def valid_snapshots(self, directory: Path) -> list[SnapshotMetadata] | Refused:
        try:
            return self.packages.valid_snapshots(directory)
        except EtcdError as error:
            return refused_by_etcd(error)

    def repair(self, directory: Path) -> bool | Refused:
        return self.packages.repair(directory) or Refused("repair failed", "")


# What etcd says, and what of that says what is wrong.
ETCD_KINDS = (
    "crc mismatch",
    "unexpected EOF",
    "snapshot not found",
    "snapshot mismatch",
    "slice bounds out of range",
    "conflicting metadata found",
    "unexpected block type",
    "file not found",
    "do not increase continuously",
    "unmarshal",
    "proto:",
    "panic:",
    "exited:",
)


def refused_by_etcd(error: EtcdError) -> Refused:
    if error.is_panic:
        return Refused("panic", error.text)
    kind = next((kind for kind in ETCD_KINDS if kind in error.text), "other")
    return Refused(kind, error.text)


class Writers:
    """raftwal and etcd write the same script, each into a directory of its own.

    A `Reopen` that swaps gives each the other's directory.  ``same_bytes`` is whether
    both directories have to be equal, ``same_contents`` whether what is in them: see
    `note_cut`.
    """

    def __init__(self, root: Path, packages: EtcdPackages) -> None:
        self.writers = [RaftwalLog(), EtcdLog(packages)]
        self.directories = [root / "one", root / "other"]
        self.ways: list[Ways] = [RaftwalWays(), EtcdWays(packages)]
        self.same_bytes = True
        self.same_contents = True
        self.turns = 0
        self._short_tail = False
        self._read_state_not_saved = False
        self._last_entry = self._start = 0
        self._etcd_forgot_snapshot = False
        self.cuts = 0

    def close(self) -> None:
        for writer in self.writers:
            writer.close()

    def pairs(self) -> list[tuple[RaftwalLog | EtcdLog, Path]]:
        return list(zip(self.writers, self.directories, strict=True))

    def perform(self, script: Script) -> None:
        for writer, directory in self.pairs():
            writer.create(directory, script.metadata, script.segment_bytes)
        for call in script.calls:
            if isinstance(call, Reopen):
                self.close()
                self.check()
                self.reopen(call)
                continue
            if isinstance(call, SaveSnapshot) and call.snapshot.index >= self._start:
                self._etcd_forgot_snapshot = False
            segments = self.segments()
            for writer, directory in self.pairs():
                writer.perform(directory, call)
            if isinstance(call, Save):
                self.note_cut(call, cut=len(self.segments()) > len(segments))
                if not self.same_contents:
                    break
                if self.same_bytes and call.entries:
                    # What a crash right now would leave, but for segments in preparation.
                    self.check_bytes(whole=False)
        self.close()
        if self.same_contents:
            self.check()

    def segments(self) -> list[str]:
        return sorted(path.name for path in self.directories[1].glob("*.wal"))

    def reopen(self, call: Reopen) -> None:
        if call.repair:
            for writer, directory in self.pairs():
                writer.repair(directory)
        if call.swap:
            self.directories.reverse()
            self.turns += 1
        tail = self.segments()[-1]
        sizes = [(directory / tail).stat().st_size for directory in self.directories]
        self._short_tail = self._short_tail or min(sizes) < call.segment_bytes
        ours, etcds = (
            writer.open(directory, call.start, call.segment_bytes)
            for writer, directory in self.pairs()
        )
        assert ours == etcds
        if not (call.repair or call.swap):
            for writer, _ in self.pairs():
                assert writer.reopen(call.start) == ours
        self._read_state_not_saved = ours.hard_state != HardState()
        self._start = call.start.index if call.start is not None else 0
        self._etcd_forgot_snapshot = self._start > self._last_entry

    def note_cut(self, call: Save, *, cut: bool) -> None:
        """Two things that etcd does not know of a log that it has opened.

        The hard state, until one is saved: a segment cut before that starts without one,
        where raftwal writes the one that was read.  From there on the bytes differ.

        The index of a received snapshot, until an entry or a snapshot is saved: a segment
        cut before that is named as if the snapshot was not there, and whoever starts from
        the snapshot then begins past its record and does not find it.
        """
        self.cuts += cut
        self._short_tail = self._short_tail and not cut
        if call.state is not None:
            self._read_state_not_saved = False
        if call.entries:
            self._last_entry = call.entries[-1].index
            self._etcd_forgot_snapshot = False
        if cut and self._read_state_not_saved:
            self.same_bytes = False
        if cut and self._etcd_forgot_snapshot:
            ours, etcds = (sorted(each.glob("*.wal"))[-1].name for each in self.directories)
            assert ours > etcds
            self.same_bytes = self.same_contents = False

    def check(self) -> None:
        """Both are closed: the same files, and everybody reads the same from both."""
        if self.same_bytes:
            self.check_bytes(whole=True)
        answers = [
            [self.answers(ways, directory) for ways in self.ways] for directory in self.directories
        ]
        (first, second), (third, fourth) = answers
        assert agree(first, second), (first, second)
        assert agree(third, fourth), (third, fourth)
        assert kinds(first) == kinds(third)
        assert kinds(second) == kinds(fourth)

    def answers(self, ways: Ways, directory: Path) -> dict[str, object]:
        snapshots = ways.valid_snapshots(directory)
        answers: dict[str, object] = {"valid snapshots": snapshots}
        assert isinstance(snapshots, list), snapshots
        for start in [None, *snapshots]:
            where = "the beginning" if start is None else f"{start.term}-{start.index}"
            answers[f"read from {where}"] = ways.read(directory, start)
            answers[f"verify from {where}"] = ways.verify(directory, start)
        return answers

    def check_bytes(self, *, whole: bool) -> None:
        ours, etcds = (
            {
                name: content
                for name, content in contents_of(directory).items()
                if whole or not name.endswith(".tmp")
            }
            for directory in self.directories
        )
        assert list(ours) == list(etcds)
        tail = self.segments()[-1]
        for name, (size, data) in etcds.items():
            assert ours[name][1] == data, name
            # A segment that was opened shorter than segments are grows to their size before
            # raftwal writes beyond its end; etcd's grows with what is written.
            assert ours[name][0] == size or (self._short_tail and name == tail), name


def kinds(answers: dict[str, object]) -> dict[str, object]:
    """The answers, of refusals only what kind they are: their texts name directories."""
    return {
        name: answer.kind if isinstance(answer, Refused) else answer
        for name, answer in answers.items()
    }


# A log that is whole, but does not hold what is asked for.
SAME_REFUSAL = {
    "slice bounds out of range": "EntryGapError",
    "file not found": "NotAWalError",
    "snapshot not found": "SnapshotNotFoundError",
    "snapshot mismatch": "SnapshotMismatchError",
}


def agree(ours: dict[str, object], etcds: dict[str, object]) -> bool:
    """Whether raftwal's answers are etcd's: equal, or refused for the same reason."""
    return list(ours) == list(etcds) and all(
        answers_agree(name, answer, etcds[name]) for name, answer in ours.items()
    )


def answers_agree(name: str, ours: object, etcds: object) -> bool:
    if isinstance(ours, Refused) and isinstance(etcds, Refused):
        return SAME_REFUSAL.get(etcds.kind) == ours.kind
    if isinstance(ours, Refused) and ours.kind == "EntryGapError":
        # etcd's Verify does not look at entries: it passes over a gap where a snapshot
        # was received, which its read from before that snapshot refuses, too.
        return name.startswith("verify ")
    return ours == etcds
