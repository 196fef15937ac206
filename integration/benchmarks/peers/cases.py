"""What is measured: a case is one thing that every peer does alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_MOST_BYTES = 128 << 20
_MOST_ENTRIES = 200_000
_FEWEST_SAVES = 8
_SYNCED_SAVES = {1: 1000, 16: 600, 128: 250, 1024: 60}
_READ_BYTES = 64 << 20
_READ_MOST_ENTRIES = 500_000
READ_BATCH = 1024
"""What logs are filled with that are read back."""


class Case(NamedTuple):
    """``section`` is the part of the run that it belongs to; the rest is as in `Request`."""

    section: str
    do: str
    size: int
    batch: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    sync: bool
    threads: int = 1

    def __str__(self) -> str:
        if self.do == "checksum":
            return f"CRC-32C over {self.size:,} B"
        entries = f"{self.count:,} entries of {self.size:,} B"
        if self.do != "save":
            return f"{self.do} {entries}"
        threads = f" by {self.threads} threads" if self.threads > 1 else ""
        synced = "with sync" if self.sync else "without sync"
        return f"save {entries} in batches of {self.batch:,}{threads}, {synced}"


class Plan(NamedTuple):
    """One run.  ``limit`` is in seconds: of saving in one case, and of one peer's growth step.

    ``share`` scales the counts, for a shorter run.  ``latency_times`` is how often a round has the
    saves of one entry with sync: they last as long as the disk takes, and that changes from one
    second to the next by more than the logs differ.
    """

    sections: Sequence[str]
    sizes: Sequence[int]
    batches: Sequence[int]
    threads: Sequence[int]
    growth: Sequence[int]
    rounds: int
    limit: float
    growth_limit: float
    share: float = 1.0
    latency_times: int = 1

    def saving(self) -> list[Case]:
        return [
            Case("saving", "save", size, batch, self._saved(size, batch, sync), sync)
            for sync in (True, False)
            for size in self.sizes
            for batch in self.batches
        ]

    def _saved(self, size: int, batch: int, sync: bool) -> int:
        """Entries: few enough for the slowest disk, enough for a figure."""
        saves = min(_MOST_ENTRIES, _MOST_BYTES // size) // batch
        if sync:
            nearest = min(_SYNCED_SAVES, key=lambda known: abs(known - batch))
            saves = min(saves, _SYNCED_SAVES[nearest])
        return max(_FEWEST_SAVES, int(saves * self.share)) * batch

    def times_a_round(self, case: Case) -> int:
        """How often each peer does it in each round, in turn with the others."""
        is_of_latency = case.section == "saving" and case.sync and case.batch == 1
        return self.latency_times if is_of_latency else 1

    def by_threads(self) -> list[Case]:
        saves = _SYNCED_SAVES[1]
        return [
            # Four times as many entries for all threads as for one: it should be that fast.
            Case("threads", "save", self.sizes[0], 1, self._shared(saves * min(threads, 4)), True,
                 threads)
            for threads in self.threads
        ]  # fmt: skip

    def reading(self, size: int) -> list[Case]:
        count = self._shared(min(_READ_MOST_ENTRIES, _READ_BYTES // size))
        return [Case("reading", do, size, READ_BATCH, count, True) for do in ("read", "replay")]

    def growing(self, count: int) -> list[Case]:
        size = self.sizes[0]
        return [Case("growth", do, size, READ_BATCH, count, True)
                for do in ("save", "read", "replay")]  # fmt: skip

    def checksums(self) -> list[Case]:
        return [Case("checksum", "checksum", size, 1, 1, False) for size in (*self.sizes, 1 << 20)]

    def _shared(self, count: int) -> int:
        return max(64, int(count * self.share))


SECTIONS = ("saving", "threads", "reading", "growth", "checksum")
