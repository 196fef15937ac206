//go:build etcd3_5

package main

import (
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/raft/v3"
	"go.etcd.io/etcd/raft/v3/raftpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/wal"
	"go.etcd.io/etcd/server/v3/wal/walpb"
)

const releaseLine = "3.5"

const privateFileMode = fileutil.PrivateFileMode

type (
	walLog      = wal.WAL
	walSnapshot = walpb.Snapshot

	raftHardState = raftpb.HardState
	raftConfState = raftpb.ConfState
	raftpbEntry   = raftpb.Entry
	raftEntryType = raftpb.EntryType
	raftSnapshot  = raftpb.Snapshot

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
	walVerify               = wal.Verify

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

// reopen does what later releases do in one call.
func reopen(closing *walLog, dir string, snapshot snapshotRecord) (*walLog, error) {
	if err := closing.Close(); err != nil {
		return nil, err
	}
	return wal.Open(silent, dir, snapshot)
}
