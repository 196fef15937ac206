"""What PySyncObj's dump says beside the state, read without the application.

The dump is a gzipped pickle of ``(state, last entry, entry before it, nodes)``.  The state
may hold objects of any class.  To get past it, every class and function that the pickle
names is replaced by one that takes anything and does nothing: nothing is imported, and
nothing of what the pickle names is run.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable, Iterable
from typing import Any

from raftwal.errors import FileJournalError, MigrationRefusedError, ReadFailedError
from raftwal.pysyncobj.dump import DumpDescription
from raftwal.pysyncobj.journal import JournalEntry
from raftwal.pysyncobj.node_state import Content
from raftwal.spool import CHUNK_BYTES

_GZIP = b"\x1f\x8b"
_WITH_THE_APPLICATION = (
    "If the application has a serializer of its own, migrate where that is at hand: start "
    "the node with install(migrate='auto').  Otherwise move the node's files away while the "
    "rest of the cluster is in step and start it alone: it gets everything from its peers"
)


def describe(content: Content, path: str) -> DumpDescription:
    """Read a dump that PySyncObj's own serializer wrote.

    Raises `FileJournalError` when it is damaged, `MigrationRefusedError` when it is
    something else, `ReadFailedError`.
    """
    if content.read(0, len(_GZIP)) != _GZIP:
        if not any(chunk.strip(b"\0") for chunk in content):
            raise FileJournalError(f"a dump of {content.size} bytes with nothing in it", path=path)
        raise MigrationRefusedError(
            "not a dump of PySyncObj's own serializer",
            path=path,
            advice=_WITH_THE_APPLICATION,
        )
    try:
        with gzip.GzipFile(fileobj=content.stream()) as stream:
            data = _WithoutTheApplication(stream).load()
            # To the end: that is what checks the checksum.
            while stream.read(CHUNK_BYTES):
                pass
    except ReadFailedError:
        raise
    except Exception as error:
        raise FileJournalError(f"the dump cannot be read: {error}", path=path) from error
    if not isinstance(data, tuple):
        raise _something_else(path)
    return described(data[1:], path)


def described(parts: tuple[Any, ...], path: str) -> DumpDescription:
    """What PySyncObj hands to a serializer beside the state: last entry, previous, nodes.

    Raises `MigrationRefusedError` when they are something else.
    """
    if len(parts) < 3 or not isinstance(parts[2], Iterable):
        raise _something_else(path)
    last, previous = _entry(parts[0], path), _entry(parts[1], path)
    if previous[1] + 1 != last[1] or previous[2] > last[2]:
        raise FileJournalError(
            f"a dump with entry {last[1]} of term {last[2]} behind entry {previous[1]} of "
            f"term {previous[2]}",
            path=path,
        )
    # An observer has no node of its own, and is None among the others.
    nodes = [node for node in parts[2] if node is not None]
    return DumpDescription(previous, last, tuple(sorted(_id_of(node, path) for node in nodes)))


def _entry(entry: Any, path: str) -> JournalEntry:
    # A deserializer of the application's may give lists for tuples.
    if not isinstance(entry, (tuple, list)) or len(entry) != 3:
        raise _something_else(path)
    command, index, term = entry
    is_entry = isinstance(command, bytes) and isinstance(index, int) and isinstance(term, int)
    if not is_entry or not command or index < 1 or term < 0:
        raise _something_else(path)
    return command, index, term


def _id_of(node: Any, path: str) -> str:
    node_id = node if isinstance(node, str) else getattr(node, "id", None)
    if not isinstance(node_id, str):
        raise MigrationRefusedError(
            "a dump with a node whose id cannot be made out",
            path=path,
            advice=_WITH_THE_APPLICATION,
        )
    return node_id


def _something_else(path: str) -> MigrationRefusedError:
    return MigrationRefusedError(
        "a file that holds something else than a dump of PySyncObj",
        path=path,
        advice=_WITH_THE_APPLICATION,
    )


class _Inert:
    """Stands for whatever the pickle names: takes what it is given, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self._attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        # With __slots__ it is a pair of dictionaries.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.setdefault("_attributes", {}).update(part)

    @property
    def id(self) -> Any:
        """The id of PySyncObj's ``Node``, and of what derives from it."""
        return self.__dict__.get("_attributes", {}).get("_id")

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def _take(self, *_: Any) -> None:
        pass

    append = extend = add = update = _take


def _bytes_of(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as protocol 2 has them: a text of their numbers."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes as text in {encoding}")
    return text.encode("latin1")


# What the described parts are made of.
_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _bytes_of,
    ("__builtin__", "bytes"): bytes,
    ("builtins", "bytes"): bytes,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("builtins", "frozenset"): frozenset,
}


class _WithoutTheApplication(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), _Inert)
