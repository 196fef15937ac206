//go:build tools

// Package etcddump pins etcd's own dump tool, of etcd 3.4, for the integration tests:
//
//	go build go.etcd.io/etcd/tools/etcd-dump-logs
package etcddump

import _ "go.etcd.io/etcd/tools/etcd-dump-logs"
