"""One case with one peer: its program started, its answer checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from integration.benchmarks.peers.building import ROOT, Program
from integration.benchmarks.peers.cases import Case
from integration.benchmarks.peers.protocol import Request, digest_of, made_data

_STARTING_SECONDS = 300
_READING_SECONDS = 900


class CannotSayError(Exception):
    """The peer has no figure for the case; the text is why."""


class PeerFailedError(Exception):
    """A peer's program failed, or gave back another log than it was given."""


class Runner:
    """A directory to measure in, on one disk for all."""

    def __init__(self, directory: Path, programs: dict[str, Program]) -> None:
        self._directory = directory
        self._programs = programs
        self._block = made_data()
        self._data = directory / "data"
        self._data.write_bytes(self._block)
        self.versions: dict[str, str] = {}

    def saved(self, case: Case, peer: str, limit: float) -> dict[str, Any]:
        """The answer, with the log's bytes on disk, and nothing left behind.

        Raises `CannotSayError` and `PeerFailedError`.
        """
        place = self.fresh(peer)
        try:
            answer = self.ask(case, peer, place, limit)
            return {**answer, "disk": disk_bytes(place)}
        finally:
            remove(place)

    def filled(self, case: Case, peer: str, limit: float) -> tuple[Path, dict[str, Any]]:
        """A log that is there to be read, and the answer; synced where the peer can.

        A log that was not filled in the time is of no use, and gone.
        """
        place = self.fresh(peer)
        try:
            try:
                answer = self.ask(case._replace(do="save"), peer, place, limit)
            except CannotSayError:
                remove(place)
                place.mkdir()
                unsynced = case._replace(do="save", sync=False)
                answer = self.ask(unsynced, peer, place, limit)
            if answer["stopped"]:
                raise CannotSayError(f"to fill it takes more than {limit:.0f} s")
        except BaseException:
            remove(place)
            raise
        _sync_directory(place)
        return place, {**answer, "disk": disk_bytes(place)}

    def fresh(self, peer: str) -> Path:
        place = self._directory / peer
        remove(place)
        place.mkdir()
        return place

    def ask(self, case: Case, peer: str, place: Path, limit: float) -> dict[str, Any]:
        program = self._programs[peer]
        request = Request(
            peer, case.do, str(place), str(self._data), case.size, case.batch, case.count,
            case.sync, case.threads, limit,
        )  # fmt: skip
        answer = self._answer(program, request)
        if "cannot" in answer:
            raise CannotSayError(answer["cannot"])
        self.versions.update(answer["versions"])
        if case.do in ("read", "replay"):
            self._check_log(case, peer, answer)
        return answer

    @staticmethod
    def _answer(program: Program, request: Request) -> dict[str, Any]:
        words = [*program.words, *request.words()]
        longest = _READING_SECONDS if request.do != "save" else request.seconds * 4
        try:
            done = subprocess.run(
                words,
                cwd=ROOT,
                env={**os.environ, **program.environment},
                capture_output=True,
                text=True,
                timeout=longest + _STARTING_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerFailedError(f"{request.peer} did not end in {error.timeout:.0f} s") from error
        if done.returncode:
            raise PeerFailedError(
                f"{request.peer} ended with {done.returncode} at {request.do}: "
                f"{done.stderr.strip()[-2000:]}"
            )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def _check_log(self, case: Case, peer: str, answer: dict[str, Any]) -> None:
        expected = {
            "entries": case.count,
            "bytes": case.count * case.size,
            "digest": digest_of(self._block, case.count, case.size),
        }
        found = {name: answer[name] for name in expected}
        if found != expected:
            raise PeerFailedError(f"{peer} gave back {found} where {expected} was saved")


def remove(place: Path) -> None:
    """And have the disk done with it, so that it does not slow what comes next."""
    if place.exists():
        shutil.rmtree(place)
        _sync_directory(place.parent)


def _sync_directory(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_bytes(place: Path) -> int:
    return sum(
        os.stat(os.path.join(directory, name)).st_blocks * 512
        for directory, _, names in os.walk(place)
        for name in names
    )
