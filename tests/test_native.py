"""The native twin of the hot loops does what the Python code beside it does, byte for byte."""

from __future__ import annotations

import enum
import os
import random
import subprocess
import sys
from array import array

import google_crc32c
import pytest
from golden_directories import NAMES, unpack
from hypothesis import example, given, settings
from hypothesis import strategies as st
from implementations import native_codec, pure_python, small_windows

import raftwal
from raftwal import WAL, Entry, EntryType, HardState, RaftwalError
from raftwal.errors import InvalidEntryError
from raftwal.testing import UnsyncedDisk
from raftwal.wal.admission import check_entries
from raftwal.wal.cut_rule import HandedOver
from raftwal.wal.reading import read_whole_log
from raftwal.wal.terms import TermHistory
from raftwal.wire.entries import (
    EntryRun,
    decode_entries,
    decode_entries_in_python,
    encode_entries,
    encode_entries_in_python,
)
from raftwal.wire.frames import ENTRY, encode_frame, extend_crc
from raftwal.wire.messages import encode_entry

codec = native_codec()

MAX_UINT64 = (1 << 64) - 1
EVERYTHING = 1 << 62

# Around every place where a number takes one byte more.
numbers = st.one_of(
    st.integers(0, MAX_UINT64),
    st.sampled_from([(1 << 7 * groups) + d for groups in range(1, 10) for d in (-1, 0, 1)]),
    st.just(MAX_UINT64),
)
crcs = st.integers(0, (1 << 32) - 1)
# The last ones are not copied.
payloads = st.one_of(
    st.none(), st.binary(max_size=300), st.sampled_from((bytes(4096), bytes(16_381), b"x" * 16_384))
)
any_entries = st.lists(
    st.builds(Entry, numbers, numbers, payloads, st.sampled_from(EntryType)), max_size=8
)


@st.composite
def logs(draw, payloads=payloads):
    """Entries as a log has them: one behind the other, terms that never fall."""
    index = draw(st.one_of(st.integers(0, 300), st.integers(MAX_UINT64 - 10, MAX_UINT64)))
    term = draw(st.integers(0, 1 << 40))
    entries = []
    for step, data in draw(st.lists(st.tuples(st.sampled_from((0, 0, 1)), payloads), max_size=8)):
        term += step
        if index <= MAX_UINT64:
            entries.append(Entry(term, index, data, draw(st.sampled_from(EntryType))))
        index += 1
    return entries


@given(any_entries, crcs)
def test_frames_are_the_same_bytes(entries, crc):
    pieces, sizes, chain, total = encode_entries(entries, crc)
    data = b"".join(pieces)
    assert total == len(data)
    native = [data], list(memoryview(sizes).cast("Q")), chain, total
    assert native == encode_entries_in_python(entries, crc)


@given(any_entries, crcs)
def test_frames_are_those_of_each_record_alone(entries, crc):
    expected = []
    chain = crc
    for entry in entries:
        payload = encode_entry(entry)
        chain = extend_crc(chain, payload)
        expected.append(encode_frame(ENTRY, payload, chain))
    sizes = list(map(len, expected))
    data = b"".join(expected)
    assert encode_entries_in_python(entries, crc) == ([data], sizes, chain, len(data))


class Number(int):
    pass


class Kind(enum.IntEnum):
    NORMAL = 0


@pytest.mark.parametrize(
    "entries",
    [
        [(1, 2, b"plain", 0)],
        ((1, 2, b"plain", 0), Entry(1, 3, None)),
        [(True, Number(2), b"x", Kind.NORMAL)],
        [Entry(1, 2, bytes(3), EntryType.CONF_CHANGE_V2)],
    ],
)
def test_whatever_can_be_saved_is_encoded_alike(entries):
    pieces, _, _, _ = encode_entries(entries, 0)
    assert pieces == encode_entries_in_python(entries, 0)[0]


class Bytes(bytes):
    pass


@pytest.mark.parametrize(
    "entries",
    [
        [[1, 2, b"x", 0]],
        [(1, 2, b"x")],
        [(1, 2, b"x", 3)],
        [(1, 2, b"x", -1)],
        [(1, 2, "x", 0)],
        [(1, 2, bytearray(b"x"), 0)],
        [(1, 2, Bytes(b"x"), 0)],
        [(-1, 2, b"x", 0)],
        [(1 << 64, 2, b"x", 0)],
        [(1.0, 2, b"x", 0)],
        [(None, 2, b"x", 0)],
        {(1, 2, b"x", 0)},
        iter([(1, 2, b"x", 0)]),
        None,
        7,
    ],
    ids=repr,
)
def test_the_unusual_is_left_to_the_reference(entries):
    assert codec.encode_entries(entries, 0) is None
    assert codec.check_sequence(entries) is None


@given(logs(), st.integers(0, 1 << 41), st.integers(0, 400), st.integers(0, 8), st.data())
def test_what_may_be_saved_is_judged_alike(entries, term, last_index, broken, data):
    """Also with one number of one entry changed."""
    if broken < len(entries):
        field = data.draw(st.sampled_from(("term", "index")))
        value = data.draw(numbers)
        entries[broken] = entries[broken]._replace(**{field: value})
    terms = TermHistory()
    terms.write(1, term)

    def judgement():
        try:
            check_entries(entries, last_index, terms)
        except InvalidEntryError as error:
            return str(error)
        return None

    native = judgement()
    with pure_python():
        assert judgement() == native


def runs(buffer, offset, crc, first_kept=0, most=EVERYTHING) -> EntryRun:
    """What both make of a buffer, which must be the same."""
    run = decode_entries(buffer, offset, crc, first_kept, most)
    assert run == decode_entries_in_python(buffer, offset, crc, first_kept, most)
    for entry in run.entries:
        assert type(entry) is Entry
        assert type(entry.type) is EntryType
    return run


@given(logs(), crcs, st.integers(0, 16), numbers, st.integers(0, 9))
def test_entries_come_back_as_they_were_saved(entries, crc, before, first_kept, most):
    """From any place on, and only those that are wanted."""
    pieces, _, chain, total = encode_entries(entries, crc)
    buffer = bytes(8 * before) + b"".join(pieces) + bytes(64)
    run = runs(buffer, 8 * before, crc)
    # Nothing stands at index 0: the reader passes over that itself.
    expected = [] if entries and entries[0].index == 0 else entries
    assert run.entries == expected
    assert run.total == len(expected)
    if expected:
        assert run.end == 8 * before + total
        assert run.crc == chain
    some = runs(buffer, 8 * before, crc, first_kept, most)
    assert some.entries == [entry for entry in expected[:most] if entry.index >= first_kept]


@settings(max_examples=400)
@given(logs(st.one_of(st.none(), st.binary(max_size=40))), crcs, st.data())
def test_a_damaged_buffer_is_read_as_far_by_both(entries, crc, data):
    """Bytes changed, cut off and doubled: where the one stops, the other stops."""
    buffer = bytearray(b"".join(encode_entries(entries, crc)[0]))
    for _ in range(data.draw(st.integers(1, 3))):
        if not buffer:
            break
        at = data.draw(st.integers(0, len(buffer) - 1))
        change = data.draw(st.sampled_from(("byte", "bit", "cut", "double", "zeros")))
        if change == "byte":
            buffer[at] = data.draw(st.integers(0, 255))
        elif change == "bit":
            buffer[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            del buffer[at:]
        elif change == "double":
            buffer[at:at] = buffer[at : at + data.draw(st.integers(1, 32))]
        else:
            end = min(len(buffer), at + 16)
            buffer[at:end] = bytes(end - at)
    damaged = bytes(buffer)
    for offset in range(0, min(len(damaged), 400) + 1, 8):
        runs(damaged, offset, crc)


def record(fields: bytes) -> bytes:
    padding = -len(fields) & 7
    top = 0x80 | padding if padding else 0
    return (len(fields) | top << 56).to_bytes(8, "little") + fields + bytes(padding)


@settings(max_examples=400)
@given(crcs, st.lists(st.binary(max_size=4), max_size=6), st.binary(max_size=12), st.data())
def test_a_record_made_of_anything_is_read_alike(crc, parts, payload, data):
    """Numbers longer than they need be, fields in another order, lengths that lie: with a
    checksum that holds."""
    long_number = data.draw(st.integers(0, 4))
    entry = b"\x08" + data.draw(st.sampled_from((b"\x00", b"\x02", b"\x03", b"\x80")))
    entry += b"\x10" + b"\x80" * long_number + data.draw(st.sampled_from((b"\x00", b"\x05")))
    entry += b"\x18\x07" + b"".join(parts)
    entry += data.draw(st.sampled_from((b"", b'"' + bytes((len(payload),)) + payload, payload)))
    chain = extend_crc(crc, entry)
    number = bytearray()
    value = chain
    while value > 0x7F:
        number.append(value & 0x7F | 0x80)
        value >>= 7
    number.append(value)
    if data.draw(st.booleans()):
        number[-1] |= 0x80
        number += b"\x80" * data.draw(st.integers(0, 5)) + b"\x00"
    fields = b"\x08\x02\x10" + bytes(number) + b"\x1a" + bytes((len(entry),)) + entry
    runs(record(fields), 0, crc)


@given(st.lists(st.one_of(st.integers(8, 400), st.integers(8, 1 << 22)), max_size=40), numbers)
@example([8] * 10, 0)
@example([4096] * 100, 4095)
def test_the_page_writer_is_modelled_alike(sizes, offset):
    offset %= 1 << 40
    sizes = [size - size % 8 for size in sizes]
    native, reference = HandedOver(offset), HandedOver(offset)
    for part in (sizes[::2], sizes[1::2], sizes):
        native.append(array("Q", part).tobytes(), sum(part))
        reference.append(part, sum(part))
        assert vars(native) == vars(reference)
    native.flush()
    reference.flush()
    assert vars(native) == vars(reference)


def test_checksums_of_any_length_and_alignment_are_the_same():
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    print("RAFTWAL_SEED", seed)
    source = random.Random(seed)
    data = memoryview(source.randbytes(70_000))
    # Every length up to that of three whole streams' first steps, and around the longest ones.
    lengths = [*range(300), *range(3 * 1024 - 30, 3 * 1024 + 30), 6 * 1024, 65_536, 70_000]
    for length in lengths:
        start = source.randrange(len(data) - length + 1)
        crc = source.getrandbits(32)
        part = data[start : start + length]
        expected = google_crc32c.extend(crc, bytes(part))
        assert codec.extend_crc(crc, part) == expected, length
        assert codec.extend_crc_by_tables(crc, part) == expected, length


def answer(directory):
    try:
        contents, end = read_whole_log(raftwal.fs.DISK, str(directory))
    except RaftwalError as error:
        return type(error), str(error)
    return contents._replace(torn_tail=str(contents.torn_tail)), end[:4]


@pytest.mark.parametrize("name", NAMES)
def test_a_log_made_by_etcd_reads_alike(name, tmp_path):
    directory = unpack(name, tmp_path, most_zeros=1 << 16)
    native = answer(directory)
    with pure_python():
        assert answer(directory) == native
    with small_windows():
        assert answer(directory) == native


def test_a_log_is_written_alike_with_cuts_and_all(tmp_path):
    """Saves of one and many entries, small and large, across segments."""
    seed = int(os.environ.get("RAFTWAL_SEED", random.randrange(1 << 30)))
    print("RAFTWAL_SEED", seed)
    source = random.Random(seed)
    saves = []
    last = 0
    for _ in range(60):
        first = source.randint(max(1, last - 2), last + 1)
        count = source.choice((1, 3, 200))
        last = first + count - 1
        saves.append(
            [
                Entry(1, index, source.randbytes(source.choice((0, 10, 130, 2000))))
                for index in range(first, last + 1)
            ]
        )

    def write(name):
        with WAL.create(tmp_path / name, b"m", segment_bytes=1 << 19, fs=UnsyncedDisk()) as wal:
            for number, entries in enumerate(saves):
                wal.save(HardState(1, 1, 0) if number % 7 == 0 else None, entries)
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.wal")}

    native = write("native")
    assert len(native) > 1
    with pure_python():
        assert write("python") == native


@pytest.mark.parametrize(
    ("setting", "expected"), [({"RAFTWAL_PURE_PYTHON": "1"}, "pure Python"), ({}, "native, CRC")]
)
def test_the_version_says_which_one_is_in_use(setting, expected):
    env = {name: value for name, value in os.environ.items() if name != "RAFTWAL_PURE_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-m", "raftwal", "--version"],
        env=env | setting,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"raftwal {raftwal.__version__} ({expected}")
