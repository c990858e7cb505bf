package mux_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"culvert/internal/mux"
)

// memoryOfAStranger is what one hostile input may make the process hold. Inputs are far smaller, so it bounds
// allocations by announced lengths.
const memoryOfAStranger = 64 << 20

// watchdog makes an input that hangs a finding: the fuzzer alone would wait for ever.
func watchdog() *time.Timer {
	return time.AfterFunc(20*time.Second, func() { panic("hangs") })
}

// FuzzSession feeds bytes of a hostile peer to a real session of either role, which has streams of its own.
func FuzzSession(f *testing.F) {
	var all []byte
	for _, v := range readVectors(f) {
		f.Add(v.hex, true)
		f.Add(v.hex, false)
		all = append(all, v.hex...)
	}
	f.Add(all, true)
	f.Add(append(asks(1, 1<<20, "m").bytes(), data(1, 0, []byte("hello")).bytes()...), true)
	f.Add(append(received(1, 1<<20).bytes(), result(1, 0, "").bytes()...), false)
	f.Add(append(resume([]uint32{1}, entry{1, 1, 0, 1 << 20}).bytes(), window(1, 0, 99).bytes()...), false)
	f.Fuzz(func(t *testing.T, p []byte, accepts bool) {
		defer watchdog().Stop()
		near, far := newCable(cableConfig{})
		cfg := mux.Config{MaxStreams: 100, Resume: -1}
		var s *mux.Session
		var err error
		if accepts {
			_, _ = near.Write(newSession().frame().bytes())
			s, err = mux.Server(far, cfg)
		} else {
			_, _ = near.Write(attached(0, 100, "").bytes())
			s, err = mux.Client(far, cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		go serveStranger(s)
		st, err := s.Open(t.Context(), []byte("own"))
		if err == nil {
			_, _ = st.Write([]byte("early"))
		}
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, _ = near.Write(p)
		waitHeard(s, near)
		near.Close()
		<-s.Done()
		s.Close(nil)
		runtime.ReadMemStats(&after)
		if s.Err() == nil {
			t.Error("the session ended without a reason")
		}
		if held := int64(after.TotalAlloc - before.TotalAlloc); held > memoryOfAStranger {
			t.Errorf("%d bytes made the session allocate %d", len(p), held)
		}
	})
}

// serveStranger accepts and answers what comes.
func serveStranger(s *mux.Session) {
	for {
		st, err := s.Accept(context.Background())
		if err != nil {
			return
		}
		_ = st.Confirm()
		go func() {
			_, _ = io.Copy(io.Discard, st)
			_ = st.Close()
		}()
	}
}

// waitHeard waits until the session has read all that was written, or has ended.
func waitHeard(s *mux.Session, near *cableEnd) {
	for s.Err() == nil {
		near.mu.Lock()
		left := near.out().held
		near.mu.Unlock()
		if left == 0 {
			return
		}
		runtime.Gosched()
	}
}

// FuzzGreet feeds a stranger's first bytes to an acceptor.
func FuzzGreet(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.hex)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		defer watchdog().Stop()
		near, far := newCable(cableConfig{})
		_, _ = near.Write(p)
		near.Break(ended)
		g, err := mux.Greet(far, time.Second)
		if err != nil {
			if _, err := far.Read(make([]byte, 1)); err != net.ErrClosed {
				t.Errorf("a stranger's connection is left open: %v", err)
			}
			return
		}
		if len(p) < 12+58 || p[0] != tAttach {
			t.Errorf("%x was taken for an ATTACH", p)
		}
		if _, joins := g.Joins(); joins != (p[13] == 1) {
			t.Errorf("joins %t, kind %d", joins, p[13])
		}
		g.Refuse(mux.UnknownSession, "fuzz")
	})
}

// FuzzAttached feeds an acceptor's first bytes to a dialler that adds a link.
func FuzzAttached(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.hex)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		defer watchdog().Stop()
		near, far := newCable(cableConfig{})
		_, _ = near.Write(attached(0, 100, "").bytes())
		s, err := mux.Client(far, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		second, stranger := newCable(cableConfig{})
		_, _ = stranger.Write(p)
		stranger.Break(ended)
		if err := s.Attach(t.Context(), second); err == nil && (len(p) < 17 || p[0] != tAttached || p[12] != 0) {
			t.Errorf("%x attached a link", p)
		}
		s.Close(nil)
		near.Close()
	})
}

// FuzzResume feeds the body of a RESUME to a session with streams in all states.
func FuzzResume(f *testing.F) {
	for _, v := range readVectors(f) {
		if v.hex[0] == tResume {
			f.Add(v.hex[12:])
		}
	}
	f.Add(resume([]uint32{1}, entry{1, 1, 5, 1 << 20}).body)
	f.Add(resume([]uint32{1}, entry{1, 3, 5, 1 << 20}, entry{2, 1, 4, 1 << 20}, entry{4, 0, 0, 0}).body)
	f.Fuzz(func(t *testing.T, body []byte) {
		defer watchdog().Stop()
		if len(body) > 16<<10 {
			return
		}
		p, s := dialTo(t, mux.Config{Resume: -1}, newSession())
		go serveStranger(s)
		for range 3 {
			st, err := s.Open(t.Context(), []byte("own"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = st.Write([]byte("early"))
		}
		go func() { _, _ = io.Copy(io.Discard, p.conn) }()
		p.send(received(2, 1<<20), result(2, 0, ""), received(4, 1<<20))
		p.send(asks(1, 1<<20, "m"), data(1, 0, []byte("hello")), fin(1, 5))
		p.send(asks(3, 1<<20, "m"), frame{tResume, 0, body})
		waitHeard(s, p.conn.(*cableEnd))
		p.conn.Close()
		<-s.Done()
		if s.Err() == nil {
			t.Error("the session ended without a reason")
		}
	})
}
