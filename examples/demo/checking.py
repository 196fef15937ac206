"""The check: is every write that was acknowledged there, on every node?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol


class Store(Protocol):
    """What the check reads from: a node."""

    @property
    def name(self) -> str: ...

    def get(self, key: str) -> bytes | None: ...


class Loss(NamedTuple):
    """An acknowledged write that a node does not have as it was acknowledged."""

    node: str
    key: str
    expected: bytes
    found: bytes | None

    def __str__(self) -> str:
        found = "nothing" if self.found is None else repr(self.found[:20])
        return f"{self.node} has {found} under {self.key}, not {self.expected[:20]!r}"


def find_losses(
    acknowledged: Mapping[str, bytes],
    stores: Iterable[Store],
    on_read: Callable[[], object] = lambda: None,
) -> list[Loss]:
    """Every acknowledged write that is missing or wrong, for each store that lacks it.

    A store that cannot be read raises what it raises: nothing is known then.
    """

    def losses_of(store: Store) -> list[Loss]:
        losses = []
        for key, expected in acknowledged.items():
            found = store.get(key)
            if found != expected:
                losses.append(Loss(store.name, key, expected, found))
            on_read()
        return losses

    stores = list(stores)
    with ThreadPoolExecutor(len(stores)) as executor:
        return [loss for losses in executor.map(losses_of, stores) for loss in losses]
