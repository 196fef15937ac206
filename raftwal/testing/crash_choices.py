"""Who decides what a crash of a simulated disk leaves: chance, an extreme, or each in turn."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Protocol


class Choices(Protocol):
    """Who decides what a crash leaves."""

    def pick(self, count: int) -> int:
        """One of ``count`` possibilities, the first being that nothing has happened."""

    def stale(self, count: int) -> bytes:
        """``count`` bytes of what was on the disk before."""


class Drawn:
    """Choices at random."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        # Of what is pending, often most is there, and often hardly any.
        self._bias = source.choice((0.1, 0.5, 0.9))

    def pick(self, count: int) -> int:
        if self._random.random() > self._bias:
            return 0
        return count - 1 if self._random.random() < 0.5 else self._random.randrange(count)

    def stale(self, count: int) -> bytes:
        return self._random.randbytes(count)


class Always:
    """Nothing of what is pending is there, or all of it."""

    def __init__(self, *, is_there: bool) -> None:
        self._is_there = is_there

    def pick(self, count: int) -> int:
        return count - 1 if self._is_there else 0

    def stale(self, count: int) -> bytes:
        return bytes(count)


class Scripted:
    """Each combination of choices in turn: `go_on` moves to the next."""

    def __init__(self) -> None:
        self._script: list[list[int]] = []
        self._position = 0

    def pick(self, count: int) -> int:
        if self._position == len(self._script):
            self._script.append([0, count])
        self._position += 1
        return self._script[self._position - 1][0]

    def stale(self, count: int) -> bytes:
        return random.Random(count).randbytes(count)

    def go_on(self) -> bool:
        """Whether there is a next."""
        self._position = 0
        while self._script:
            self._script[-1][0] += 1
            if self._script[-1][0] < self._script[-1][1]:
                return True
            self._script.pop()
        return False


def every_way() -> Iterator[Scripted]:
    """The same `Scripted`, over and over: the caller ends it."""
    return itertools.repeat(Scripted())


def some_ways(seed: int, count: int) -> Iterator[Drawn | Always]:
    """The two extremes, then as many as are left of ``count``, drawn from ``seed``."""
    yield Always(is_there=False)
    yield Always(is_there=True)
    source = random.Random(seed)
    for _ in range(count - 2):
        yield Drawn(source)
