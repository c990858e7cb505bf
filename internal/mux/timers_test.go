package mux_test

import (
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// roles runs a test with a real session that dialled and with one that accepted.
func roles(t *testing.T, cfg mux.Config, test func(t *testing.T, p peer, s *mux.Session, first uint64)) {
	t.Helper()
	t.Run("a session that dialled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, s, _ := dialledBy(t, cfg)
			test(t, p, s, 2)
		})
	})
	t.Run("a session that accepted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, s := dialTo(t, cfg, newSession())
			test(t, p, s, 1)
		})
	})
}

// TestHeartbeat counts a session's own pings: one every 3 s without streams, every 2 s with several.
func TestHeartbeat(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, first uint64) {
		idle := p.pingGaps(t, 20)[5:] // the first ones measure the round trip
		for _, gap := range idle {
			if gap < 2500*time.Millisecond || gap > 3500*time.Millisecond {
				t.Errorf("idle: pings every %v, want 3 s", idle)
				break
			}
		}
		for _, id := range []uint64{first, first + 2} { // one is the control stream, which is always there
			p.send(asks(id, 1<<20, "m"))
			p.expect(tReceived, id)
		}
		busy := p.pingGaps(t, 20)
		for _, gap := range busy[1:] {
			if gap < 1500*time.Millisecond || gap > 2500*time.Millisecond {
				t.Errorf("with a stream: pings every %v, want 2 s", busy)
				break
			}
		}
		if s.Err() != nil || s.Live() != 1 {
			t.Errorf("live %d, error %v", s.Live(), s.Err())
		}
	})
}

// pingGaps answers pings and returns the times between them. Nothing else may come.
func (p peer) pingGaps(t *testing.T, n int) (gaps []time.Duration) {
	t.Helper()
	last := time.Now()
	for len(gaps) < n {
		f, err := readFrame(p.conn)
		if err != nil {
			t.Fatal(err)
		}
		if f.typ != tPing {
			t.Fatalf("%s on an idle session", f)
		}
		p.send(pong(f))
		gaps = append(gaps, time.Since(last))
		last = time.Now()
	}
	return gaps
}

// TestAnyByteIsALifeSign sends a DATA frame in pieces that are rarer than heartbeats, and no answer to any ping.
func TestAnyByteIsALifeSign(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, first uint64) {
		go func() { _, _ = io.Copy(io.Discard, p.conn) }()
		p.send(asks(first, 1<<20, "m"))
		whole := data(first, 0, make([]byte, 40)).bytes()
		for i := range whole {
			time.Sleep(6 * time.Second)
			if _, err := p.conn.Write(whole[i : i+1]); err != nil {
				t.Fatalf("after %d bytes: %v", i, err)
			}
		}
		if s.Err() != nil || s.Live() != 1 {
			t.Errorf("live %d, error %v", s.Live(), s.Err())
		}
	})
}

// TestSilentLinkIsLost has a peer that takes everything and says nothing any more: its link is lost after 7 s, and the
// session with its streams 30 s later.
func TestSilentLinkIsLost(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, first uint64) {
		p.send(asks(first, 1<<20, "m"))
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		go func() { _, _ = io.Copy(io.Discard, p.conn) }()
		for s.Live() > 0 {
			<-s.Changed()
		}
		if took := time.Since(begun); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("the link was lost after %s, want 7 s", took)
		}
		if s.Err() != nil {
			t.Fatalf("the session ended with its link: %v", s.Err())
		}
		_, readErr := st.Read(make([]byte, 1))
		<-s.Done()
		if took := time.Since(begun); took < 37*time.Second || took > 39*time.Second {
			t.Errorf("the session ended after %s, want 37 s", took)
		}
		if !errors.Is(s.Err(), mux.ErrDead) {
			t.Errorf("error: got %v, want ErrDead", s.Err())
		}
		if readErr == nil || errors.Is(readErr, io.EOF) {
			t.Errorf("read: got %v, want an error that is no end", readErr)
		}
		if _, err := st.Write([]byte("x")); err == nil {
			t.Error("write: no error")
		}
	})
}

// TestWithoutAResumeWindow loses the session with its link.
func TestWithoutAResumeWindow(t *testing.T) {
	roles(t, mux.Config{Resume: -1}, func(t *testing.T, p peer, s *mux.Session, first uint64) {
		p.send(asks(first, 1<<20, "m"))
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.conn.Close()
		begun := time.Now()
		<-s.Done()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the session ended after %s, want at once", took)
		}
		if _, err := st.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read: got %v, want an error that is no end", err)
		}
	})
}

// TestSuspectByOpen leaves an OPEN unanswered for a while.
func TestSuspectByOpen(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, _ uint64) {
		p.pingGaps(t, 6) // a round-trip time, and then a heartbeat
		if s.Suspect() {
			t.Error("suspect before anything was asked")
		}
		st, err := s.Open(t.Context(), []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := p.next()
		if err != nil || f.typ != tOpen {
			t.Fatalf("got %s, %v; want OPEN", f, err)
		}
		time.Sleep(200 * time.Millisecond)
		if s.Suspect() {
			t.Error("suspect after 200 ms")
		}
		time.Sleep(100 * time.Millisecond)
		if !s.Suspect() {
			t.Error("not suspect after 300 ms without RECEIVED")
		}
		p.send(received(f.stream, 256<<10))
		<-st.Received()
		if s.Suspect() {
			t.Error("suspect after RECEIVED")
		}
		_ = st.Reset()
	})
}

// TestSuspectByPing leaves a heartbeat unanswered.
func TestSuspectByPing(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, _ uint64) {
		p.pingGaps(t, 6)
		f, err := readFrame(p.conn)
		if err != nil || f.typ != tPing {
			t.Fatalf("got %s, %v; want PING", f, err)
		}
		time.Sleep(200 * time.Millisecond)
		if s.Suspect() {
			t.Error("suspect after 200 ms")
		}
		time.Sleep(100 * time.Millisecond)
		if !s.Suspect() {
			t.Error("not suspect after 300 ms without PONG")
		}
		p.send(pong(f))
		synctest.Wait()
		if s.Suspect() {
			t.Error("suspect after PONG")
		}
	})
}

// TestFreshness asks whether a byte came within max(250 ms, 4 round trips).
func TestFreshness(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, _ uint64) {
		p.pingGaps(t, 6)
		synctest.Wait()
		if !s.Fresh() {
			t.Error("not fresh right after a byte")
		}
		time.Sleep(time.Second)
		if s.Fresh() {
			t.Error("fresh a second after the last byte")
		}
	})
}

// TestUnansweredDataIsPinged sends data that the peer neither acknowledges nor answers.
func TestUnansweredDataIsPinged(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, _ uint64) {
		st, err := s.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		f := p.expectType(tOpen)
		p.send(received(f.stream, 256<<10), result(f.stream, 0, ""))
		p.pingGaps(t, 6)
		time.Sleep(10 * time.Millisecond)
		if _, err := st.Write([]byte("are you there?")); err != nil {
			t.Fatal(err)
		}
		p.expectType(tData)
		begun := time.Now()
		f, err = readFrame(p.conn)
		if err != nil || f.typ != tPing {
			t.Fatalf("got %s, %v; want PING", f, err)
		}
		if took := time.Since(begun); took < 200*time.Millisecond || took > 600*time.Millisecond {
			t.Errorf("unanswered data was pinged after %s, want 250 ms", took)
		}
		time.Sleep(300 * time.Millisecond)
		if !s.Suspect() {
			t.Error("not suspect though neither data nor ping is answered")
		}
		_ = st.Reset()
	})
}

func (p peer) expectType(typ byte) frame {
	p.t.Helper()
	f, err := p.next()
	if err != nil || f.typ != typ {
		p.t.Fatalf("got %s, %v; want %s", f, err, typeNames[typ])
	}
	return f
}

// TestSmallAmountsAreAcknowledgedTogether reads many small pieces and sees one WINDOW for them within about 100 ms.
func TestSmallAmountsAreAcknowledgedTogether(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, first uint64) {
		p.send(asks(first, 1<<20, "m"))
		p.expect(tReceived, first)
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Confirm(); err != nil {
			t.Fatal(err)
		}
		p.expect(tResult, first)
		begun := time.Now()
		for i := range uint64(10) {
			p.send(data(first, i*10, make([]byte, 10)))
			if _, err := io.ReadFull(st, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		f := p.expectType(tWindow)
		if took := time.Since(begun); took > 150*time.Millisecond {
			t.Errorf("acknowledged after %s, want about 100 ms", took)
		}
		if acked := number(f.body); acked != 100 {
			t.Errorf("acked %d, want 100", acked)
		}
		p.quiet(time.Minute)
		_ = st.Reset()
	})
}

// TestCreditComesBackAtHalfAWindow reads half of the first window and sees WINDOW without a delay.
func TestCreditComesBackAtHalfAWindow(t *testing.T) {
	roles(t, mux.Config{}, func(t *testing.T, p peer, s *mux.Session, first uint64) {
		p.send(asks(first, 1<<20, "m"))
		limit := number(p.expect(tReceived, first).body)
		if limit != 256<<10 {
			t.Errorf("first limit %d, want 256 KiB", limit)
		}
		st, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Confirm()
		p.expect(tResult, first)
		p.send(data(first, 0, make([]byte, 64<<10)))
		p.send(data(first, 64<<10, make([]byte, 64<<10)))
		begun := time.Now()
		if _, err := io.ReadFull(st, make([]byte, 128<<10)); err != nil {
			t.Fatal(err)
		}
		f := p.expectType(tWindow)
		if took := time.Since(begun); took != 0 {
			t.Errorf("credit came after %s, want at once", took)
		}
		if acked, limit := number(f.body), number(f.body[8:]); acked != 128<<10 || limit < 128<<10+256<<10 {
			t.Errorf("acked %d, limit %d", acked, limit)
		}
		_ = st.Reset()
	})
}

// TestIdleHourIsOnlyHeartbeats joins two sessions with an idle stream and looks at what passes in an hour.
func TestIdleHourIsOnlyHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newCable(cableConfig{latency: 10 * time.Millisecond})
		client, err := mux.Client(near, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := mux.Server(far, mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := server.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		in, out := client.Bytes()
		time.Sleep(time.Hour)
		in2, out2 := client.Bytes()
		const ping = 20 // bytes
		pings := []int64{(in2 - in) / ping, (out2 - out) / ping}
		if slices.Max(pings) > 2*3600/2+20 || slices.Min(pings) < 2*3600/3-20 {
			t.Errorf("frames in an hour: %v, want a ping and a pong every 2 s", pings)
		}
		if err := errors.Join(client.Err(), server.Err()); err != nil {
			t.Error(err)
		}
		if rtt := client.RTT(); rtt != 20*time.Millisecond {
			t.Errorf("round-trip time %s, want 20 ms", rtt)
		}
		_ = st.Reset()
		client.Close(nil)
		server.Close(nil)
	})
}
