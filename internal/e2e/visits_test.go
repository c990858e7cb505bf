//go:build linux

package e2e

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// answerTime is how long a visitor waits for its answer.
const answerTime = 5 * time.Second

// visits are connections that begin at a steady rate, whether those before have ended or not.
type visits struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	mu     sync.Mutex
	all    []visit
}

func startVisits(t *testing.T, perSecond int, visitOnce func() visit) *visits {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	v := &visits{cancel: cancel}
	v.wait.Go(func() {
		begin, begun := time.Now(), 0
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			for ; begun < int(time.Since(begin).Seconds()*float64(perSecond)); begun++ { // a late tick is made up for
				v.wait.Go(func() {
					one := visitOnce()
					v.mu.Lock()
					v.all = append(v.all, one)
					v.mu.Unlock()
				})
			}
		}
	})
	t.Cleanup(func() { cancel(); v.wait.Wait() })
	return v
}

// stop waits for the last one to end.
func (v *visits) stop(t *testing.T) []visit {
	t.Helper()
	v.cancel()
	v.wait.Wait()
	return v.all
}

// anySince says whether a visit has been answered after a moment.
func (v *visits) anySince(moment time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	last := errors.New("none has ended yet")
	for _, one := range v.all {
		if one.err == nil && one.begun.Add(one.took).After(moment) {
			return nil
		}
		if one.err != nil {
			last = one.err
		}
	}
	return last
}

// served is how long after a moment a visitor had an answer. Ten a second come, whether those before have theirs or not.
func served(t *testing.T, since time.Time, visitOnce func() visit) time.Duration {
	t.Helper()
	v := startVisits(t, 10, visitOnce)
	eventually(t, time.Minute, "a visitor is served", func(context.Context) error { return v.anySince(since) })
	first := time.Minute
	for _, one := range v.stop(t) {
		if one.err == nil {
			first = min(first, one.begun.Add(one.took).Sub(since))
		}
	}
	return first
}
