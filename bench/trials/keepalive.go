package trials

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

// leastCPU is how many seconds must be divided to give a figure: /proc counts in hundredths. ssh -R falls below it when
// Nagle's algorithm holds its answers back.
const leastCPU = 0.2

// Keepalive measures requests on so many connections at a time.
func Keepalive(ctx context.Context, t *Trial, numbers ...int) error {
	if _, err := load.Wrk(ctx, t.Visitors(), 64, time.Second); err != nil { // warm
		return err
	}
	for _, conns := range numbers {
		m := t.Meter()
		k, err := load.Wrk(ctx, t.Visitors(), conns, t.Bench.During)
		cpu, _ := m.Stop()
		switch {
		case err != nil:
			return err
		case k.Requests == 0:
			return fmt.Errorf("no request came through on %d connections", conns)
		}
		if cpu >= leastCPU {
			t.Note(RequestCPU(conns), cpu/float64(k.Requests)*1e6)
		}
		t.Note(fmt.Sprintf("requests/s, %d", conns), k.PerSecond)
		t.Note(fmt.Sprintf("p50 ms, %d", conns), load.Milliseconds(k.P50))
		t.Note(fmt.Sprintf("p99 ms, %d", conns), load.Milliseconds(k.P99))
	}
	return nil
}

// RequestCPU is what Keepalive measures first on so many connections.
func RequestCPU(conns int) string { return fmt.Sprintf("CPU µs a request, %d", conns) }
