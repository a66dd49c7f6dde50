package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbageHeap is how large the heap may become before garbage is collected, in bytes, while
// a daemon that was started looks at all of storage and counts all answers. What is in use
// then is 10 to 30 MB, and the runtime would collect each time that as much has been added.
const garbageHeap = 128 << 20

// collectLess has garbage collected less often until it is over, and then gives the memory
// back. Who sets GOGC or GOMEMLIMIT decides instead.
func collectLess(ctx context.Context, over func() bool) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	defer debug.FreeOSMemory()
	is := 100
	was := debug.SetGCPercent(is)
	defer func() { debug.SetGCPercent(was) }()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for !over() {
		metrics.Read(live)
		if want := percentFor(live[0].Value.Uint64()); want != is {
			is = want
			debug.SetGCPercent(want)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// percentFor is the GOGC by which a heap of so many live bytes may grow to garbageHeap. It
// is bounded: what is in use can have grown since it was last known.
func percentFor(live uint64) int {
	const least, most = 1 << 20, 700
	live = min(max(live, least), garbageHeap)
	return int(min(max(100, (garbageHeap-live)*100/live), most))
}
