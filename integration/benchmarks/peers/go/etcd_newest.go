//go:build !etcd3_4

package main

import (
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
)

type (
	etcdLog   = wal.WAL
	etcdEntry = *raftpb.Entry
)

var (
	etcdCreate                        = wal.Create
	etcdOpenForRead                   = wal.OpenForRead
	etcdNoState     *raftpb.HardState = nil
	etcdFromStart                     = &walpb.Snapshot{Index: new(uint64), Term: new(uint64)}
)

// etcdEntries sets every field, as a Raft node does: what is not set is not written.
func etcdEntries(entries []entry) []etcdEntry {
	made := make([]etcdEntry, len(entries))
	term := uint64(1)
	for position := range entries {
		made[position] = &raftpb.Entry{
			Term:  &term,
			Index: &entries[position].index,
			Type:  raftpb.EntryNormal.Enum(),
			Data:  entries[position].data,
		}
	}
	return made
}

func entryOf(found etcdEntry) entry { return entry{found.GetIndex(), found.Data} }

func (etcd) modules() []string {
	return []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/raft/v3"}
}

var peers = map[string]peer{
	"etcd":        etcd{},
	"raft-wal":    raftWAL{},
	"raft-boltdb": raftBoltDB{},
	"tidwall":     tidwall{},
}
