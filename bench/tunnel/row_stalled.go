package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
	"culvert/bench/trials"
)

const (
	stalledVisitors = 100
	stalledBase     = "p99 ms of another visitor, before"
	stalledP99      = "p99 ms of another visitor, beside 100 stalled"
	stalledGrowth   = "MB that the server grows"
	stalledLeft     = "MB of it 10 s after their end"
)

// stalled measures what visitors that stop reading do to others and to memory.
func stalled(ctx context.Context, t *trials.Trial) error {
	const every = 2 * time.Millisecond
	during := 2 * t.Bench.During
	base, failed := load.Ping(t.Visitors(), during, every)
	if failed > 0 || len(base) == 0 {
		return fmt.Errorf("%d small requests failed, %d did not, before the stalled ones", failed, len(base))
	}
	server, client := t.ServerMemory(), t.ClientMemory()
	visitors, err := load.StartStalled(t.Visitors(), stalledVisitors)
	if err != nil {
		return err
	}
	defer visitors.Close()
	if err := trials.Pause(ctx, time.Second); err != nil {
		return err
	}
	m := t.Meter()
	times, failed := load.Ping(t.Visitors(), during, every)
	m.Stop()
	if failed > 0 || len(times) == 0 {
		return fmt.Errorf("%d small requests failed, %d did not, beside the stalled ones", failed, len(times))
	}
	grown, grownClient := t.ServerMemory()-server, t.ClientMemory()-client
	visitors.Close()
	if err := trials.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	t.Note(stalledBase, load.Milliseconds(base.Quantile(.99)))
	t.Note(stalledP99, load.Milliseconds(times.Quantile(.99)))
	t.Note(stalledGrowth, float64(grown)/1e6)
	t.Note(stalledLeft, float64(t.ServerMemory()-server)/1e6)
	t.Note("MB that the client grows", float64(grownClient)/1e6)
	return nil
}
