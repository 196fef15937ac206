package main

import "bytes"

func saveSnapshotFile(_ *session, asked *request) (fields, error) {
	snapshot := &whole{asked.Index, asked.Term, asked.ConfState, asked.Data}
	return nil, snapNew(silent, asked.Dir).SaveSnap(snapshotOf(snapshot))
}

func loadSnapshotFile(_ *session, asked *request) (fields, error) {
	loaded, err := snapNew(silent, asked.Dir).Load()
	return fields{"snapshot": snapshotFromPointer(loaded)}, err
}

func loadNewestSnapshotFile(_ *session, asked *request) (fields, error) {
	vouched := make([]snapshotRecord, len(asked.Snapshots))
	for number := range asked.Snapshots {
		vouched[number] = snapshotRecordOf(&asked.Snapshots[number])
	}
	loaded, err := snapNew(silent, asked.Dir).LoadNewestAvailable(vouched)
	return fields{"snapshot": snapshotFromPointer(loaded)}, err
}

func readSnapshotFile(_ *session, asked *request) (fields, error) {
	read, err := snapRead(silent, asked.Path)
	return fields{"snapshot": snapshotFromPointer(read)}, err
}

func saveSnapshotDatabase(_ *session, asked *request) (fields, error) {
	size, err := snapNew(silent, asked.Dir).SaveDBFrom(bytes.NewReader(asked.Data), asked.Index)
	return fields{"size": size}, err
}

func snapshotDatabasePath(_ *session, asked *request) (fields, error) {
	path, err := snapNew(silent, asked.Dir).DBFilePath(asked.Index)
	return fields{"path": path}, err
}

func releaseSnapshotDatabases(_ *session, asked *request) (fields, error) {
	newest := &whole{Index: asked.Index, Term: asked.Term}
	return nil, snapNew(silent, asked.Dir).ReleaseSnapDBs(snapshotOf(newest))
}
