package mux_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// joinTo adds a link, spoken by hand, to a session that accepted.
func joinTo(t testing.TB, s *mux.Session, link uint32) peer {
	t.Helper()
	near, far := newCable(cableConfig{})
	go serveJoin(far, s)
	t.Cleanup(func() { near.Close() })
	p := peer{t, near}
	a := newSession()
	a.kind, a.link = 1, link
	p.send(a.frame())
	if f := p.expect(tAttached, 0); f.body[0] != 0 {
		t.Fatalf("attached: %s", f)
	}
	return p
}

// resumeOf reads a whole RESUME.
func (p peer) resumeOf() resumed {
	p.t.Helper()
	r := resumed{entries: map[uint64]entry{}}
	for {
		last, err := r.add(p.expect(tResume, 0).body)
		if err != nil {
			p.t.Fatal(err)
		}
		if last {
			return r
		}
	}
}

// TestTheDocumentsConversation plays the example of docs/protocol.md, with the client spoken by hand.
func TestTheDocumentsConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := dialTo(t, mux.Config{}, newSession())
		p.send(asks(1, 1<<20, "m"))
		p.expect(tReceived, 1)
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Confirm()
		p.expect(tResult, 1)
		p.send(data(1, 0, make([]byte, 10_000)))
		half := data(1, 10_000, make([]byte, 10_000)).bytes()
		_, _ = p.conn.Write(half[:20+3_000])
		if _, err := st.Write(make([]byte, 5_000)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the server has the 13,000 bytes, and the client has not read its 5,000
		p.conn.(*cableEnd).Break(blackhole)

		p = joinTo(t, s, 2)
		p.send(resume([]uint32{1}, entry{1, 1, 0, 1 << 20}))
		r := p.resumeOf()
		if len(r.lost) != 1 || r.lost[0] != 1 || r.entries[1].flags != 3 || r.entries[1].received != 13_000 {
			t.Errorf("RESUME %+v, want link 1 lost, stream 1 with flags 3 and 13,000 bytes", r)
		}
		p.send(data(1, 13_000, make([]byte, 7_000)))
		f := p.expectAmong(tData, 1)
		if off, n := number(f.body), len(f.body)-8; off != 0 || n != 5_000 {
			t.Errorf("%d bytes at %d, want 5,000 from 0", n, off)
		}
		p.send(fin(1, 20_000))
		got := make([]byte, 20_001)
		var n, total int
		for err == nil {
			n, err = st.Read(got)
			total += n
		}
		if total != 20_000 {
			t.Errorf("%d bytes, %v; want 20,000", total, err)
		}
		for f := p.expectAmong(tWindow, 1); number(f.body) != 20_001; f = p.expectAmong(tWindow, 1) {
		}
		_ = st.Reset()
	})
}

// expectAmong reads until a frame of the type, for the stream.
func (p peer) expectAmong(typ byte, stream uint64) frame {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Fatalf("%v in place of %s", err, typeNames[typ])
		}
		if f.typ == typ && f.stream == stream {
			return f
		}
	}
}

// resumable is a session that has lost link 1, on which it had sent 1,000 bytes of stream 1, of which 400 are acked.
func resumable(t *testing.T) (peer, *mux.Session, *mux.Stream) {
	t.Helper()
	p, s := dialTo(t, mux.Config{}, newSession())
	p.send(asks(1, 1<<20, "m"))
	st, err := s.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = st.Confirm()
	if _, err := st.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	p.expectAmong(tData, 1)
	p.send(window(1, 400, 1<<20))
	synctest.Wait()
	p.conn.Close()
	for s.Live() > 0 {
		<-s.Changed()
	}
	return joinTo(t, s, 2), s, st
}

// TestResumeSaysWhatIs has the peer resume at every kind of offset.
func TestResumeSaysWhatIs(t *testing.T) {
	tests := []struct {
		name     string
		received uint64
		from     uint64 // where the data goes on
		bad      bool
	}{
		{"all that was acked", 400, 400, false},
		{"a part", 700, 700, false},
		{"all", 1000, 1000, false},
		{"less than was acked", 399, 0, true},
		{"more than was sent", 1001, 0, true},
		{"a lot more", 1 << 60, 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s, st := resumable(t)
				r := p.resumeOf()
				if len(r.lost) != 1 || r.lost[0] != 1 {
					t.Errorf("lost %v, want link 1", r.lost)
				}
				p.send(resume([]uint32{1}, entry{1, 1, test.received, 1 << 20}))
				if test.bad {
					p.mustBeCutOff(t, s)
					return
				}
				if _, err := st.Write([]byte("more")); err != nil {
					t.Fatal(err)
				}
				f := p.expectAmong(tData, 1)
				if off := number(f.body); off != test.from {
					t.Errorf("goes on at %d, want %d", off, test.from)
				}
				_ = st.Reset()
			})
		})
	}
}

// TestAStreamThatThePeerForgotFails leaves it out of RESUME.
func TestAStreamThatThePeerForgotFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, st := resumable(t)
		p.resumeOf()
		p.send(resume([]uint32{1}))
		if _, err := st.Read(make([]byte, 1)); err == nil {
			t.Error("read: no error")
		}
		if s.Err() != nil {
			t.Errorf("the session ended: %v", s.Err())
		}
	})
}

// TestAnOpenThatWasLostIsSentAgain loses a link with an OPEN, early data and the end.
func TestAnOpenThatWasLostIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := dialTo(t, mux.Config{}, newSession())
		st, err := s.Open(t.Context(), []byte("meta"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write([]byte("early")); err != nil {
			t.Fatal(err)
		}
		if err := st.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.conn.Close()
		p = joinTo(t, s, 2)
		p.send(resume([]uint32{1}))
		if f := p.expectAmong(tOpen, 2); string(f.body[8:]) != "meta" {
			t.Errorf("OPEN with %q", f.body[8:])
		}
		if f := p.expectAmong(tData, 2); number(f.body) != 0 || string(f.body[8:]) != "early" {
			t.Errorf("got %s", f)
		}
		if f := p.expectAmong(tFin, 2); number(f.body) != 5 {
			t.Errorf("got %s", f)
		}
		_ = st.Reset()
	})
}

// TestGoodbyesAreSaidAgain loses the links with the frames that ended streams: they must come before RESUME.
func TestGoodbyesAreSaidAgain(t *testing.T) {
	goodbyes := map[string]struct {
		end func(*mux.Stream)
		typ byte
	}{
		"reset":   {func(st *mux.Stream) { _ = st.Confirm(); _ = st.Reset() }, tReset},
		"refusal": {func(st *mux.Stream) { _ = st.Refuse(9, "no") }, tResult},
		"the ack of the end": {func(st *mux.Stream) {
			_ = st.Confirm()
			_ = st.CloseWrite()
			_, _ = st.Read(make([]byte, 1))
			_ = st.Close()
		}, tWindow},
	}
	for name, test := range goodbyes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := dialTo(t, mux.Config{}, newSession())
				p.send(asks(1, 1<<20, "m"), fin(1, 0))
				st, err := s.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				test.end(st)
				synctest.Wait()
				p.conn.Close()
				p = joinTo(t, s, 2)
				for {
					f, err := p.next()
					if err != nil || f.typ == tResume {
						t.Fatalf("%s came before the goodbye, %v", f, err)
					}
					if f.typ == test.typ && f.stream == 1 {
						break
					}
				}
			})
		})
	}
}

// TestRepetitionsAreReadOnce sends bytes again that have come, whole and in part, as after a resume that went back too far.
func TestRepetitionsAreReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := dialTo(t, mux.Config{}, newSession())
		p.send(asks(1, 1<<20, "m"), data(1, 0, []byte("abc")), data(1, 0, []byte("abc")), data(1, 1, []byte("bcdef")))
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Confirm()
		synctest.Wait()
		got := make([]byte, 20)
		n, _ := st.Read(got)
		p.send(data(1, 2, []byte("cdefgh")), data(1, 5, []byte("f")), fin(1, 8), fin(1, 8))
		rest, err := io.ReadAll(st)
		if all := string(got[:n]) + string(rest); all != "abcdefgh" || err != nil {
			t.Errorf("read %q, %v; want abcdefgh", all, err)
		}
		_ = st.Reset()
	})
}

// TestManyStreamsGoOn loses the link of so many streams that RESUME needs several fragments.
func TestManyStreamsGoOn(t *testing.T) {
	const n = 3000
	synctest.Test(t, func(t *testing.T) {
		client, server, link := linked(t, mux.Config{}, cableConfig{latency: time.Millisecond})
		near, far := make([]*mux.Stream, n), make([]*mux.Stream, n)
		for i := range n {
			near[i], far[i] = open(t, server, client)
		}
		write := func(text string) {
			for i := range n {
				if _, err := near[i].Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
			}
		}
		write("before ")
		time.Sleep(time.Millisecond / 2) // all of it is under way
		link.Break(blackhole)
		write("and ")
		for client.Live() > 0 || server.Live() > 0 {
			time.Sleep(time.Second)
		}
		write("after")
		a, b := newCable(cableConfig{latency: time.Millisecond})
		go serveJoin(b, server)
		if err := client.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			got := make([]byte, 16)
			if _, err := io.ReadFull(far[i], got); err != nil || string(got) != "before and after" {
				t.Fatalf("stream %d: %q, %v", i, got, err)
			}
		}
		if again := server.Stats().Retransmitted; again < n*10 {
			t.Errorf("%d bytes were sent again, want %d at least", again, n*10)
		}
	})
}

// TestANumberRunsOnce opens a stream again, while it lives and after its end.
func TestANumberRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := dialTo(t, mux.Config{}, newSession())
		p.send(asks(1, 1<<20, "m"), asks(1, 1<<20, "m"))
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Confirm()
		p.expect(tReceived, 1)
		p.expect(tResult, 1)
		p.send(reset(1, 0, ""), asks(1, 1<<20, "again"))
		if f := p.expectAmong(tReset, 1); f.body[0] != 1 {
			t.Errorf("got %s, want code 1: no such stream", f)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if st, err := s.Accept(ctx); err == nil {
			t.Errorf("accepted again: %q", st.Meta())
		}
		_ = st.Close()
	})
}
