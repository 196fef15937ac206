// One peer of raftwal's benchmarks: does what its arguments say, once, and prints what
// that took as one JSON object.  The arguments and the object are those of every peer, in
// any language: see ../protocol.py.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
)

type options struct {
	peer    string
	do      string
	dir     string
	data    string
	size    int
	batch   int
	count   int
	sync    bool
	threads int
	seconds float64
}

// cannot is why a peer has no figure for a case.
type cannot string

func (reason cannot) Error() string { return string(reason) }

type answer map[string]any

// entry is what every peer saves and gives back, in its own form.
type entry struct {
	index uint64
	data  []byte
}

// logWriter is a log that is open to append.
type logWriter interface {
	// prepare turns entries into the peer's own form; not measured.
	prepare(entries []entry)
	// save appends those of the prepared from one position up to another.
	save(from, to int) error
	close() error
}

// logReader gives a log's entries in order; it stops at the first error that take returns.
type logReader interface {
	readAll(dir string, take func(entry)) error
	// replay holds none of them.
	replay(dir string, take func(entry)) error
}

type peer interface {
	logReader
	open(dir string, sync bool) (logWriter, error)
	modules() []string
}

func main() {
	var given options
	flag.StringVar(&given.peer, "peer", "", "its name")
	flag.StringVar(&given.do, "do", "", "save, read, replay or checksum")
	flag.StringVar(&given.dir, "dir", "", "where the log is to be, or is")
	flag.StringVar(&given.data, "data", "", "the file that the entries' bytes are taken from")
	flag.IntVar(&given.size, "size", 128, "bytes an entry")
	flag.IntVar(&given.batch, "batch", 1, "entries a save")
	flag.IntVar(&given.count, "count", 1, "entries in all")
	flag.BoolVar(&given.sync, "sync", true, "each save is durable when it returns")
	flag.IntVar(&given.threads, "threads", 1, "that save")
	flag.Float64Var(&given.seconds, "seconds", 60, "after which it stops early")
	flag.Parse()
	said, err := do(&given)
	if reason, is := err.(cannot); is {
		said = answer{"cannot": string(reason)}
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(said)
}

func do(given *options) (answer, error) {
	made, known := peers[given.peer]
	if !known {
		return nil, fmt.Errorf("no peer %q in this program", given.peer)
	}
	block, err := os.ReadFile(given.data)
	if err != nil {
		return nil, err
	}
	// A directory of its own, which etcd wants to make itself.
	dir := filepath.Join(given.dir, "log")
	var said answer
	switch given.do {
	case "save":
		said, err = measureSaving(given, made, dir, block)
	case "read":
		said, err = measureReading(made.readAll, dir)
	case "replay":
		said, err = measureReplay(made.replay, dir)
	case "checksum":
		said = measureChecksum(given, block)
	default:
		err = fmt.Errorf("%q is nothing to do", given.do)
	}
	if err != nil {
		return nil, err
	}
	said["versions"] = versions(made.modules())
	return said, nil
}

func versions(modules []string) map[string]string {
	found := map[string]string{}
	build, _ := debug.ReadBuildInfo()
	found["Go"] = build.GoVersion
	for _, dependency := range build.Deps {
		for _, module := range modules {
			if dependency.Path == module {
				found[module] = dependency.Version
			}
		}
	}
	return found
}
