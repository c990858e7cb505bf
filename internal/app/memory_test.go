package app

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

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
		busy := make([]byte, 64<<20)
		for i := 0; i < len(busy); i += 4096 {
			busy[i] = 1
		}
		peak := readUsage().held
		runtime.KeepAlive(busy)
		time.Sleep(memoryPause + 4*memoryLook)
		if after := readUsage().held; after > before+memorySlack || peak < before+32<<20 {
			t.Errorf("held %d bytes, at the peak %d, afterwards %d", before, peak, after)
		}
		cancel()
		<-done
	})
}
