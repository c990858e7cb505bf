package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
	"culvert/bench/trials"
)

const (
	farAway   = ", 40 ms, 200 Mbit/s"
	besideP99 = "p99 ms beside a download"
	farP99    = besideP99 + farAway
)

func beside(ctx context.Context, t *trials.Trial) error { return smallBeside(ctx, t, "", time.Second) }

func besideFar(ctx context.Context, t *trials.Trial) error {
	// One request a round trip: fewer samples, so more time.
	return smallBeside(ctx, t, farAway, 2*time.Second)
}

// smallBeside measures small requests, first with nothing beside them, then with a download.
func smallBeside(ctx context.Context, t *trials.Trial, where string, settle time.Duration) error {
	const every = 2 * time.Millisecond
	quiet, failed := load.Ping(t.Visitors(), t.Bench.During/2, every)
	if failed > 0 || len(quiet) == 0 {
		return fmt.Errorf("%d small requests failed, %d did not, with nothing beside them", failed, len(quiet))
	}
	d, err := load.StartTransfers(t.Visitors(), 1, load.Down)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := trials.Pause(ctx, settle); err != nil {
		return err
	}
	m := t.Meter()
	before := d.Got()
	times, failed := load.Ping(t.Visitors(), 2*t.Bench.During, every)
	got := d.Got() - before
	_, elapsed := m.Stop()
	if failed > 0 || len(times) == 0 || d.Ended() > 0 {
		return fmt.Errorf("%d small requests failed, %d did not; %d downloads ended", failed, len(times), d.Ended())
	}
	t.Note("p50 ms alone"+where, load.Milliseconds(quiet.Quantile(.5)))
	t.Note("p99 ms alone"+where, load.Milliseconds(quiet.Quantile(.99)))
	t.Note("p50 ms beside a download"+where, load.Milliseconds(times.Quantile(.5)))
	t.Note(besideP99+where, load.Milliseconds(times.Quantile(.99)))
	t.Note("MB/s of that download"+where, float64(got)/1e6/elapsed.Seconds())
	return nil
}
