package trials

import (
	"context"
	"fmt"
	"time"

	"culvert/bench/load"
)

// Transfer measures transfers without end, so many streams at a time.
func Transfer(ctx context.Context, t *Trial, streams int, d load.Direction) error {
	transfers, err := load.StartTransfers(t.Visitors(), streams, d)
	if err != nil {
		return err
	}
	defer transfers.Close()
	moved := func() (int64, error) {
		if d == load.Up {
			return t.Counted("/counted")
		}
		return transfers.Got(), nil
	}
	if err := Pause(ctx, 400*time.Millisecond); err != nil {
		return err
	}
	m := t.Meter()
	before, err := moved()
	if err != nil {
		return err
	}
	if err := Pause(ctx, t.Bench.During); err != nil {
		return err
	}
	after, err := moved()
	cpu, elapsed := m.Stop()
	switch bytes := float64(after - before); {
	case err != nil:
		return err
	case bytes == 0 || transfers.Ended() > 0:
		return fmt.Errorf("%d of %d transfers %s ended, %.0f bytes came through", transfers.Ended(), streams, d, bytes)
	default:
		t.Note(TransferCPU(streams, d), cpu/(bytes/1e9))
		t.Note(transferRate(streams, d), bytes/1e6/elapsed.Seconds())
	}
	return nil
}

// TransferCPU is what Transfer measures first.
func TransferCPU(streams int, d load.Direction) string {
	return fmt.Sprintf("CPU s a GB, %d %s", streams, d)
}

func transferRate(streams int, d load.Direction) string {
	return fmt.Sprintf("MB/s, %d %s", streams, d)
}
