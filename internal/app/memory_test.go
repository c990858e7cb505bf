package app

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// beBusy takes memory, lets go of it, and gives what the process held meanwhile.
//
//go:noinline
func beBusy() (held uint64) {
	busy := make([]byte, 64<<20)
	for i := 0; i < len(busy); i += 4096 {
		busy[i] = 1
	}
	held = readUsage().held
	runtime.KeepAlive(busy)
	return held
}

func TestMemoryOfABusyTimeIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			giveBackMemory(ctx)
		}()
		time.Sleep(2 * memoryLook) // the fake clock's: a time in which nothing happens
		before := readUsage().held
		var peak uint64
		var busy sync.WaitGroup
		busy.Go(func() { peak = beBusy() }) // on a stack that goes with it
		busy.Wait()
		after := peak
		for i := 0; i < 10 && after > before+memorySlack; i++ { // a collection of the runtime's own may be under way
			time.Sleep(memoryPause + 4*memoryLook)
			after = readUsage().held
		}
		if after > before+memorySlack || peak < before+32<<20 {
			t.Errorf("held %d bytes, at the peak %d, afterwards %d", before, peak, after)
		}
		cancel()
		<-done
	})
}
