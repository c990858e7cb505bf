package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryLook is how often a process looks whether it has memory to give back.
const memoryLook = 2 * time.Second

// collections is how many it takes: pools let go of what they hold at the second one, and each halves a stack that has
// become too large.
const collections = 3

// memorySlack is how much it keeps for the next visitor, or a quarter of what it needs, if that is more.
const memorySlack = 8 << 20

// memoryPause is the least time between two times of giving back. Each costs a few collections, so it is at least memoryCost
// times what the last one took.
const (
	memoryPause = 5 * time.Second
	memoryCost  = 200
)

// giveBackMemory returns memory to the system when a busy time is over, until the context ends. The runtime does so
// while it collects garbage, which a process that has nothing to do does not: what a thousand transfers took would
// stay with it for minutes.
func giveBackMemory(ctx context.Context) {
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	last := readUsage()
	var given time.Time
	pause := memoryPause
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := readUsage()
		least := min(now.held, last.least)
		if now.cycles == last.cycles && now.held > least+max(memorySlack, least/4) && time.Since(given) > pause {
			begun := time.Now()
			for range collections {
				runtime.GC()
			}
			debug.FreeOSMemory()
			wanted := now.held
			now = readUsage()
			given = time.Now()
			pause = max(memoryPause, memoryCost*given.Sub(begun))
			if gained := wanted - min(wanted, now.held); gained >= memorySlack/2 {
				least = now.held
			} // else it is needed, or a collection of the runtime's own was under way
		}
		last = usage{now.cycles, now.held, least}
	}
}

// usage is what the process has of the system.
type usage struct {
	cycles, held uint64
	least        uint64 // that it held since it was last given back
}

func readUsage() usage {
	samples := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	held := samples[1].Value.Uint64() - samples[2].Value.Uint64()
	return usage{samples[0].Value.Uint64(), held, held}
}
