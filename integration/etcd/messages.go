package main

import (
	"encoding/json"
	"fmt"
)

// The JSON on both sides.  What etcd's releases call these messages, and whether they
// pass them as values or as pointers, is in messages_by_value.go and messages_by_pointer.go.

// fields are those of an answer.
type fields map[string]any

// request has the arguments of every operation; each takes those that it needs.
type request struct {
	Op           string     `json:"op"`
	Dir          string     `json:"dir"`
	Path         string     `json:"path"`
	Metadata     []byte     `json:"metadata"`
	SegmentBytes int64      `json:"segment_bytes"`
	Snapshot     *record    `json:"snapshot"`
	Snapshots    []record   `json:"snapshots"`
	State        *hardState `json:"state"`
	Previous     *hardState `json:"previous"`
	Entries      []entry    `json:"entries"`
	EntryCount   int        `json:"entry_count"`
	Index        uint64     `json:"index"`
	Term         uint64     `json:"term"`
	ConfState    *confState `json:"conf_state"`
	Data         []byte     `json:"data"`
	Suffix       string     `json:"suffix"`
	Max          uint64     `json:"max"`
	Size         int64      `json:"size"`
	Extend       bool       `json:"extend"`
	Lo           uint64     `json:"lo"`
	Hi           uint64     `json:"hi"`
}

// record is a snapshot as the log has it: no state, and perhaps no membership.
type record struct {
	Index     uint64     `json:"index"`
	Term      uint64     `json:"term"`
	ConfState *confState `json:"conf_state"`
}

// whole is a snapshot with its state.
type whole struct {
	Index     uint64     `json:"index"`
	Term      uint64     `json:"term"`
	ConfState *confState `json:"conf_state"`
	Data      []byte     `json:"data"`
}

type hardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

type confState struct {
	Voters         []uint64 `json:"voters"`
	Learners       []uint64 `json:"learners"`
	VotersOutgoing []uint64 `json:"voters_outgoing"`
	LearnersNext   []uint64 `json:"learners_next"`
	AutoLeave      bool     `json:"auto_leave"`
}

// entry is [term, index, type, data] in JSON: there can be many.
type entry struct {
	Term  uint64
	Index uint64
	Type  int32
	Data  []byte
}

func (e entry) MarshalJSON() ([]byte, error) {
	return json.Marshal([4]any{e.Term, e.Index, e.Type, e.Data})
}

func (e *entry) UnmarshalJSON(text []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	into := []any{&e.Term, &e.Index, &e.Type, &e.Data}
	if len(parts) != len(into) {
		return fmt.Errorf("an entry of %d parts, not %d", len(parts), len(into))
	}
	for number, part := range parts {
		if err := json.Unmarshal(part, into[number]); err != nil {
			return err
		}
	}
	return nil
}
