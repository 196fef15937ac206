"""What may be saved: checked before a byte is written.

The rules are those that a reader applies, so whatever is saved can be read back.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftwal.errors import InvalidEntryError, InvalidSettingError
from raftwal.model import MAX_UINT64, ConfState, Entry, HardState, SnapshotMetadata
from raftwal.native import codec
from raftwal.wal.terms import TermHistory


def check_entries(entries: Sequence[Entry], last_index: int, terms: TermHistory) -> None:
    """Raises `InvalidEntryError` unless the entries can follow what the log holds.

    ``last_index`` is its last, ``terms`` are those of its entries.
    """
    checked = codec.check_sequence(entries) if codec is not None else None
    if checked is not None:
        first, term = checked
        if first <= last_index + 1 and term >= terms.at(first - 1):
            return
    last = None
    last_term = 0
    for entry in entries:
        try:
            term, index, data, entry_type = entry
        except (TypeError, ValueError):
            raise InvalidEntryError(f"not an entry: {entry!r}") from None
        check_uint64("entry term", term)
        check_uint64("entry index", index)
        if index == MAX_UINT64:
            # A segment that is cut behind it could not be named.
            raise InvalidEntryError("no entry can follow this one", index=index)
        if last is None:
            if index > last_index + 1:
                raise InvalidEntryError(
                    f"entry {index} cannot follow entry {last_index}", index=index
                )
            last_term = terms.at(index - 1)
        elif index != last + 1:
            raise InvalidEntryError(f"entry {index} cannot follow entry {last}", index=index)
        if term < last_term:
            raise InvalidEntryError(
                f"an entry of term {term} cannot follow one of term {last_term}", index=index
            )
        if data is not None and not isinstance(data, bytes):
            raise InvalidEntryError(
                f"an entry's data must be bytes, not {type(data).__name__}", index=index
            )
        if not isinstance(entry_type, int) or entry_type not in (0, 1, 2):
            raise InvalidEntryError(f"unknown entry type {entry_type!r}", index=index)
        last = index
        last_term = term


def check_hard_state(
    state: HardState,
    entries: Sequence[Entry],
    last_state: HardState,
    terms: TermHistory,
) -> None:
    """Raises `InvalidEntryError` unless ``state`` can follow ``last_state`` and the entries."""
    if not isinstance(state, HardState):
        raise InvalidEntryError(f"not a hard state: {state!r}")
    for name, value in zip(state._fields, state, strict=True):
        check_uint64(name, value)
    lowest = max(last_state.term, terms.replacing_term)
    if entries and terms.replaces(entries[0][1]):
        lowest = max(lowest, entries[-1][0])
    if state.term < lowest:
        raise InvalidEntryError(f"a hard state of term {state.term} after term {lowest}")


def check_snapshot_metadata(snapshot: SnapshotMetadata) -> None:
    """Raises `InvalidEntryError` when a number does not fit the format, or contradicts
    the snapshot of nothing with which every log begins.
    """
    check_uint64("snapshot index", snapshot.index)
    check_uint64("snapshot term", snapshot.term)
    if snapshot.index == 0 and snapshot.term != 0:
        raise InvalidEntryError(f"no term but 0 stands at index 0, not {snapshot.term}", index=0)
    for node_ids in (snapshot.conf_state or ConfState())[:4]:
        for node_id in node_ids:
            check_uint64("node id", node_id)


def check_settings(segment_bytes: int, metadata: bytes | None) -> None:
    """Raises `InvalidSettingError`."""
    if not isinstance(segment_bytes, int) or segment_bytes <= 0:
        raise InvalidSettingError(f"segment_bytes must be positive, not {segment_bytes!r}")
    if metadata is not None and not isinstance(metadata, bytes):
        raise InvalidSettingError(f"metadata must be bytes, not {type(metadata).__name__}")


def check_uint64(name: str, value: int) -> None:
    """Raises `InvalidEntryError`."""
    if not isinstance(value, int) or not 0 <= value <= MAX_UINT64:
        raise InvalidEntryError(f"{name} {value!r} is not an unsigned 64-bit integer")
