"""Native saves, as the system sees them: its own account of the calls, and faults in them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from injected_faults import command, require_ptrace

import raftwal
from raftwal import WAL

BEGINNING = """
    import os, sys, threading
    from raftwal import WAL, Entry, HardState
    from raftwal.errors import WriteFailedError
    log = WAL.create(sys.argv[1], preallocation="reserve")
    log.save(HardState(1, 1, 0), [Entry(1, 1, b"")])
    assert log._tail.takes_saves
"""


@pytest.fixture
def run(tmp_path):
    """Runs a program under ``strace``; gives what it printed, and the calls that it made."""
    require_ptrace()

    def run_with(program, *faults):
        trace = tmp_path / "trace"
        done = subprocess.run(
            [
                *command(trace, faults, "write"),
                *(sys.executable, "-c"),
                textwrap.dedent(BEGINNING) + textwrap.dedent(program),
                str(tmp_path / "log"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        lines = trace.read_text().splitlines()
        return done.stdout.splitlines(), [line.split(None, 1)[1] for line in lines]

    return run_with


def test_a_save_is_written_and_synced_before_it_returns(run):
    printed, calls = run("""
        for index in range(2, 12):
            log.save(HardState(1, 1, index - 1), [Entry(1, index, b"x" * 100)])
            os.write(1, b"saved\\n")
        assert log._tail.takes_saves
    """)
    assert printed == ["saved"] * 10
    names = [call.split("(")[0] for call in calls if ".wal>" in call or '"' in call]
    told = [place for place, name in enumerate(names) if name == "write"]
    assert len(told) == 10
    for place in told:
        assert names[place - 2 : place] == ["pwrite64", "fdatasync"]


def test_threads_share_a_sync_and_none_returns_before_it(run):
    """While one sync takes long, the others' records gather for the next."""
    printed, calls = run(
        """
        def save():
            log.save_next(lambda index: [Entry(1, index, b"")])
            os.write(1, b"saved\\n")

        threads = [threading.Thread(target=save) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log._tail.takes_saves
        """,
        "fdatasync:delay_enter=300000",
    )
    assert printed == ["saved"] * 16
    begun = [place for place, call in enumerate(calls) if "fdatasync(" in call]
    told = [place for place, call in enumerate(calls) if call.startswith("write(1")]
    assert 3 <= len(begun) <= 6, "one of the log's making, one of its first entry, then two or so"
    assert begun[1] < told[0]


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_when_a_call_fails_all_who_share_it_are_told(run, tmp_path, call):
    # The log's making and its first entry have some before.
    printed, _ = run(
        """
        together = threading.Barrier(8)
        told = []

        def save():
            together.wait()
            try:
                while True:
                    log.save_next(lambda index: [Entry(1, index, b"%d" % index)])
            except WriteFailedError as error:
                told.append(error)

        threads = [threading.Thread(target=save) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(told), any("No space left" in str(error) for error in told))
        log.close()
        """,
        f"{call}:error=ENOSPC:when=40",
    )
    assert printed == ["8 True"]
    raftwal.repair(tmp_path / "log")
    with WAL.open_for_read(tmp_path / "log") as reader:
        found = reader.read_all().entries
    assert len(found) > 1
    assert [entry.data for entry in found[1:]] == [b"%d" % entry.index for entry in found[1:]]
