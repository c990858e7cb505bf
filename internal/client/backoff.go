package client

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces attempts to connect: exponentially growing, with full jitter, so that many clients that lost one
// server do not come back in step. The cap is what a server's return may go unnoticed.
type backoff struct {
	failures int
	most     time.Duration // the longest wait; maxDelay if zero
}

const (
	firstDelay = 250 * time.Millisecond
	maxDelay   = 3 * time.Second

	// pausedDelay is the longest wait while connections wait for a way to the server.
	pausedDelay = time.Second
)

// ceiling is the longest that the next wait may be.
func (b *backoff) ceiling() time.Duration {
	d := firstDelay << min(b.failures, 10)
	return min(d, cmp.Or(b.most, maxDelay))
}

// wait sleeps before the next attempt; false means that the context has ended.
func (b *backoff) wait(ctx context.Context) bool {
	d := rand.N(b.ceiling()) + 1
	b.failures++
	return sleep(ctx, d)
}

func (b *backoff) reset() { b.failures = 0 }

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
