package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
	"culvert/bench/trials"
)

// bulk measures transfers, one and 16 at a time, both ways.
func bulk(ctx context.Context, t *trials.Trial) error {
	for _, d := range []load.Direction{load.Down, load.Up} {
		for _, streams := range []int{1, 16} {
			if err := trials.Transfer(ctx, t, streams, d); err != nil {
				return err
			}
		}
	}
	return nil
}

const fatRate = "MB/s at 40 ms, 1 Gbit/s"

// fat measures one download over a long way, once it has found its speed.
func fat(ctx context.Context, t *trials.Trial) error {
	transfers, err := load.StartTransfers(t.Visitors(), 1, load.Down)
	if err != nil {
		return err
	}
	defer transfers.Close()
	if err := trials.Pause(ctx, 2*time.Second); err != nil {
		return err
	}
	m := t.Meter()
	before := transfers.Got()
	if err := trials.Pause(ctx, t.Bench.During); err != nil {
		return err
	}
	after := transfers.Got()
	_, elapsed := m.Stop()
	if transfers.Ended() > 0 {
		return fmt.Errorf("the download ended after %d bytes", after)
	}
	t.Note(fatRate, float64(after-before)/1e6/elapsed.Seconds())
	return nil
}
