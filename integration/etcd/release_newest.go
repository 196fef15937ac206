//go:build !etcd3_6 && !etcd3_5 && !etcd3_4

package main

import (
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const releaseLine = "newest"

const privateFileMode = fileutil.PrivateFileMode

type (
	walLog      = wal.WAL
	walSnapshot = walpb.Snapshot

	raftHardState        = raftpb.HardState
	raftConfState        = raftpb.ConfState
	raftpbEntry          = raftpb.Entry
	raftEntryType        = raftpb.EntryType
	raftSnapshot         = raftpb.Snapshot
	raftSnapshotMetadata = raftpb.SnapshotMetadata

	memoryStorage     = raft.MemoryStorage
	raftDefaultLogger = raft.DefaultLogger
)

var (
	walCreate               = wal.Create
	walOpen                 = wal.Open
	walOpenForRead          = wal.OpenForRead
	walValidSnapshotEntries = wal.ValidSnapshotEntries
	walRepair               = wal.Repair
	walExist                = wal.Exist

	snapNew  = snap.New
	snapRead = snap.Read

	purgeFile   = fileutil.PurgeFile
	tryLockFile = fileutil.TryLockFile
	preallocate = fileutil.Preallocate

	newMemoryStorage = raft.NewMemoryStorage
	raftMustSync     = raft.MustSync
	raftSetLogger    = raft.SetLogger
)

func setSegmentBytes(size int64) { wal.SegmentSizeBytes = size }

func reopen(closing *walLog, _ string, snapshot snapshotRecord) (*walLog, error) {
	return closing.Reopen(silent, snapshot)
}

// verify gives the last hard state, too.
func verify(dir string, snapshot snapshotRecord) (*hardState, error) {
	state, err := wal.Verify(silent, dir, snapshot)
	return stateFrom(state), err
}
