package trials

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

// ConnectionCPU is what Connections measures first.
const ConnectionCPU = "CPU µs a connection"

// Connections measures new connections, 64 visitors at a time.
func Connections(ctx context.Context, t *Trial) error {
	c := load.StartConnections(t.Visitors(), 64)
	defer c.Stop()
	if err := Pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	c.Take()
	m := t.Meter()
	err := Pause(ctx, t.Bench.During)
	cpu, elapsed := m.Stop()
	times, failed := c.Take()
	if err != nil {
		return err
	}
	if failed > 0 || len(times) == 0 {
		return fmt.Errorf("%d connections failed, %d did not", failed, len(times))
	}
	t.Note(ConnectionCPU, cpu/float64(len(times))*1e6)
	t.Note("connections/s", float64(len(times))/elapsed.Seconds())
	t.Note("connection p50 ms", load.Milliseconds(times.Quantile(.5)))
	t.Note("connection p99 ms", load.Milliseconds(times.Quantile(.99)))
	return nil
}
