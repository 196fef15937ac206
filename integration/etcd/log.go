package main

import (
	"errors"

	"go.uber.org/zap"
)

var silent = zap.NewNop()

func createLog(held *session, asked *request) (fields, error) {
	if held.log != nil {
		return nil, errors.New("a log is open already")
	}
	setSegmentBytes(asked.SegmentBytes)
	created, err := walCreate(silent, asked.Dir, asked.Metadata)
	if err == nil {
		held.log, held.dir = created, asked.Dir
	}
	return nil, err
}

// openLog opens a log to append and reads it; it stays open unless one of them fails.
func openLog(held *session, asked *request) (fields, error) {
	if held.log != nil {
		return nil, errors.New("a log is open already")
	}
	setSegmentBytes(asked.SegmentBytes)
	opened, err := walOpen(silent, asked.Dir, snapshotRecordOf(asked.Snapshot))
	if err != nil {
		return nil, err
	}
	held.dir = asked.Dir
	return readToAppend(held, opened)
}

func reopenLog(held *session, asked *request) (fields, error) {
	if held.log == nil {
		return nil, errNothingOpen
	}
	closing := held.log
	held.log = nil
	reopened, err := reopen(closing, held.dir, snapshotRecordOf(asked.Snapshot))
	if err != nil {
		return nil, err
	}
	return readToAppend(held, reopened)
}

func readToAppend(held *session, opened *walLog) (fields, error) {
	// Closed after a panic, too: its locks would keep everybody else out.
	defer func() {
		if held.log != opened {
			opened.Close()
		}
	}()
	answer, err := dump(opened)
	if err == nil {
		held.log = opened
	}
	return answer, err
}

// dump is all that ReadAll gives, also what it gives beside an error.
func dump(opened *walLog) (fields, error) {
	metadata, state, entries, err := opened.ReadAll()
	return fields{
		"metadata": metadata,
		"state":    stateFrom(state),
		"entries":  entriesFrom(entries),
	}, err
}

func saveToLog(held *session, asked *request) (fields, error) {
	if held.log == nil {
		return nil, errNothingOpen
	}
	return nil, held.log.Save(stateOf(asked.State), entriesOf(asked.Entries))
}

func saveSnapshotRecord(held *session, asked *request) (fields, error) {
	if held.log == nil {
		return nil, errNothingOpen
	}
	saved := &record{asked.Index, asked.Term, asked.ConfState}
	return nil, held.log.SaveSnapshot(snapshotRecordOf(saved))
}

func syncLog(held *session, _ *request) (fields, error) {
	if held.log == nil {
		return nil, errNothingOpen
	}
	return nil, held.log.Sync()
}

func releaseLocks(held *session, asked *request) (fields, error) {
	if held.log == nil {
		return nil, errNothingOpen
	}
	return nil, held.log.ReleaseLockTo(asked.Index)
}

func closeLog(held *session, _ *request) (fields, error) {
	if held.log == nil {
		return nil, errNothingOpen
	}
	closing := held.log
	held.log = nil
	return nil, closing.Close()
}

func readLog(_ *session, asked *request) (fields, error) {
	opened, err := walOpenForRead(silent, asked.Dir, snapshotRecordOf(asked.Snapshot))
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return dump(opened)
}

func verifyLog(_ *session, asked *request) (fields, error) {
	state, err := verify(asked.Dir, snapshotRecordOf(asked.Snapshot))
	return fields{"state": state}, err
}

func validSnapshots(_ *session, asked *request) (fields, error) {
	snapshots, err := walValidSnapshotEntries(silent, asked.Dir)
	return fields{"snapshots": recordsFrom(snapshots)}, err
}

func repairLog(_ *session, asked *request) (fields, error) {
	return fields{"ok": walRepair(silent, asked.Dir)}, nil
}

func logExists(_ *session, asked *request) (fields, error) {
	return fields{"ok": walExist(asked.Dir)}, nil
}

func mustSync(_ *session, asked *request) (fields, error) {
	must := raftMustSync(stateOf(asked.State), stateOf(asked.Previous), asked.EntryCount)
	return fields{"must_sync": must}, nil
}
