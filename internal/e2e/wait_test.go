//go:build linux

package e2e

import (
	"context"
	"testing"
	"time"
)

// eventually tries until there is no error, and fails the test with the last one when the time is up.
// It is for what announces itself by no event: an answer, a table in the kernel. It returns how long it took.
func eventually(t *testing.T, within time.Duration, what string, try func(ctx context.Context) error) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var last error // but for what the end of the time itself has caused
	for {
		err := try(ctx)
		if err == nil {
			return time.Since(begin)
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, within, last)
		}
	}
}

// lasts waits for a time that is itself what is tested: how long an outage or a freeze takes.
func lasts(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
