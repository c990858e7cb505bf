package mux_test

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// TestPeerThatNeverAcknowledges reads everything and grants much, so that what is sent to it is kept for nothing: at most the
// budget and each stream's least, until the streams are reset for it.
func TestPeerThatNeverAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, budget = 200, 4 << 20
		near, far := newCable(cableConfig{room: 64 << 10})
		p := peer{t, near}
		p.send(newSession().frame())
		s, err := mux.Server(far, mux.Config{MaxStreams: streams, Budget: mux.NewBudget(budget)})
		if err != nil {
			t.Fatal(err)
		}
		pings := make(chan struct{})
		go func() { // it lives
			defer close(pings)
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for range 100 {
				<-tick.C
				if _, err := near.Write(ping(1).bytes()); err != nil {
					return
				}
			}
		}()
		var drained, users sync.WaitGroup
		drained.Go(func() { _, _ = io.Copy(io.Discard, near) })
		for i := range streams {
			p.send(asks(uint64(2*i+1), 1<<20, "m"))
			st, err := s.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = st.Confirm()
			users.Go(func() { _, _ = st.Write(make([]byte, 1<<20)) })
		}
		time.Sleep(5 * time.Second)
		if held, most := s.Stats().Held, int64(budget+streams*2*(64<<10)); held > most {
			t.Errorf("%d KiB are held, want at most %d", held>>10, most>>10)
		}
		time.Sleep(80 * time.Second)
		users.Wait() // each was reset
		if held := s.Stats().Held; held > budget {
			t.Errorf("%d KiB are held after the resets", held>>10)
		}
		near.Close()
		s.Close(nil)
		drained.Wait()
		<-pings
	})
}
