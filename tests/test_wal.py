"""The log: create, open, save, cut, release."""

import errno
import gc
import os
import stat

import pytest
from directories import (
    FIRST_SEGMENT,
    contents_of,
    entries,
    make_log,
    open_and_read,
    read,
    segment_name,
)
from implementations import saves_in_python
from watched_disk import Failing, WatchedDisk

import raftwal
from raftwal import WAL, ConfState, Entry, EntryType, HardState, SnapshotMetadata
from raftwal.errors import (
    ClosedError,
    LockedError,
    NotReadYetError,
    SnapshotNotFoundError,
    WriteFailedError,
)
from raftwal.testing import InlineExecutor
from raftwal.wal.purging import purge_segments
from raftwal.wire.frames import HARD_STATE, decode_record


def segments_of(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def disk():
    return WatchedDisk()


@pytest.fixture
def wal(log, disk):
    with WAL.create(log, b"node 1", segment_bytes=4096, fs=disk, executor=InlineExecutor()) as wal:
        yield wal


def test_what_was_saved_is_read_back(log):
    saved = [
        Entry(1, 1, b"data"),
        Entry(1, 2, b""),
        Entry(1, 3),
        Entry(2, 4, b"\0" * 10, EntryType.CONF_CHANGE_V2),
        Entry((1 << 64) - 1, 5, b"the highest term"),
    ]
    state = HardState((1 << 64) - 1, (1 << 64) - 2, 4)
    with WAL.create(log, b"node 1", segment_bytes=4096) as wal:
        wal.save(None, saved)
        wal.save_snapshot(SnapshotMetadata(3, 1, ConfState((1, 2), (3,), (4,), (5,), True)))
        wal.save(state, [])
        assert (wal.hard_state, wal.last_index, wal.failure) == (state, 5, None)
    for contents in (read(log), open_and_read(log)):
        assert contents.metadata == b"node 1"
        assert contents.entries == saved
        assert [type(entry.type) for entry in contents.entries] == [EntryType] * 5
        assert contents.hard_state == state
        assert contents.snapshots == [
            SnapshotMetadata(0, 0),
            SnapshotMetadata(3, 1, ConfState((1, 2), (3,), (4,), (5,), True)),
        ]
        assert contents.torn_tail is None


def test_no_metadata_and_empty_metadata_differ(tmp_path):
    for name, metadata in (("none", None), ("empty", b"")):
        WAL.create(tmp_path / name, metadata, segment_bytes=4096).close()
        assert read(tmp_path / name).metadata == metadata


def test_saving_goes_on_after_reopening(log):
    make_log(log, 3)
    with WAL.open(log, segment_bytes=4096) as wal:
        assert wal.read_all().entries == entries(1, 3)
        assert wal.last_index == 3
        wal.save(None, entries(4, 5))
    assert read(log).entries == entries(1, 5)


def test_later_entry_replaces_an_earlier_one_and_what_follows_it(log):
    with WAL.create(log, segment_bytes=4096) as wal:
        wal.save(None, entries(1, 6))
        wal.save(HardState(2, 7, 2), entries(4, 4, term=2))
        assert wal.last_index == 4
    assert read(log).entries == entries(1, 3) + entries(4, 4, term=2)


def test_reading_from_a_snapshot_skips_what_it_covers(log):
    with WAL.create(log, segment_bytes=4096) as wal:
        wal.save(HardState(1, 7, 6), entries(1, 6))
        wal.save_snapshot(SnapshotMetadata(4, 1))
    with WAL.open_for_read(log, SnapshotMetadata(4, 1)) as reader:
        assert reader.read_all().entries == entries(5, 6)
    assert raftwal.verify(log, SnapshotMetadata(4, 1)).entries == 2


def test_snapshots_above_the_commit_index_are_not_vouched_for(log):
    with WAL.create(log, segment_bytes=4096) as wal:
        wal.save(HardState(1, 7, 3), entries(1, 6))
        wal.save_snapshot(SnapshotMetadata(3, 1))
        wal.save_snapshot(SnapshotMetadata(5, 1))
    assert raftwal.valid_snapshots(log) == [SnapshotMetadata(0, 0), SnapshotMetadata(3, 1)]


def test_create_where_something_is(tmp_path, log):
    make_log(log)
    before = contents_of(log)
    with pytest.raises(FileExistsError):
        WAL.create(log)
    assert contents_of(log) == before
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        WAL.create(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    WAL.create(tmp_path / "empty", segment_bytes=512).close()
    with pytest.raises(ValueError, match="segment_bytes"):
        WAL.create(tmp_path / "other", segment_bytes=0)


def test_left_over_of_an_interrupted_creation_is_thrown_away(tmp_path, log):
    left_over = tmp_path / "log.tmp"
    left_over.mkdir()
    (left_over / segment_name(0, 0)).write_bytes(b"half a segment")
    (left_over / "0.tmp").touch()
    WAL.create(log, b"node 1", segment_bytes=4096).close()
    assert not left_over.exists()
    assert read(log).metadata == b"node 1"


def test_creation_is_synced_before_it_gets_its_name(log, disk, wal):
    made = disk.calls[: disk.calls.index(("create", "0.tmp"))]
    calls = [(call, name) for call, name in made if call.startswith(("sync", "rename"))]
    assert calls[-4:] == [
        ("sync", FIRST_SEGMENT),
        ("sync_directory", "log.tmp"),
        ("rename", "log.tmp"),
        ("sync_directory", log.parent.name),
    ]


def test_modes(log):
    """Only the node's own user may look: 0600 and 0700, whatever the usual mode is."""
    old = os.umask(0)
    try:
        make_log(log / "deeper", 30, segment_bytes=512)
    finally:
        os.umask(old)
    for path in (log, log / "deeper"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    files = list((log / "deeper").iterdir())
    assert len(files) > 2
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def calls_during(disk, action):
    disk.calls.clear()
    action()
    return [call for call, _ in disk.calls]


def test_save_is_one_write_and_one_data_sync(wal, disk):
    """Written, then synced, before the call returns."""
    save = ["write", "sync_data"]
    assert calls_during(disk, lambda: wal.save(HardState(1, 7, 0), entries(1, 3))) == save
    assert calls_during(disk, lambda: wal.save(None, entries(4, 4))) == save
    assert calls_during(disk, lambda: wal.save(HardState(2, 7, 0))) == save
    assert calls_during(disk, lambda: wal.save(HardState(2, 8, 0))) == save
    assert calls_during(disk, lambda: wal.save_snapshot(SnapshotMetadata(1, 1))) == save


def test_save_that_only_moves_the_commit_index_waits_for_the_next(log, wal, disk):
    """Nothing is lost by losing it: the commit index is learned again from the leader."""
    wal.save(HardState(1, 7, 0), entries(1, 3))
    assert calls_during(disk, lambda: wal.save(HardState(1, 7, 2))) == []
    assert read(log).hard_state == HardState(1, 7, 0)
    assert wal.hard_state == HardState(1, 7, 2)
    assert calls_during(disk, lambda: wal.save(None, entries(4, 4))) == ["write", "sync_data"]
    assert read(log).hard_state == HardState(1, 7, 2)
    wal.save(HardState(1, 7, 3))
    assert calls_during(disk, wal.flush) == ["write"]
    wal.save(HardState(1, 7, 4))
    assert calls_during(disk, wal.sync) == ["write", "sync_data"]


def test_save_of_nothing_does_nothing(wal, disk):
    for state in (None, HardState()):
        assert calls_during(disk, lambda state=state: wal.save(state, [])) == []


def test_entries_may_come_from_an_iterator(log, wal):
    wal.save(None, iter(entries(1, 3)))
    assert read(log).entries == entries(1, 3)


def test_cut_names_and_headers(log):
    """Consecutive numbers, the index of the next entry, the hard state in each header."""
    with WAL.create(log, b"node 1", segment_bytes=512) as wal:
        for entry in entries(1, 12, size=150):
            wal.save(HardState(1, 7, entry.index - 1), [entry])
    names = segments_of(log)
    assert len(names) >= 3
    for sequence, name in enumerate(names):
        index = int(name[17:33], 16)
        assert name == segment_name(sequence, index)
        data = (log / name).read_bytes()
        if sequence:
            # A CRC record of 24 bytes at most, metadata of 24, then the hard state.
            states = [
                decode_record(data, at + 8, at + 8 + data[at])
                for at in range(0, 72, 8)
                if data[at + 8 : at + 10] == bytes((8, HARD_STATE))
            ]
            assert states
            assert states[0].data == bytes((8, 1, 16, 7, 24, index - 2))
        if sequence < len(names) - 1:
            assert (len(data) >= 512) and data.rstrip(b"\0")
    assert read(log).entries == entries(1, 12, size=150)


def test_cut_after_reopening_keeps_the_hard_state(log):
    """With earlier segments gone, the new one alone still says the term and the vote."""
    with WAL.create(log, segment_bytes=512) as wal:
        wal.save(HardState(3, 7, 0), entries(1, 1, term=3))
    with WAL.open(log, segment_bytes=512) as wal:
        wal.read_all()
        wal.save(None, entries(2, 2, term=3, size=600))
        wal.save(None, entries(3, 3, term=3))
        wal.save(None, entries(4, 5, term=3))
        wal.save_snapshot(SnapshotMetadata(4, 3))
    assert len(segments_of(log)) == 2
    (log / FIRST_SEGMENT).unlink()
    with WAL.open(log, SnapshotMetadata(4, 3), segment_bytes=512) as wal:
        contents = wal.read_all()
    assert contents.hard_state == HardState(3, 7, 0)
    assert contents.entries == entries(5, 5, term=3)


def test_cut_after_entries_of_a_term_that_no_hard_state_said_yet(log):
    """The new segment repeats the old hard state; that is no contradiction."""
    with WAL.create(log, segment_bytes=512) as wal:
        wal.save(HardState(1, 7, 0), entries(1, 1))
        wal.save(None, entries(2, 2, term=2, size=600))
        wal.save(None, entries(3, 3, term=2))
    assert len(segments_of(log)) == 2
    assert read(log).hard_state == HardState(1, 7, 0)
    assert [entry.term for entry in read(log).entries] == [1, 2, 2]


def test_cut_is_durable_before_the_new_segment_gets_its_name(wal, disk):
    disk.calls.clear()
    for entry in entries(1, 20, size=400):
        wal.save(None, [entry])
    renamed = disk.calls.index(("rename", "0.tmp"))
    calls = disk.calls[:renamed]
    assert calls[calls.index(("truncate", FIRST_SEGMENT)) + 1] == ("sync", FIRST_SEGMENT)
    assert calls.index(("sync", FIRST_SEGMENT)) < calls.index(("write", "0.tmp"))
    assert calls[-1] == ("sync_data", "0.tmp")
    assert disk.calls[renamed + 1] == ("sync_directory", "log")


def test_segment_being_prepared_is_gone_after_close(log):
    with WAL.create(log, segment_bytes=512):
        pass
    assert segments_of(log) == [FIRST_SEGMENT]


def test_left_over_of_a_preparation_is_ignored_and_cleared(log):
    """etcd reuses one without clearing it, records of another log and all."""
    make_log(log, 3)
    for name in ("0.tmp", "1.tmp"):
        (log / name).write_bytes((log / FIRST_SEGMENT).read_bytes())
    with WAL.open(log, segment_bytes=512) as wal:
        assert wal.read_all().entries == entries(1, 3)
        for entry in entries(4, 20, size=100):
            wal.save(None, [entry])
    assert read(log).entries == entries(1, 3) + entries(4, 20, size=100)


def test_released_segments_can_be_purged_by_another(log):
    """All that hold nothing above the index go, but for the last of them."""
    with WAL.create(log, segment_bytes=512) as wal:
        for entry in entries(1, 20, size=150):
            wal.save(HardState(1, 7, entry.index), [entry])
        names = [name for name in segments_of(log) if name.endswith(".wal")]
        firsts = [int(name[17:33], 16) for name in names]
        assert purge_segments(WatchedDisk(), str(log), 1) == 0, "all are locked"
        index = firsts[-2] + 1
        wal.save_snapshot(SnapshotMetadata(index, 1))
        wal.release_to(index)
        assert purge_segments(WatchedDisk(), str(log), 1) == len(names) - 2
        with WAL.open_for_read(log, SnapshotMetadata(index, 1)) as reader:
            assert [entry.index for entry in reader.read_all().entries] == [*range(index + 1, 21)]
        with pytest.raises(LockedError):
            WAL.open(log, SnapshotMetadata(index, 1))


def test_purge_keeps_as_many_as_it_is_told(log):
    make_log(log, 40, segment_bytes=512)
    count = len(segments_of(log))
    assert purge_segments(WatchedDisk(), str(log), 3) == count - 3
    assert len(segments_of(log)) == 3
    assert purge_segments(WatchedDisk(), str(log), 3) == 0


def test_other_files_are_ignored(log):
    make_log(log, 3)
    for name in ("notes.txt", f"{segment_name(9, 9)}.broken", "000-000.wal"):
        (log / name).write_text("not a segment")
    assert read(log).entries == entries(1, 3)


def test_repair_sets_the_whole_segment_aside_first(log):
    make_log(log, 5)
    segment = log / FIRST_SEGMENT
    for copy in (f"{FIRST_SEGMENT}.broken", f"{FIRST_SEGMENT}.1.broken"):
        torn = segment.read_bytes().rstrip(b"\0")[:-9]
        segment.write_bytes(torn)
        report = raftwal.repair(log)
        assert report.repaired
        assert report.segment == str(segment)
        assert report.set_aside == str(log / copy)
        assert report.offset == segment.stat().st_size
        assert report.removed_bytes == len(torn) - report.offset > 0
        assert (log / copy).read_bytes() == torn
    assert not raftwal.repair(log).repaired


def test_repair_is_durable_and_its_copy_is_before_the_cut(log, disk):
    make_log(log, 5)
    segment = log / FIRST_SEGMENT
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-9])
    raftwal.repair(log, fs=disk)
    assert [call for call in disk.calls if call[0].startswith(("sync", "truncate"))] == [
        ("sync", f"{FIRST_SEGMENT}.broken"),
        ("sync_directory", "log"),
        ("truncate", FIRST_SEGMENT),
        ("sync", FIRST_SEGMENT),
    ]


def test_repair_refuses_a_log_in_use(log):
    make_log(log, 5)
    segment = log / FIRST_SEGMENT
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-9])
    with WAL.open(log), pytest.raises(LockedError):
        raftwal.repair(log)
    assert segments_of(log) == [FIRST_SEGMENT]


def test_calls_in_the_wrong_order(log):
    make_log(log, 3)
    wal = WAL.open(log, segment_bytes=4096)
    with pytest.raises(NotReadYetError):
        wal.save(None, entries(4, 4))
    wal.read_all()
    with pytest.raises(ClosedError):
        wal.read_all()
    wal.close()
    wal.close()
    for call in (wal.read_all, wal.sync, lambda: wal.save(None, entries(4, 4))):
        with pytest.raises(ClosedError):
            call()


def test_context_manager_closes_and_unlocks_whatever_happens(log):
    with pytest.raises(RuntimeError), WAL.create(log, segment_bytes=4096) as wal:
        wal.save(HardState(1, 7, 0), entries(1, 2))
        wal.save(HardState(1, 7, 1))
        raise RuntimeError
    assert open_and_read(log).hard_state == HardState(1, 7, 1)


def test_failed_read_lets_go_of_the_lock_when_closed(log):
    make_log(log, 3)
    with WAL.open(log, SnapshotMetadata(2, 1)) as wal, pytest.raises(SnapshotNotFoundError):
        wal.read_all()
    open_and_read(log)


def test_wal_exists(tmp_path, log):
    assert not raftwal.wal_exists(log)
    assert not raftwal.wal_exists(tmp_path)
    make_log(log)
    assert raftwal.wal_exists(log)


def test_the_calls_of_etcds_own_recovery_test_are_accepted_and_read_back(tmp_path):
    """A hard state may come after entries of later terms; the last one wins."""
    with WAL.create(tmp_path / "log", b"metadata") as log:
        log.save_snapshot(SnapshotMetadata(0, 0))
        log.save(HardState(), [Entry(1, 1, b"\1"), Entry(2, 2, b"\2")])
        log.save(HardState(1, 1, 1))
        log.save(HardState(2, 2, 2))
    contents = WAL.open_for_read(tmp_path / "log").read_all()
    assert contents.entries == [Entry(1, 1, b"\1"), Entry(2, 2, b"\2")]
    assert contents.hard_state == HardState(2, 2, 2)


def test_entries_at_index_0_are_written_and_skipped_as_etcd_does(tmp_path):
    with WAL.create(tmp_path / "log") as log:
        for index in range(5):
            log.save(HardState(), [Entry(0, index)])
    contents = WAL.open_for_read(tmp_path / "log").read_all()
    assert [entry.index for entry in contents.entries] == [1, 2, 3, 4]


def test_an_interrupt_in_the_middle_of_a_save_is_final(tmp_path, monkeypatch):
    """Half of a save's bookkeeping would break the checksum chain of the next one."""
    with saves_in_python():
        log = WAL.create(tmp_path / "log")
    log.save(HardState(1, 1, 0), [Entry(1, 1, b"kept")])

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log._appender, "_queue", interrupt)
        with pytest.raises(KeyboardInterrupt):
            log.save(HardState(1, 1, 1), [Entry(1, 2, b"interrupted")])
    with pytest.raises(WriteFailedError):
        log.save(HardState(1, 1, 1), [Entry(1, 2, b"after")])
    log.close()
    assert len(WAL.open_for_read(tmp_path / "log").read_all().entries) == 1


def test_a_read_that_overlaps_an_append_is_not_called_corruption(tmp_path):
    """One page of the file can be read before a write, and a later one after it."""
    with WAL.create(tmp_path / "log", segment_bytes=1 << 16) as log:
        log.save(HardState(1, 1, 0), [Entry(1, 1, b"x" * 300)])
        segment = next((tmp_path / "log").glob("*.wal"))
        before = segment.read_bytes()
        for index in range(2, 40):
            log.save(HardState(1, 1, index - 1), [Entry(1, index, b"x" * 300)])
        after = segment.read_bytes()
        mixed = before[:4096] + after[4096:]
        reads = []

        class Overlapping(WatchedDisk):
            def __getattr__(self, name):
                call = super().__getattr__(name)
                if name != "open_read_only":
                    return call

                def open_read_only(path):
                    file = call(path)
                    reads.append(path)
                    if len(reads) == 1:
                        file._file.read = lambda offset, length: mixed[offset : offset + length]
                    return file

                return open_read_only

        contents = WAL.open_for_read(tmp_path / "log", fs=Overlapping()).read_all()
        assert len(reads) == 2
        assert len(contents.entries) == 39
        assert contents.torn_tail is None


def test_a_relative_path_outlives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with WAL.create("log", segment_bytes=200) as log:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        for index in range(1, 10):
            log.save(HardState(1, 1, 0), [Entry(1, index, b"x" * 100)])
    assert len(WAL.open_for_read(tmp_path / "log").read_all().entries) == 9


def test_a_log_dropped_without_close_gives_its_lock_back(tmp_path):
    WAL.create(tmp_path / "log").save(HardState(1, 1, 0))
    gc.collect()
    with WAL.open(tmp_path / "log") as log:
        log.read_all()


def test_a_log_is_reopened_from_a_snapshot_with_its_settings(tmp_path):
    wal = WAL.create(tmp_path / "log", b"m", segment_bytes=300, executor=InlineExecutor())
    wal.save(HardState(1, 1, 5), entries(1, 5))
    wal.save_snapshot(SnapshotMetadata(3, 1))
    again = wal.reopen(SnapshotMetadata(3, 1))
    with pytest.raises(ClosedError):
        wal.sync()
    assert again.read_all().entries == entries(4, 5)
    for entry in entries(6, 20):
        again.save(None, [entry])
    assert len(segments_of(tmp_path / "log")) > 2
    with again.reopen() as whole:
        assert whole.read_all().entries == entries(1, 20)


def test_a_log_that_failed_is_reopened_as_a_restart_would(log, wal, disk):
    """Nothing is synced again on the way: what is on disk decides."""
    disk.before = Failing(errno.EIO, calls=("sync_data",))
    with pytest.raises(WriteFailedError):
        wal.save(HardState(1, 1, 0), entries(1, 1))
    calls = len(disk.calls)
    with wal.reopen() as again:
        assert not {call for call, _ in disk.calls[calls:]} & {"sync_data", "sync"}
        assert again.read_all().entries == entries(1, 1)


@pytest.mark.parametrize(
    ("state", "count", "is_promise"),
    [
        (HardState(1, 2, 3), 0, False),
        (HardState(1, 2, 9), 0, False),
        (HardState(1, 2, 3), 1, True),
        (HardState(2, 2, 3), 0, True),
        (HardState(1, 5, 3), 0, True),
    ],
)
def test_what_must_be_durable_before_a_message_leaves(state, count, is_promise):
    """Entries, a term, a vote; a commit index alone is no promise."""
    assert raftwal.must_sync(state, HardState(1, 2, 3), count) == is_promise


def test_what_is_saved_behind_several_received_snapshots_can_be_read_back(tmp_path):
    """Writer and reader keep one history: what the one accepts the other does, too."""
    with WAL.create(tmp_path / "log", segment_bytes=1 << 16) as wal:
        wal.save(HardState(1, 1, 0), entries(1, 3))
        wal.save_snapshot(SnapshotMetadata(10, 5))
        wal.save_snapshot(SnapshotMetadata(8, 7))
        wal.save(HardState(5, 1, 3))
    assert read(tmp_path / "log").hard_state == HardState(5, 1, 3)
