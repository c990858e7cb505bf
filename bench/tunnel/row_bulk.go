package main

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

// bulk measures transfers, one and 16 at a time, both ways.
func bulk(ctx context.Context, t *trial) error {
	for _, d := range []load.Direction{load.Down, load.Up} {
		for _, streams := range []int{1, 16} {
			if err := transfer(ctx, t, streams, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func transfer(ctx context.Context, t *trial, streams int, d load.Direction) error {
	transfers, err := load.StartTransfers(t.visitors(), streams, d)
	if err != nil {
		return err
	}
	defer transfers.Close()
	moved := func() (int64, error) {
		if d == load.Up {
			return t.uploaded()
		}
		return transfers.Got(), nil
	}
	if err := pause(ctx, 400*time.Millisecond); err != nil {
		return err
	}
	m := t.meter()
	before, err := moved()
	if err != nil {
		return err
	}
	if err := pause(ctx, t.bench.during); err != nil {
		return err
	}
	after, err := moved()
	cpu, elapsed := m.stop()
	switch bytes := float64(after - before); {
	case err != nil:
		return err
	case bytes == 0 || transfers.Ended() > 0:
		return fmt.Errorf("%d of %d transfers %s ended, %.0f bytes came through", transfers.Ended(), streams, d, bytes)
	default:
		t.note(bulkCPU(streams, d), cpu/(bytes/1e9))
		t.note(bulkRate(streams, d), bytes/1e6/elapsed.Seconds())
	}
	return nil
}

func bulkCPU(streams int, d load.Direction) string {
	return fmt.Sprintf("CPU s a GB, %d %s", streams, d)
}

func bulkRate(streams int, d load.Direction) string { return fmt.Sprintf("MB/s, %d %s", streams, d) }

const fatRate = "MB/s at 40 ms, 1 Gbit/s"

// fat measures one download over a long way, once it has found its speed.
func fat(ctx context.Context, t *trial) error {
	transfers, err := load.StartTransfers(t.visitors(), 1, load.Down)
	if err != nil {
		return err
	}
	defer transfers.Close()
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	m := t.meter()
	before := transfers.Got()
	if err := pause(ctx, t.bench.during); err != nil {
		return err
	}
	after := transfers.Got()
	_, elapsed := m.stop()
	if transfers.Ended() > 0 {
		return fmt.Errorf("the download ended after %d bytes", after)
	}
	t.note(fatRate, float64(after-before)/1e6/elapsed.Seconds())
	return nil
}
