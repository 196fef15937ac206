package main

import "go.uber.org/zap"

// etcd's log: the same calls in every release; what differs between them is in
// etcd_newest.go and etcd_3_4.go.
type etcd struct{}

type etcdWriter struct {
	log     *etcdLog
	entries []etcdEntry
}

var silent = zap.NewNop()

func (etcd) open(dir string, sync bool) (logWriter, error) {
	log, err := etcdCreate(silent, dir, nil)
	if err != nil {
		return nil, err
	}
	if !sync {
		log.SetUnsafeNoFsync()
	}
	return &etcdWriter{log: log}, nil
}

func (writer *etcdWriter) prepare(entries []entry) { writer.entries = etcdEntries(entries) }

func (writer *etcdWriter) save(from, to int) error {
	return writer.log.Save(etcdNoState, writer.entries[from:to])
}

func (writer *etcdWriter) close() error { return writer.log.Close() }

func (etcd) readAll(dir string, take func(entry)) error {
	log, err := etcdOpenForRead(silent, dir, etcdFromStart)
	if err != nil {
		return err
	}
	defer log.Close()
	_, _, entries, err := log.ReadAll()
	if err != nil {
		return err
	}
	for _, found := range entries {
		take(entryOf(found))
	}
	return nil
}

func (etcd) replay(string, func(entry)) error {
	return cannot("ReadAll gives all entries at once")
}
