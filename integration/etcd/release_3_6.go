//go:build etcd3_6

package main

import (
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const releaseLine = "3.6"

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

func reopen(closing *walLog, _ string, snapshot snapshotRecord) (*walLog, error) {
	return closing.Reopen(silent, snapshot)
}
