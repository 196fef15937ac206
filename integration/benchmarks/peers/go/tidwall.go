//go:build !etcd3_4

package main

import (
	"encoding/binary"

	"github.com/tidwall/wal"
)

// tidwall/wal stores bytes under an index; an entry's term and type stand before its data.
type tidwall struct{}

const headBytes = 9

type tidwallWriter struct {
	log     *wal.Log
	batch   wal.Batch
	entries []entry
	scratch []byte
}

func (tidwall) open(dir string, sync bool) (logWriter, error) {
	settings := *wal.DefaultOptions
	settings.NoSync = !sync
	log, err := wal.Open(dir, &settings)
	return &tidwallWriter{log: log}, err
}

func (writer *tidwallWriter) prepare(entries []entry) { writer.entries = entries }

func (writer *tidwallWriter) save(from, to int) error {
	writer.batch.Clear()
	for _, each := range writer.entries[from:to] {
		writer.scratch = binary.LittleEndian.AppendUint64(writer.scratch[:0], 1)
		writer.scratch = append(append(writer.scratch, 0), each.data...)
		writer.batch.Write(each.index, writer.scratch)
	}
	return writer.log.WriteBatch(&writer.batch)
}

func (writer *tidwallWriter) close() error { return writer.log.Close() }

func (tidwall) readAll(dir string, take func(entry)) error {
	log, err := wal.Open(dir, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	for index := first; index <= last; index++ {
		found, err := log.Read(index)
		if err != nil {
			return err
		}
		take(entry{index, found[headBytes:]})
	}
	return nil
}

func (peer tidwall) replay(dir string, take func(entry)) error { return peer.readAll(dir, take) }

func (tidwall) modules() []string { return []string{"github.com/tidwall/wal"} }
