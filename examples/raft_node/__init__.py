"""A Raft node in the style of etcd's, on `raftwal.RaftStorage`."""
