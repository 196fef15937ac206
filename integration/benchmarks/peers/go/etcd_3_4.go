//go:build etcd3_4

package main

import (
	"go.etcd.io/etcd/raft/raftpb"
	"go.etcd.io/etcd/wal"
	"go.etcd.io/etcd/wal/walpb"
)

type (
	etcdLog   = wal.WAL
	etcdEntry = raftpb.Entry
)

var (
	etcdCreate      = wal.Create
	etcdOpenForRead = wal.OpenForRead
	etcdNoState     = raftpb.HardState{}
	etcdFromStart   = walpb.Snapshot{}
)

func etcdEntries(entries []entry) []etcdEntry {
	made := make([]etcdEntry, len(entries))
	for position, from := range entries {
		made[position] = raftpb.Entry{Term: 1, Index: from.index, Data: from.data}
	}
	return made
}

func entryOf(found etcdEntry) entry { return entry{found.Index, found.Data} }

func (etcd) modules() []string { return []string{"go.etcd.io/etcd"} }

var peers = map[string]peer{"etcd-3.4": etcd{}}
