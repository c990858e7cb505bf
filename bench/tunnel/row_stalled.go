package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

const (
	stalledVisitors = 100
	stalledBase     = "p99 ms of another visitor, before"
	stalledP99      = "p99 ms of another visitor, beside 100 stalled"
	stalledGrowth   = "MB that the server grows"
	stalledLeft     = "MB of it 10 s after their end"
)

// stalled measures what visitors that stop reading do to others and to memory.
func stalled(ctx context.Context, t *trial) error {
	const every = 2 * time.Millisecond
	during := 2 * t.bench.during
	base, failed := load.Ping(t.visitors(), during, every)
	if failed > 0 || len(base) == 0 {
		return fmt.Errorf("%d small requests failed, %d did not, before the stalled ones", failed, len(base))
	}
	server, client := t.serverMemory(), t.clientMemory()
	visitors, err := load.StartStalled(t.visitors(), stalledVisitors)
	if err != nil {
		return err
	}
	defer visitors.Close()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	m := t.meter()
	times, failed := load.Ping(t.visitors(), during, every)
	m.stop()
	if failed > 0 || len(times) == 0 {
		return fmt.Errorf("%d small requests failed, %d did not, beside the stalled ones", failed, len(times))
	}
	grown, grownClient := t.serverMemory()-server, t.clientMemory()-client
	visitors.Close()
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	t.note(stalledBase, load.Milliseconds(base.Quantile(.99)))
	t.note(stalledP99, load.Milliseconds(times.Quantile(.99)))
	t.note(stalledGrowth, float64(grown)/1e6)
	t.note(stalledLeft, float64(t.serverMemory()-server)/1e6)
	t.note("MB that the client grows", float64(grownClient)/1e6)
	return nil
}
