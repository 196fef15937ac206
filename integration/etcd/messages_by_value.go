//go:build etcd3_6 || etcd3_5 || etcd3_4

package main

// Up to 3.6 the messages are passed as values, and every field of theirs is written.

type (
	snapshotRecord = walSnapshot
	raftState      = raftHardState
	raftEntry      = raftpbEntry
	raftWhole      = raftSnapshot
	membership     = raftConfState
)

func stateOf(state *hardState) raftState {
	if state == nil {
		return raftState{}
	}
	return raftState{Term: state.Term, Vote: state.Vote, Commit: state.Commit}
}

func stateFrom(state raftState) *hardState {
	return &hardState{state.Term, state.Vote, state.Commit}
}

func entriesOf(entries []entry) []raftEntry {
	var made []raftEntry
	for _, from := range entries {
		made = append(made, raftEntry{
			Term:  from.Term,
			Index: from.Index,
			Type:  raftEntryType(from.Type),
			Data:  from.Data,
		})
	}
	return made
}

func entriesFrom(entries []raftEntry) []entry {
	made := make([]entry, 0, len(entries))
	for _, from := range entries {
		made = append(made, entry{from.Term, from.Index, int32(from.Type), from.Data})
	}
	return made
}

func recordsFrom(snapshots []snapshotRecord) []record {
	made := make([]record, 0, len(snapshots))
	for _, from := range snapshots {
		made = append(made, record{from.Index, from.Term, recordedMembership(from)})
	}
	return made
}

func snapshotOf(snapshot *whole) raftWhole {
	made := raftWhole{Data: snapshot.Data}
	made.Metadata.Index = snapshot.Index
	made.Metadata.Term = snapshot.Term
	if snapshot.ConfState != nil {
		made.Metadata.ConfState = *confStateOrNil(snapshot.ConfState)
	}
	return made
}

func snapshotFrom(snapshot raftWhole) *whole {
	metadata := snapshot.Metadata
	return &whole{metadata.Index, metadata.Term, confStateFrom(metadata.ConfState), snapshot.Data}
}

func snapshotFromPointer(snapshot *raftSnapshot) *whole {
	if snapshot == nil {
		return nil
	}
	return snapshotFrom(*snapshot)
}

func confStateOrNil(members *confState) *raftConfState {
	if members == nil {
		return nil
	}
	return &raftConfState{
		Voters:         members.Voters,
		Learners:       members.Learners,
		VotersOutgoing: members.VotersOutgoing,
		LearnersNext:   members.LearnersNext,
		AutoLeave:      members.AutoLeave,
	}
}

func confStateFrom(members membership) *confState {
	return &confState{
		members.Voters, members.Learners, members.VotersOutgoing, members.LearnersNext,
		members.AutoLeave,
	}
}
