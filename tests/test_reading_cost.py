"""What a reader costs grows with the file and no faster, whatever is in the file.

Counted are the lines that raftwal runs and the bytes that it looks into: a clock would count
what else the machine does.
"""

import os
import subprocess
import sys
import tracemalloc

import google_crc32c
import pytest
from directories import FIRST_SEGMENT
from fuzzing import adversaries
from fuzzing.memory_files import DIRECTORY, MemoryFiles
from fuzzing.message_mutation import varint
from fuzzing.running import without_events
from fuzzing.segments import outcome

import raftwal
from raftwal.wal.reading import read_whole_log

# A record of 16 bytes takes some 130 lines, once where it is sound and twice behind zeros.
# Bytes are looked into up to four times over behind zeros, where records claim to hold each
# other, twice for each, and that twice.
MOST_LINES_A_BYTE = 13
MOST_LOOKS_A_BYTE = 12
# Times the file's size; docs/guarantees.md says why.  The constants are for what is in memory
# anyhow: caches, modules, what protobuf sets aside.
MOST_MEMORY = 14
MOST_MEMORY_OF_MEMBERSHIPS = 32
CONSTANT_BYTES = 1 << 17
CONSTANT_BYTES_OF_PROCESS = 1 << 22

every_adversary = pytest.mark.parametrize("make", adversaries.ALL, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def quiet():
    with without_events():
        yield


def read_whole(data):
    """Every other way reads as this one does, and no more."""
    fs = MemoryFiles({FIRST_SEGMENT: data})
    return outcome(lambda: read_whole_log(fs, DIRECTORY))


class Watched(bytes):
    """Counts the bytes that are looked into, or copied."""

    looks = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        self.looks += len(part) if isinstance(part, bytes) else 1
        return part


def cost_of(data):
    """Lines run in raftwal, and bytes of ``data`` looked into."""
    lines = 0
    directory = os.path.dirname(raftwal.__file__)

    def count(frame, event, argument):
        nonlocal lines
        lines += 1
        return count

    def enter(frame, event, argument):
        return count(frame, event, argument) if _is_in(frame, directory) else None

    watched = Watched(data)
    before = sys.gettrace()
    sys.settrace(enter)
    try:
        read_whole(watched)
    finally:
        sys.settrace(before)
    return lines, watched.looks


def _is_in(frame, directory):
    return frame.f_code.co_filename.startswith(directory)


@every_adversary
def test_twice_the_bytes_take_twice_the_work(make):
    small, large = make(1 << 14), make(1 << 15)
    lines, looks = cost_of(small)
    more_lines, more_looks = cost_of(large)
    print(f"{lines / len(small):.1f} lines and {looks / len(small):.1f} looks a byte")
    assert more_lines < 2.2 * lines + 1000
    assert more_looks < 2.2 * looks + 1000
    assert more_lines < MOST_LINES_A_BYTE * len(large)
    assert more_looks < MOST_LOOKS_A_BYTE * len(large)


def most_memory(make):
    is_membership = make is adversaries.huge_membership
    return MOST_MEMORY_OF_MEMBERSHIPS if is_membership else MOST_MEMORY


@every_adversary
def test_memory_is_a_small_multiple_of_the_file(make):
    data = make(1 << 16)
    tracemalloc.start()
    try:
        read_whole(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The file system in memory hands out the file itself, a disk a copy.
    multiple = (peak + len(data)) / len(data)
    print(f"{multiple:.1f} times the file")
    assert peak + len(data) < most_memory(make) * len(data) + CONSTANT_BYTES


PROGRAM = """
import sys
from raftwal import WAL, RaftwalError, Snapshotter, SnapshotMetadata
from raftwal.pysyncobj.dump import Dump
from raftwal.snapshots import SnapshotName

def most():
    # Not getrusage's figure: a process inherits that from the one that started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

before = most()
try:
    if sys.argv[1] == "log":
        WAL.open_for_read(sys.argv[2]).read_all()
    else:
        snapshot = Snapshotter(sys.argv[2]).read(SnapshotName(2, 5))
        Dump.of_snapshot(snapshot)
except RaftwalError as error:
    print(type(error).__name__, file=sys.stderr)
print(most() - before)
"""


def memory_of_process(kind, directory):
    """By how much the most memory that a process ever had grows by reading, C and all."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(raftwal.__file__))},
    )
    print(done.stderr)
    return int(done.stdout) * 1024


needs_proc = pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="the system does not tell a process's peak"
)


@needs_proc
@pytest.mark.parametrize(
    "make",
    [
        adversaries.huge_membership,
        adversaries.unknown_fields,
        adversaries.unknown_groups,
        adversaries.nested_claims,
    ],
    ids=lambda make: make.__name__,
)
def test_memory_that_protobuf_takes_counts_too(tmp_path, make):
    """The list of unknown fields that protobuf can give took 93 times the bytes they have."""
    data = make(1 << 20)
    (tmp_path / FIRST_SEGMENT).write_bytes(data)
    grown = memory_of_process("log", tmp_path)
    print(f"{grown / len(data):.1f} times the file")
    assert grown < most_memory(make) * len(data) + CONSTANT_BYTES_OF_PROCESS


def field(key, content):
    return key + varint(len(content)) + content


def snapshot_file(inner):
    return b"\x08" + varint(google_crc32c.extend(0, inner)) + field(b"\x12", inner)


METADATA = b"\x12\x06\x0a\0\x10\x05\x18\x02"


@needs_proc
@pytest.mark.parametrize(
    ("inner", "most"),
    [
        pytest.param(
            lambda n: field(b"\x0a", b"\x08\x01" + field(b"\x22", b"x" * n)), 4, id="large state"
        ),
        pytest.param(lambda n: b"\x20\0" * (n // 2), 4, id="unknown fields"),
        pytest.param(lambda n: b"\x23\x24" * (n // 2), 4, id="unknown groups"),
        pytest.param(
            lambda n: field(b"\x0a", b"\x08\x01" + b"\x2a\x02ab" * (n // 4)),
            MOST_MEMORY_OF_MEMBERSHIPS,
            id="many node names",
        ),
    ],
)
def test_memory_of_a_snapshot_file_is_a_small_multiple_too(tmp_path, inner, most):
    data = snapshot_file(inner(1 << 21) + METADATA)
    (tmp_path / "0000000000000002-0000000000000005.snap").write_bytes(data)
    grown = memory_of_process("snapshot", tmp_path)
    print(f"{grown / len(data):.1f} times the file")
    assert grown < most * len(data) + CONSTANT_BYTES_OF_PROCESS
