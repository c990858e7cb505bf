package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

const connCPU = "CPU µs a connection"

// connections measures new connections.
func connections(ctx context.Context, t *trial) error {
	c := load.StartConnections(t.visitors(), 64)
	defer c.Stop()
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	c.Take()
	m := t.meter()
	err := pause(ctx, t.bench.during)
	cpu, elapsed := m.stop()
	times, failed := c.Take()
	if err != nil {
		return err
	}
	if failed > 0 || len(times) == 0 {
		return fmt.Errorf("%d connections failed, %d did not", failed, len(times))
	}
	t.note(connCPU, cpu/float64(len(times))*1e6)
	t.note("connections/s", float64(len(times))/elapsed.Seconds())
	t.note("connection p50 ms", load.Milliseconds(times.Quantile(.5)))
	t.note("connection p99 ms", load.Milliseconds(times.Quantile(.99)))
	return nil
}
