package proxy

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// do has h do something and waits for it.
func (h *hands) do(what func()) {
	done := make(chan struct{})
	h.start(func() {
		defer close(done)
		what()
	})
	<-done
}

func TestHandsDoWhatTheyAreGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hands
		var callers sync.WaitGroup
		sums := make([]int, 50)
		for i := range sums {
			callers.Go(func() {
				for n := range 20 {
					h.do(func() { sums[i] += n })
				}
			})
		}
		callers.Wait()
		time.Sleep(3 * spareTime) // all are dismissed
		for i, sum := range sums {
			if sum != 190 {
				t.Errorf("caller %d has %d, want 190", i, sum)
			}
		}
	})
}

func TestHandsAreUsedAgainAndDismissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hands
		goroutines := func() int { // the bubble sees to it that those who are dismissed do end
			synctest.Wait()
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.idle)
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { h.do(func() { time.Sleep(time.Millisecond) }) })
		}
		all.Wait()
		if n := goroutines(); n != 10 {
			t.Errorf("%d goroutines after ten things at a time, want 10", n)
		}
		for range 30 { // one at a time for longer than anybody is kept
			h.do(func() { time.Sleep(spareTime / 10) })
			synctest.Wait() // it is back before the next thing
		}
		if n := goroutines(); n != 1 {
			t.Errorf("%d goroutines for one thing at a time, want 1", n)
		}
		time.Sleep(3 * spareTime)
		if n := goroutines(); n != 0 {
			t.Errorf("%d goroutines for nothing, want none", n)
		}
	})
}
