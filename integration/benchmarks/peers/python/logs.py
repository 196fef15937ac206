"""What the measured loops need of a log, whoever's it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

Pair = tuple[int, bytes]
"""An entry's index and its data.  The term is 1, always."""


ThreadedSave = Callable[[Callable[[], Any]], bool]


class CannotError(Exception):
    """The peer has no figure for a case; the text is why."""


class Writer(Protocol):
    """A log that is open to append."""

    def prepared(self, entries: Sequence[Pair], batch: int) -> list[Any]:
        """One thing for each save, as `save` takes it; not measured."""

    def save(self, batch: Any) -> None:
        """Durable when it returns, if syncs are asked for."""

    def close(self) -> None:
        """Not measured."""


class Peer(NamedTuple):
    """A way to save and to read.

    ``open_`` takes a directory that is not there yet, and whether to sync.  ``read`` gives
    all entries as the library gives them, ``pair_of`` makes of one what can be compared.
    ``threaded`` makes of an open log a function for many threads, which saves what the
    function that it is given takes, and says whether there was anything; where there is
    none, each save waits for the one before.
    """

    open_: Callable[[str, bool], Writer]
    read: Callable[[str], Sequence[Any]]
    pair_of: Callable[[Any], Pair]
    replay: Callable[[str], Iterable[Any]]
    versions: Callable[[], dict[str, str]]
    threaded: Callable[[Any], ThreadedSave | None] | None = None
    checksum: Callable[[int, bytes], int] | None = None


def batches_of(things: Sequence[Any], batch: int) -> list[Any]:
    return [things[start : start + batch] for start in range(0, len(things), batch)]
