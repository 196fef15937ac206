package main

import (
	"hash/crc32"
	"time"
)

// Of so many entries one is compared: enough to tell another log, too few to be felt.
const digestEvery = 997

type seen struct {
	entries int
	bytes   int
	digest  uint32
}

func (so *seen) take(found entry) {
	so.entries++
	so.bytes += len(found.data)
	if found.index%digestEvery == 1 {
		so.digest = crc32.Update(so.digest, crc32.IEEETable, found.data)
	}
}

type reading = func(dir string, take func(entry)) error

// measureReading has all entries held, as a node does, and looks at them afterwards.
func measureReading(read reading, dir string) (answer, error) {
	var entries []entry
	said, err := measured(func() error {
		return read(dir, func(found entry) { entries = append(entries, found) })
	})
	if err != nil {
		return nil, err
	}
	var so seen
	for _, found := range entries {
		so.take(found)
	}
	return so.tell(said), nil
}

// measureReplay looks at each entry and lets it go.
func measureReplay(read reading, dir string) (answer, error) {
	var so seen
	said, err := measured(func() error { return read(dir, so.take) })
	if err != nil {
		return nil, err
	}
	return so.tell(said), nil
}

func (so *seen) tell(said answer) answer {
	said["entries"] = so.entries
	said["bytes"] = so.bytes
	said["digest"] = so.digest
	return said
}

func measured(read func() error) (answer, error) {
	memory := startMemory()
	before, started := cpuSeconds(), time.Now()
	if err := read(); err != nil {
		return nil, err
	}
	said := answer{
		"seconds": time.Since(started).Seconds(),
		"cpu":     cpuSeconds() - before,
	}
	memory.tell(said)
	return said, nil
}
