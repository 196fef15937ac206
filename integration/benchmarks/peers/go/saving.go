package main

import (
	"hash/crc32"
	"sort"
	"sync"
	"time"
)

const (
	mostInChunk      = 65_536
	mostBytesInChunk = 16 << 20
	dataStride       = 4093
)

// chunk makes entries in memory of their own, as a node holds them.
type chunk struct {
	entries []entry
	arena   []byte
}

func newChunk(given *options) *chunk {
	length := min(mostInChunk, mostBytesInChunk/given.size)
	length = min(given.count, max(given.batch, length/given.batch*given.batch))
	made := &chunk{make([]entry, length), make([]byte, length*given.size)}
	for position := range made.entries {
		start := position * given.size
		made.entries[position].data = made.arena[start : start+given.size]
	}
	return made
}

func (held *chunk) fill(first uint64, length int, block []byte, size int) []entry {
	for position := range held.entries[:length] {
		index := first + uint64(position)
		held.entries[position].index = index
		offset := index * dataStride % uint64(len(block)-size)
		copy(held.entries[position].data, block[offset:])
	}
	return held.entries[:length]
}

func measureSaving(given *options, made peer, dir string, block []byte) (answer, error) {
	log, err := made.open(dir, given.sync)
	if err != nil {
		return nil, err
	}
	held := newChunk(given)
	taken := &saving{log: log, batch: given.batch, limit: given.seconds}
	memory := startMemory()
	for saved := 0; saved < given.count && !taken.stopped; {
		length := min(len(held.entries), given.count-saved)
		log.prepare(held.fill(uint64(saved)+1, length, block, given.size))
		if saved == 0 {
			memory = startMemory()
		}
		before, started := cpuSeconds(), time.Now()
		err := taken.chunk(length, given.threads)
		taken.seconds += time.Since(started).Seconds()
		taken.cpu += cpuSeconds() - before
		if err != nil {
			return nil, err
		}
		saved += length
	}
	said := taken.answer()
	memory.tell(said)
	return said, log.close()
}

// saving is what was measured so far.
type saving struct {
	log       logWriter
	batch     int
	limit     float64
	seconds   float64
	cpu       float64
	entries   int
	latencies []int64
	stopped   bool
}

func (taken *saving) chunk(length, threads int) error {
	if threads > 1 {
		return taken.byThreads(length, threads)
	}
	left := time.Duration((taken.limit - taken.seconds) * 1e9)
	started := time.Now()
	before := started
	for from := 0; from < length; from += taken.batch {
		to := min(length, from+taken.batch)
		if err := taken.log.save(from, to); err != nil {
			return err
		}
		now := time.Now()
		taken.latencies = append(taken.latencies, int64(now.Sub(before)))
		taken.entries += to - from
		if before = now; now.Sub(started) > left {
			taken.stopped = true
			return nil
		}
	}
	return nil
}

// byThreads has each save one entry.  None of these logs takes entries out of order, so
// whoever takes the next position saves it before another does.
func (taken *saving) byThreads(length, threads int) error {
	var (
		turn    sync.Mutex
		group   sync.WaitGroup
		next    int
		failure error
	)
	left := time.Duration((taken.limit - taken.seconds) * 1e9)
	started := time.Now()
	latencies := make([][]int64, threads)
	for thread := range latencies {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				before := time.Now()
				turn.Lock()
				if next >= length || failure != nil || before.Sub(started) > left {
					taken.stopped = taken.stopped || next < length
					turn.Unlock()
					return
				}
				failure = taken.log.save(next, next+1)
				next++
				turn.Unlock()
				latencies[thread] = append(latencies[thread], int64(time.Since(before)))
			}
		}()
	}
	group.Wait()
	taken.entries += next
	for _, each := range latencies {
		taken.latencies = append(taken.latencies, each...)
	}
	return failure
}

func (taken *saving) answer() answer {
	sort.Slice(taken.latencies, func(i, j int) bool { return taken.latencies[i] < taken.latencies[j] })
	count := len(taken.latencies)
	at := func(share float64) float64 {
		return float64(taken.latencies[min(count-1, int(share*float64(count)))]) / 1e9
	}
	return answer{
		"seconds": taken.seconds,
		"cpu":     taken.cpu,
		"entries": taken.entries,
		"saves":   count,
		"p50":     at(0.5),
		"p99":     at(0.99),
		"longest": at(1),
		"stopped": taken.stopped,
	}
}

// measureChecksum extends a CRC-32C by the same piece until it has taken a fifth of a second.
func measureChecksum(given *options, block []byte) answer {
	table := crc32.MakeTable(crc32.Castagnoli)
	piece := block[:given.size]
	var crc uint32
	times := 0
	started := time.Now()
	for time.Since(started) < 200*time.Millisecond {
		for range max(1, (1<<20)/given.size) {
			crc = crc32.Update(crc, table, piece)
			times++
		}
	}
	seconds := time.Since(started).Seconds()
	return answer{"seconds": seconds, "bytes": times * given.size, "crc": crc}
}
