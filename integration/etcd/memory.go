package main

import "errors"

// raft.MemoryStorage: raft's own reference of what a storage answers.

func newMemory(held *session, _ *request) (fields, error) {
	held.memory = newMemoryStorage()
	return nil, nil
}

func inMemory(perform func(*memoryStorage, *request) (fields, error)) operation {
	return func(held *session, asked *request) (fields, error) {
		if held.memory == nil {
			return nil, errors.New("memory_new comes first")
		}
		return perform(held.memory, asked)
	}
}

func memoryAppend(memory *memoryStorage, asked *request) (fields, error) {
	return nil, memory.Append(entriesOf(asked.Entries))
}

func memorySetHardState(memory *memoryStorage, asked *request) (fields, error) {
	return nil, memory.SetHardState(stateOf(asked.State))
}

func memoryApplySnapshot(memory *memoryStorage, asked *request) (fields, error) {
	snapshot := &whole{asked.Index, asked.Term, asked.ConfState, asked.Data}
	return nil, memory.ApplySnapshot(snapshotOf(snapshot))
}

func memoryCreateSnapshot(memory *memoryStorage, asked *request) (fields, error) {
	created, err := memory.CreateSnapshot(asked.Index, confStateOrNil(asked.ConfState), asked.Data)
	return fields{"snapshot": snapshotFrom(created)}, err
}

func memoryCompact(memory *memoryStorage, asked *request) (fields, error) {
	return nil, memory.Compact(asked.Index)
}

func memoryInitialState(memory *memoryStorage, _ *request) (fields, error) {
	state, membership, err := memory.InitialState()
	return fields{"state": stateFrom(state), "conf_state": confStateFrom(membership)}, err
}

func memoryEntries(memory *memoryStorage, asked *request) (fields, error) {
	entries, err := memory.Entries(asked.Lo, asked.Hi, asked.Max)
	return fields{"entries": entriesFrom(entries)}, err
}

func memoryTerm(memory *memoryStorage, asked *request) (fields, error) {
	term, err := memory.Term(asked.Index)
	return fields{"term": term}, err
}

func memoryFirstIndex(memory *memoryStorage, _ *request) (fields, error) {
	index, err := memory.FirstIndex()
	return fields{"index": index}, err
}

func memoryLastIndex(memory *memoryStorage, _ *request) (fields, error) {
	index, err := memory.LastIndex()
	return fields{"index": index}, err
}

func memorySnapshot(memory *memoryStorage, _ *request) (fields, error) {
	snapshot, err := memory.Snapshot()
	return fields{"snapshot": snapshotFrom(snapshot)}, err
}
