//go:build !etcd3_4

package main

import (
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
)

// logStore is hashicorp/raft's interface, less what is not measured.
type logStore interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	GetLog(index uint64, log *raft.Log) error
	StoreLogs(logs []*raft.Log) error
	Close() error
}

type storeWriter struct {
	store   logStore
	entries []*raft.Log
}

func (writer *storeWriter) prepare(entries []entry) {
	writer.entries = make([]*raft.Log, len(entries))
	for position, from := range entries {
		writer.entries[position] = &raft.Log{Index: from.index, Term: 1, Data: from.data}
	}
}

func (writer *storeWriter) save(from, to int) error {
	return writer.store.StoreLogs(writer.entries[from:to])
}

func (writer *storeWriter) close() error { return writer.store.Close() }

func readStore(store logStore, take func(entry)) error {
	defer store.Close()
	first, err := store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	for index := first; index <= last; index++ {
		var log raft.Log
		if err := store.GetLog(index, &log); err != nil {
			return err
		}
		take(entry{log.Index, log.Data})
	}
	return nil
}

type raftWAL struct{}

func openRaftWAL(dir string) (logStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return wal.Open(dir, wal.WithLogger(hclog.NewNullLogger()))
}

func (raftWAL) open(dir string, sync bool) (logWriter, error) {
	if !sync {
		return nil, cannot("it has no setting to leave syncs out")
	}
	store, err := openRaftWAL(dir)
	return &storeWriter{store: store}, err
}

func (raftWAL) readAll(dir string, take func(entry)) error {
	store, err := openRaftWAL(dir)
	if err != nil {
		return err
	}
	return readStore(store, take)
}

func (raft raftWAL) replay(dir string, take func(entry)) error { return raft.readAll(dir, take) }

func (raftWAL) modules() []string {
	return []string{"github.com/hashicorp/raft-wal", "github.com/hashicorp/raft"}
}

type raftBoltDB struct{}

func openBoltDB(dir string, sync bool) (logStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return boltdb.New(boltdb.Options{Path: filepath.Join(dir, "raft.db"), NoSync: !sync})
}

func (raftBoltDB) open(dir string, sync bool) (logWriter, error) {
	store, err := openBoltDB(dir, sync)
	return &storeWriter{store: store}, err
}

func (raftBoltDB) readAll(dir string, take func(entry)) error {
	store, err := openBoltDB(dir, true)
	if err != nil {
		return err
	}
	return readStore(store, take)
}

func (raft raftBoltDB) replay(dir string, take func(entry)) error { return raft.readAll(dir, take) }

func (raftBoltDB) modules() []string {
	return []string{"github.com/hashicorp/raft-boltdb/v2", "go.etcd.io/bbolt"}
}
