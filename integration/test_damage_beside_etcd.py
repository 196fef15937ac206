"""Damaged logs: raftwal decides as the newest etcd does, or differs for a reason named here.

``RAFTWAL_ETCD_SCRIPTS`` is how many scripts are drawn, each with several kinds of damage;
without it the same 150 every time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from beside_etcd import EtcdWays, RaftwalWays, Refused
from damage import DAMAGES, Damage, Done, do, records_in
from damaged_log import Case, case_of, histories, start_of
from directories import entry_up_to_a_sector
from etcd_packages import Dump
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from log_scripts import (
    Append,
    Data,
    EtcdLog,
    RaftwalLog,
    Script,
    Snapshot,
    calls_of,
    scripts,
    write,
)

from raftwal import WAL, Entry, EntryType, HardState

SCRIPTS = int(os.environ.get("RAFTWAL_ETCD_SCRIPTS", "150"))


class Difference(NamedTuple):
    """raftwal refuses what etcd accepts by some way, and why.

    ``fits`` says of a case, the way and raftwal's refusal whether it is this one.
    """

    name: str
    why: str
    fits: Callable[[Case, str, Refused], bool]


READ_ONLY_WAYS = ("read", "verify", "valid snapshots")


def is_refused(answer: object, kind: str) -> bool:
    return isinstance(answer, Refused) and answer.kind == kind


def is_torn_for_etcd(case: Case) -> bool:
    return is_refused(case.etcds["open to append"], "unexpected EOF")


def in_last_segment(case: Case, ours: Refused) -> bool:
    return ours.segment == case.last_segment


def in_length_field(case: Case) -> bool:
    hit = case.hit
    return hit is not None and hit.start <= case.done.first < hit.message


def earlier_segment_ends_early(case: Case, way: str, ours: Refused) -> bool:
    """By the length that some record claims, in a segment that is not the last."""
    ends_early = ours.kind in ("TruncatedSegmentError", "RecordLengthError")
    wrong_length = ours.kind == "RecordFormatError" and in_length_field(case)
    return (
        way in READ_ONLY_WAYS
        and not in_last_segment(case, ours)
        and (ends_early or wrong_length or is_torn_for_etcd(case))
    )


def repair_of_earlier_segment(case: Case, way: str, ours: Refused) -> bool:
    return way == "repair" and not in_last_segment(case, ours)


def repair_in_vain(case: Case, way: str, ours: Refused) -> bool:
    starts_another_chain = ours.kind == "CrcMismatchError" and ours.offset == 0
    opens_no_better = isinstance(case.etcds["after repair"], Refused)
    return (
        way == "repair"
        and in_last_segment(case, ours)
        and (starts_another_chain or opens_no_better)
    )


def snapshot_not_found(case: Case, way: str, ours: Refused) -> bool:
    to_append = way in ("open to append", "after repair")
    return to_append and is_refused(case.etcds["read"], "snapshot not found")


def ignored_byte(case: Case, way: str, ours: Refused) -> bool:
    hit, first = case.hit, case.done.first
    return (
        ours.kind == "RecordFormatError"
        and hit is not None
        and (first == hit.message - 1 or first >= hit.padding)
    )


def impossible_length_field(case: Case, way: str, ours: Refused) -> bool:
    return (
        ours.kind == "RecordFormatError"
        and is_torn_for_etcd(case)
        and in_last_segment(case, ours)
        and (case.hit is None or in_length_field(case))
    )


def length_field_too_large(case: Case, way: str, ours: Refused) -> bool:
    return (
        ours.kind == "RecordLengthError"
        and is_torn_for_etcd(case)
        and in_length_field(case)
        and ours.offset == case.hit.start
    )


def torn_header(case: Case, way: str, ours: Refused) -> bool:
    header_records = 3 if ours.segment.startswith("0" * 16) else 2
    return (
        ours.kind == "SegmentHeaderError"
        and is_torn_for_etcd(case)
        and in_last_segment(case, ours)
        and case.done.first < case.records[header_records - 1].end
    )


def zeros_where_a_record_began(case: Case, way: str, ours: Refused) -> bool:
    is_torn = ours.kind == "TornTailError" and way == "open to append"
    return (
        (is_torn or ours.kind in ("ZeroedDataError", "RecordLengthError"))
        and ours.segment == case.done.segment
        and ours.offset in [record.start for record in case.records]
        and not any(case.damaged_bytes[ours.offset : ours.offset + 8])
    )


def records_behind_the_hole(case: Case, way: str, ours: Refused) -> bool:
    now = case.damaged_bytes
    whole = [
        record
        for record in case.records
        if record.start > (ours.offset or 0)
        and now[record.start : record.end] == case.before[record.start : record.end]
    ]
    return ours.kind == "LostRecordsError" and is_torn_for_etcd(case) and len(whole) > 1


def one_wrong_byte(case: Case, way: str, ours: Refused) -> bool:
    now = case.damaged_bytes
    return (
        ours.kind == "CrcMismatchError"
        and is_torn_for_etcd(case)
        and len(now) == len(case.before)
        and sum(map(int.__ne__, now, case.before)) == 1
    )


def changed_type(case: Case, way: str, ours: Refused) -> bool:
    """The type, or its field's tag; the next field's tag, changed to that; or a record of no
    length at all, but with padding.
    """
    if case.hit is None:
        return False
    length_field = case.damaged_bytes[case.hit.start : case.hit.message]
    is_empty = not any(length_field[:7]) and any(length_field)
    at = case.done.first - case.hit.message
    is_second_type = at == 2 and case.damaged_bytes[case.done.first] == 0x08
    return is_empty or is_second_type or at in (0, 1)


def unknown_field(case: Case, way: str, ours: Refused) -> bool:
    hit = case.hit
    return (
        ours.kind == "RecordFormatError"
        and "unknown fields" in ours.text
        and hit is not None
        and hit.message <= case.done.first < hit.padding
        and case.etcds["read"] == case.original
    )


DIFFERENCES = [
    Difference(
        "earlier segment ends early",
        "A reader of etcd's that only reads stops at a record cut short in any segment and "
        "reports success; what follows in later segments was acknowledged.",
        earlier_segment_ends_early,
    ),
    Difference(
        "repair of an earlier segment",
        "etcd's Repair looks at the last segment only, and says that it succeeded.",
        repair_of_earlier_segment,
    ),
    Difference(
        "repair in vain",
        "etcd's Repair does not compare the last segment with the one before it, nor its records "
        "with each other, and says that it succeeded.",
        repair_in_vain,
    ),
    Difference(
        "snapshot not found",
        "etcd loses this error when it opens to append, and goes on with what it has read.",
        snapshot_not_found,
    ),
    Difference(
        "byte that etcd ignores",
        "The top byte of a length field, and padding: etcd looks at neither the bits that say "
        "nothing nor the bytes, which no writer leaves like that.",
        ignored_byte,
    ),
    Difference(
        "impossible length field",
        "A length field lies in one sector, so a torn write leaves it whole or not at all; etcd "
        "takes any that is too large for a torn tail.",
        impossible_length_field,
    ),
    Difference(
        "length field too large",
        "The record behind the length field is whole; etcd takes it, and all that follows, for a "
        "torn tail, which its Repair cuts off.",
        length_field_too_large,
    ),
    Difference(
        "torn header",
        "A segment has its name only when its header is durable, so a header is never torn; etcd "
        "takes it for a torn tail.",
        torn_header,
    ),
    Difference(
        "zeros where a record began",
        "etcd takes a length of zero for the end of the segment, whatever follows, and when it "
        "opens to append overwrites what follows with zeros.",
        zeros_where_a_record_began,
    ),
    Difference(
        "records behind the hole",
        "What stands behind a damaged record was written later, so it was acknowledged; etcd "
        "takes a record with a sector of zeros for a torn tail, which its Repair cuts off.",
        records_behind_the_hole,
    ),
    Difference(
        "one wrong byte",
        "One byte explains the wrong checksum, so the zeros in the record are its own; etcd "
        "takes it for a torn tail.",
        one_wrong_byte,
    ),
    Difference(
        "changed type",
        "The checksum does not cover a record's type. raftwal compares each record with what "
        "stands around it, by every way; etcd's Verify, ValidSnapshotEntries and Repair pass over "
        "most records, and nothing of etcd's looks at a segment's header.",
        changed_type,
    ),
    Difference(
        "unknown field",
        "A field that the schema does not have is how a changed byte in front of the data shows; "
        "etcd passes over it, and takes the field that is gone for zero, as it was.",
        unknown_field,
    ),
]


@pytest.fixture(scope="module")
def seen():
    """How often damage was done, and each row of the table was needed."""
    counted: Counter[str] = Counter()
    yield counted
    for row in DIFFERENCES:
        counted[f"differences: {row.name}"] += 0
    print()
    for name, count in sorted(counted.items()):
        print(f"{count:7} {name}")


@settings(
    max_examples=SCRIPTS,
    derandomize="RAFTWAL_ETCD_SCRIPTS" not in os.environ,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    script=scripts(most_steps=12),
    by_etcd=st.booleans(),
    from_snapshot=st.booleans(),
    damages=st.lists(DAMAGES, min_size=1, max_size=4),
)
def test_damage_is_refused_by_both_or_differs_for_a_reason(
    etcd, seen, script: Script, by_etcd: bool, from_snapshot: bool, damages: list[Damage]
):
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        writer = EtcdLog(etcd) if by_etcd else RaftwalLog()
        try:
            write(writer, root / "whole", script)
        except BaseException:
            etcd.kill()
            raise
        ways = RaftwalWays(), EtcdWays(etcd)
        start = start_of(ways, root / "whole", from_snapshot=from_snapshot)
        for damage in damages:
            damaged = root / "damaged"
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(root / "whole", damaged)
            done = do(damage, damaged)
            if done is not None:
                note(f"{done}")
                case = case_of(ways, root / "whole", damaged, done, start)
                check(case, seen)
                if start is None:
                    check_history(case, script, seen)


def test_every_bit_of_a_small_log(etcd, seen, tmp_path):
    """Of a record's length and type, each; of some bytes behind them, one."""
    small = Append([Data(5, "text", EntryType.NORMAL)], 0, True, 1)
    large = Append([Data(1000, "zeros", EntryType.NORMAL)], 0, True, 1)
    replacing = Append([Data(-1, "text", EntryType.NORMAL)], 1, True, 0)
    steps = [small, large, replacing, small, Snapshot(0), small]
    script = Script(b"node 1", 1000, calls_of(steps))
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    write(RaftwalLog(), whole, script)
    ways = RaftwalWays(), EtcdWays(etcd)
    for path in sorted(whole.glob("*.wal")):
        data = path.read_bytes()
        for record in records_in(data):
            its_bytes = range(record.start, record.end)
            for at in sorted({*its_bytes[:16], *its_bytes[-2:]}):
                for bit in range(8) if at < record.message + 3 else [at % 8]:
                    shutil.rmtree(damaged, ignore_errors=True)
                    shutil.copytree(whole, damaged)
                    changed = bytes([data[at] ^ 1 << bit])
                    (damaged / path.name).write_bytes(data[:at] + changed + data[at + 1 :])
                    done = Done("flip a bit", path.name, at, f"bit {bit} of byte {at}")
                    case = case_of(ways, whole, damaged, done, None)
                    check(case, seen)
                    check_history(case, script, seen)


def test_zeros_in_front_of_records_of_one_save_end_the_log_for_both_but_not_without_a_word(
    etcd, seen, tmp_path
):
    """Both read up to them; opened to append, only raftwal says that there was more."""
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    with WAL.create(whole, b"node 1", segment_bytes=4096) as wal:
        (path,) = whole.glob("*.wal")
        wal.save(HardState(1, 7, 0), [Entry(1, 1, b"first")])
        wal.save(None, [entry_up_to_a_sector(path.read_bytes(), 2)])
        begin = len(path.read_bytes().rstrip(b"\0"))
        wal.save(HardState(1, 7, 2), [Entry(1, n, b"saved" * n * 20) for n in range(3, 9)])
    begin += -begin % 8
    assert begin % 512 == 0
    data = path.read_bytes()
    shutil.copytree(whole, damaged)
    (damaged / path.name).write_bytes(data[:begin] + bytes(512) + data[begin + 512 :])
    done = Done("zero a sector", path.name, begin, f"zero from {begin} to {begin + 512}")
    case = case_of((RaftwalWays(), EtcdWays(etcd)), whole, damaged, done, None)
    check(case, seen)
    assert case.differing() == ["open to append"]
    ours = case.ours["open to append"]
    assert (ours.kind, ours.offset) == ("TornTailError", begin)
    assert [entry.index for entry in case.ours["after repair"].entries] == [1, 2]
    assert case.ours["after repair"] == case.etcds["open to append"]


def check(case: Case, seen: Counter[str]) -> None:
    """raftwal accepts nothing that etcd refuses, and refuses what etcd accepts for a reason."""
    seen["damaged logs"] += 1
    for way in case.differing():
        ours, etcds = case.ours[way], case.etcds[way]
        assert isinstance(ours, Refused), f"by {way} raftwal accepts\n{ours}\netcd\n{etcds}"
        rows = [row.name for row in DIFFERENCES if row.fits(case, way, ours)]
        assert rows, f"by {way} raftwal says {ours}, etcd\n{etcds}\n(all: {case.etcds})"
        seen[f"differences: {rows[0]}"] += 1
    refusals = [answer for answer in case.ours.values() if isinstance(answer, Refused)]
    seen["damaged logs refused by raftwal"] += bool(refusals)
    for ours in refusals:
        if ours.segment == case.done.segment and ours.offset is not None and case.hit is not None:
            assert ours.offset >= case.hit.start, f"reported in front of the damage: {ours}"
    if isinstance(case.ours["read"], Dump):
        kind = "as they were" if case.ours["read"] == case.original else "with less in them"
        seen[f"damaged logs read by both, {kind}"] += 1


def check_history(case: Case, script: Script, seen: Counter[str]) -> None:
    """What is read from the beginning is what the log once held, and all of it if no more than
    one bit was flipped, unless it is one of a record's type.

    The checksum does not cover that: the format cannot tell.
    """
    read = case.ours["read"]
    if case.done.kind == "flip a bit" and read != case.original and not isinstance(read, Refused):
        assert case.done.first == case.hit.message + 1, f"less was read: {read}"
    if isinstance(read, Dump) and (read.hard_state, read.entries) not in histories(script):
        hit = case.hit
        assert hit is not None
        assert case.done.first == hit.message + 1, f"never in the log: {read}"
        seen["damaged logs read by both, a record's type changed"] += 1
