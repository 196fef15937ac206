// The newest etcd server, with one setting that etcd has no flag for: the size of a
// segment of its log, from the environment variable ETCD_SEGMENT_BYTES.
package main

import (
	"fmt"
	"os"
	"strconv"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

func main() {
	if text := os.Getenv("ETCD_SEGMENT_BYTES"); text != "" {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size <= 0 {
			fmt.Fprintf(os.Stderr, "ETCD_SEGMENT_BYTES is %q\n", text)
			os.Exit(2)
		}
		wal.SegmentSizeBytes = size
	}
	etcdmain.Main(os.Args)
}
