package muxes

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// usedCPU is what this process has used so far.
func usedCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// timed starts the clock and gives what reports the CPU of an operation and stops it.
func timed(b *testing.B) (done func()) {
	b.Helper()
	before := usedCPU()
	b.ResetTimer()
	return func() {
		b.StopTimer()
		b.ReportMetric(float64(usedCPU()-before)/float64(b.N), "cpu-ns/op")
	}
}

// held is the memory that is in use after all garbage has gone, stacks included.
func held() int64 {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// quieten waits until the goroutines of earlier sessions have ended, whose memory would else go while it is measured.
func quieten(b *testing.B) {
	b.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for end := time.Now().Add(3 * time.Second); runtime.NumGoroutine() > 8; <-poll.C {
		if time.Now().After(end) {
			b.Logf("%d goroutines are left", runtime.NumGoroutine())
			return
		}
	}
}
