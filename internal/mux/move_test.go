package mux_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// TestABulkStreamMovesAtAnAckedOffset has a session send much on one of two links: the stream goes over to the other one, in
// order. What it said on the first link may not have arrived when that is lost, and is said again.
func TestABulkStreamMovesAtAnAckedOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p1, s := dialTo(t, mux.Config{}, newSession())
		p2 := joinTo(t, s, 2)
		p1.send(asks(1, 16<<20, "m"))
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Confirm()
		p1.send(data(1, 0, make([]byte, 64<<10)))
		if _, err := io.ReadFull(st, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		if f := p1.expectAmong(tWindow, 1); number(f.body) != 64<<10 {
			t.Errorf("got %s", f)
		}
		go func() { _, _ = st.Write(make([]byte, 4<<20)) }()

		frames := make(chan frame)
		stop := make(chan struct{})
		defer close(stop)
		for _, p := range []peer{p1, p2} {
			go func() {
				for f, err := p.next(); err == nil; f, err = p.next() {
					select {
					case frames <- f:
					case <-stop:
						return
					}
				}
			}()
		}
		offset := uint64(0)
		for offset < 4<<20 {
			f := <-frames
			if f.typ != tData {
				continue
			}
			if number(f.body) != offset {
				t.Fatalf("data at %d, want %d", number(f.body), offset)
			}
			offset += uint64(len(f.body)) - 8
			p2.send(window(1, offset, 16<<20))
		}
		p1.conn.Close()
		for said := false; !said; {
			select {
			case f := <-frames:
				if said = f.typ == tWindow; said && number(f.body) != 64<<10 {
					t.Errorf("got %s", f)
				}
			case <-time.After(time.Minute):
				t.Fatal("the WINDOW was not said again")
			}
		}
		if moved := s.Stats().Links; len(moved) != 1 || moved[0].Out < 1<<20 {
			t.Errorf("links %+v, want one that has carried the most", moved)
		}
		_ = st.Reset()
	})
}
