//go:build !etcd3_6 && !etcd3_5 && !etcd3_4

package main

// Since 3.7 the messages are passed as pointers, and their fields are pointers, too: one
// that is not set is not written.  The older releases write every field.  So that the
// same calls give the same bytes, every field is set here, also to zero.

type (
	snapshotRecord = *walSnapshot
	raftState      = *raftHardState
	raftEntry      = *raftpbEntry
	raftWhole      = *raftSnapshot
	membership     = *raftConfState
)

func stateOf(state *hardState) raftState {
	if state == nil {
		return nil
	}
	return &raftHardState{Term: &state.Term, Vote: &state.Vote, Commit: &state.Commit}
}

// stateFrom takes no state at all for an empty one, which older releases give instead.
func stateFrom(state raftState) *hardState {
	return &hardState{state.GetTerm(), state.GetVote(), state.GetCommit()}
}

func entriesOf(entries []entry) []raftEntry {
	var made []raftEntry
	for number := range entries {
		from := &entries[number]
		made = append(made, &raftpbEntry{
			Term:  &from.Term,
			Index: &from.Index,
			Type:  raftEntryType(from.Type).Enum(),
			Data:  from.Data,
		})
	}
	return made
}

func entriesFrom(entries []raftEntry) []entry {
	made := make([]entry, 0, len(entries))
	for _, from := range entries {
		made = append(made, entry{from.GetTerm(), from.GetIndex(), int32(from.GetType()), from.Data})
	}
	return made
}

func snapshotRecordOf(snapshot *record) snapshotRecord {
	if snapshot == nil {
		snapshot = &record{}
	}
	return &walSnapshot{
		Index:     &snapshot.Index,
		Term:      &snapshot.Term,
		ConfState: confStateOrNil(snapshot.ConfState),
	}
}

func recordsFrom(snapshots []snapshotRecord) []record {
	made := make([]record, 0, len(snapshots))
	for _, from := range snapshots {
		made = append(made, record{from.GetIndex(), from.GetTerm(), confStateFrom(from.ConfState)})
	}
	return made
}

func snapshotOf(snapshot *whole) raftWhole {
	members := snapshot.ConfState
	if members == nil {
		members = &confState{}
	}
	return &raftSnapshot{
		Data: snapshot.Data,
		Metadata: &raftSnapshotMetadata{
			ConfState: confStateOrNil(members),
			Index:     &snapshot.Index,
			Term:      &snapshot.Term,
		},
	}
}

func snapshotFrom(snapshot raftWhole) *whole {
	if snapshot == nil {
		return nil
	}
	metadata := snapshot.GetMetadata()
	members := confStateFrom(metadata.GetConfState())
	return &whole{metadata.GetIndex(), metadata.GetTerm(), members, snapshot.Data}
}

func snapshotFromPointer(snapshot *raftSnapshot) *whole { return snapshotFrom(snapshot) }

func confStateOrNil(members *confState) *raftConfState {
	if members == nil {
		return nil
	}
	return &raftConfState{
		Voters:         members.Voters,
		Learners:       members.Learners,
		VotersOutgoing: members.VotersOutgoing,
		LearnersNext:   members.LearnersNext,
		AutoLeave:      &members.AutoLeave,
	}
}

func confStateFrom(members membership) *confState {
	if members == nil {
		return nil
	}
	return &confState{
		members.Voters, members.Learners, members.VotersOutgoing, members.LearnersNext,
		members.GetAutoLeave(),
	}
}
