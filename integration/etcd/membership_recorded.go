//go:build etcd3_6 || etcd3_5

package main

// 3.5 and 3.6: a snapshot record has the membership.

func snapshotRecordOf(snapshot *record) snapshotRecord {
	if snapshot == nil {
		return snapshotRecord{}
	}
	return snapshotRecord{
		Index:     snapshot.Index,
		Term:      snapshot.Term,
		ConfState: confStateOrNil(snapshot.ConfState),
	}
}

func recordedMembership(snapshot snapshotRecord) *confState {
	if snapshot.ConfState == nil {
		return nil
	}
	return confStateFrom(*snapshot.ConfState)
}

// verify gives the last hard state, too.
func verify(dir string, snapshot snapshotRecord) (*hardState, error) {
	state, err := walVerify(silent, dir, snapshot)
	if state == nil {
		return nil, err
	}
	return stateFrom(*state), err
}
