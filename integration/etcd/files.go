package main

import (
	"os"
	"time"
)

// purgeOnce lets etcd's purging go through the directory once.
func purgeOnce(_ *session, asked *request) (fields, error) {
	// Unbuffered: it is received only when one round is done and the next is waited for.
	stop := make(chan struct{})
	failed := purgeFile(silent, asked.Dir, asked.Suffix, uint(asked.Max), time.Hour, stop)
	select {
	case stop <- struct{}{}:
		return nil, nil
	case err := <-failed:
		return nil, err
	}
}

// tryLock takes a file's lock and lets it go again.
func tryLock(_ *session, asked *request) (fields, error) {
	locked, err := tryLockFile(asked.Path, os.O_RDWR, privateFileMode)
	if err != nil {
		return fields{"ok": false}, err
	}
	return fields{"ok": true}, locked.Close()
}

func preallocateFile(_ *session, asked *request) (fields, error) {
	file, err := os.OpenFile(asked.Path, os.O_RDWR|os.O_CREATE, privateFileMode)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := preallocate(file, asked.Size, asked.Extend); err != nil {
		return nil, err
	}
	found, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return fields{"size": found.Size()}, nil
}
