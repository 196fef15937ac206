// Drives one release of etcd's own storage packages for a test: one JSON request a line
// on standard input, one JSON answer a line on standard output.
//
// Bytes are base64; null is no bytes at all, "" is zero of them, as on disk.  Whatever
// goes wrong is in the answer's "error", a panic of etcd's with "panic: " before it.
// When standard input ends the program ends, without closing a log that is open: what
// etcd keeps back in memory is then lost, as in a crash.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	silenceRaft()
	held := &session{}
	requests := bufio.NewReader(os.Stdin)
	answers := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(answers)
	encoder.SetEscapeHTML(false)
	for {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := encoder.Encode(answerTo(held, line)); err != nil {
			log.Fatal(err)
		}
		if err := answers.Flush(); err != nil {
			log.Fatal(err)
		}
	}
}

// silenceRaft keeps raft from writing to standard error what the answer says anyway.
func silenceRaft() {
	raftSetLogger(&raftDefaultLogger{Logger: log.New(io.Discard, "", 0)})
}

// answerTo performs the request in line; the answer always has an "error", often null.
func answerTo(held *session, line []byte) (answer fields) {
	defer func() {
		if caught := recover(); caught != nil {
			answer = fields{"error": fmt.Sprintf("panic: %v", caught)}
		}
	}()
	var asked request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return fields{"error": fmt.Sprintf("not a request: %v", err)}
	}
	perform, ok := operations[asked.Op]
	if !ok {
		return fields{"error": fmt.Sprintf("not an operation: %q", asked.Op)}
	}
	answer, err := perform(held, &asked)
	if answer == nil {
		answer = fields{}
	}
	answer["error"] = nil
	if err != nil {
		answer["error"] = err.Error()
	}
	return answer
}

// session is what stays open from one request to the next.
type session struct {
	log    *walLog
	dir    string // the log's
	memory *memoryStorage
}

type operation func(*session, *request) (fields, error)

var operations = map[string]operation{
	"release_line": func(*session, *request) (fields, error) {
		return fields{"release_line": releaseLine}, nil
	},

	"create":          createLog,
	"open":            openLog,
	"reopen":          reopenLog,
	"save":            saveToLog,
	"snapshot":        saveSnapshotRecord,
	"sync":            syncLog,
	"release":         releaseLocks,
	"close":           closeLog,
	"read":            readLog,
	"verify":          verifyLog,
	"valid_snapshots": validSnapshots,
	"repair":          repairLog,
	"exist":           logExists,

	"snap_save":        saveSnapshotFile,
	"snap_load":        loadSnapshotFile,
	"snap_load_newest": loadNewestSnapshotFile,
	"snap_read":        readSnapshotFile,
	"snap_db_save":     saveSnapshotDatabase,
	"snap_db_path":     snapshotDatabasePath,
	"snap_db_release":  releaseSnapshotDatabases,

	"purge":       purgeOnce,
	"try_lock":    tryLock,
	"preallocate": preallocateFile,
	"must_sync":   mustSync,

	"memory_new":             newMemory,
	"memory_append":          inMemory(memoryAppend),
	"memory_set_hard_state":  inMemory(memorySetHardState),
	"memory_apply_snapshot":  inMemory(memoryApplySnapshot),
	"memory_create_snapshot": inMemory(memoryCreateSnapshot),
	"memory_compact":         inMemory(memoryCompact),
	"memory_initial_state":   inMemory(memoryInitialState),
	"memory_entries":         inMemory(memoryEntries),
	"memory_term":            inMemory(memoryTerm),
	"memory_first_index":     inMemory(memoryFirstIndex),
	"memory_last_index":      inMemory(memoryLastIndex),
	"memory_snapshot":        inMemory(memorySnapshot),
}

var errNothingOpen = errors.New("no log is open")
