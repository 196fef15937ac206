//go:build etcd3_4

package main

import (
	"go.etcd.io/etcd/etcdserver/api/snap"
	"go.etcd.io/etcd/pkg/fileutil"
	"go.etcd.io/etcd/raft"
	"go.etcd.io/etcd/raft/raftpb"
	"go.etcd.io/etcd/wal"
	"go.etcd.io/etcd/wal/walpb"
)

const releaseLine = "3.4"

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

// 3.4: a snapshot record has no membership, and reading passes over one that is there.

func snapshotRecordOf(snapshot *record) snapshotRecord {
	if snapshot == nil {
		return snapshotRecord{}
	}
	return snapshotRecord{Index: snapshot.Index, Term: snapshot.Term}
}

func recordedMembership(snapshotRecord) *confState { return nil }

// verify has no hard state to give in this release.
func verify(dir string, snapshot snapshotRecord) (*hardState, error) {
	return nil, wal.Verify(silent, dir, snapshot)
}
