package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

// leastCPU is how many seconds must be divided to give a figure: /proc counts in hundredths. ssh -R falls below it when
// Nagle's algorithm holds its answers back.
const leastCPU = 0.2

// keepalive measures requests on 64, 8 and 1 connections.
func keepalive(ctx context.Context, t *trial) error {
	if _, err := load.Wrk(ctx, t.visitors(), 64, time.Second); err != nil { // warm
		return err
	}
	for _, conns := range []int{64, 8, 1} {
		m := t.meter()
		k, err := load.Wrk(ctx, t.visitors(), conns, t.bench.during)
		cpu, _ := m.stop()
		switch {
		case err != nil:
			return err
		case k.Requests == 0:
			return fmt.Errorf("no request came through on %d connections", conns)
		}
		if cpu >= leastCPU {
			t.note(httpCPU(conns), cpu/float64(k.Requests)*1e6)
		}
		t.note(fmt.Sprintf("requests/s, %d", conns), k.PerSecond)
		t.note(fmt.Sprintf("p50 ms, %d", conns), load.Milliseconds(k.P50))
		t.note(fmt.Sprintf("p99 ms, %d", conns), load.Milliseconds(k.P99))
	}
	return nil
}

func httpCPU(conns int) string { return fmt.Sprintf("CPU µs a request, %d", conns) }
