package mux_test

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// TestPeerThatBreaksTheProtocol has a peer do one forbidden thing; its session must end with a reason, which it is told.
func TestPeerThatBreaksTheProtocol(t *testing.T) {
	const limit = 256 << 10
	opened := asks(1, 1<<20, "m")
	tests := map[string][]frame{
		"data beyond the limit":                     append(filled(limit), data(1, limit, []byte("x"))),
		"data across the limit":                     append(filled(limit-5), data(1, limit-5, make([]byte, 10))),
		"data from the future":                      {opened, data(1, 5, []byte("x"))},
		"data far in the future":                    {opened, data(1, 1<<63, []byte("x"))},
		"data whose end overflows":                  {opened, data(1, 1<<64-1, []byte("xyz"))},
		"an empty DATA":                             {opened, data(1, 0, nil)},
		"a DATA without a whole offset":             {opened, {tData, 1, []byte{0, 0, 0}}},
		"data behind the end":                       {opened, data(1, 0, []byte("abc")), fin(1, 3), data(1, 3, []byte("x"))},
		"an end before the data's end":              {opened, data(1, 0, []byte("abc")), fin(1, 2)},
		"an end from the future":                    {opened, fin(1, 7)},
		"an end beyond the limit":                   {opened, fin(1, 1<<40)},
		"two different ends":                        {opened, data(1, 0, []byte("abc")), fin(1, 3), fin(1, 2)},
		"an end without an offset":                  {opened, {tFin, 1, nil}},
		"acks what was not sent":                    {opened, window(1, 1, 1<<20)},
		"acks much that was not sent":               {opened, window(1, 1<<63, 1<<20)},
		"a window of half a frame":                  {opened, {tWindow, 1, make([]byte, 9)}},
		"a window of too long a frame":              {opened, {tWindow, 1, make([]byte, 17)}},
		"an absurd limit":                           {opened, window(1, 0, 1<<64-1)},
		"an open with our parity":                   {asks(2, 1<<20, "m")},
		"an open of stream 0":                       {asks(0, 1<<20, "m")},
		"an open with an absurd limit":              {asks(1, 1<<64-1, "m")},
		"an open without a limit":                   {{tOpen, 1, []byte{1}}},
		"an open with too much metadata":            {asks(1, 1<<20, string(make([]byte, 5000)))},
		"received for a stream of its own":          {opened, received(1, limit)},
		"a result for a stream of its own":          {opened, result(1, 0, "")},
		"received for what was not opened":          {received(2, limit)},
		"data for what was not opened":              {data(2, 0, []byte("x"))},
		"data on stream 0":                          {data(0, 0, []byte("x"))},
		"a ping on a stream":                        {{tPing, 1, u64(1)}},
		"a ping of 7 bytes":                         {{tPing, 0, make([]byte, 7)}},
		"a pong of 9 bytes":                         {{tPong, 0, make([]byte, 9)}},
		"a second ATTACH":                           {newSession().frame()},
		"an ATTACHED from the dialler":              {attached(0, 5, "")},
		"an unknown type":                           {{0x42, 0, nil}},
		"type 0":                                    {{0, 0, nil}},
		"an unknown type on a stream":               {opened, {0x17, 1, []byte("x")}},
		"a reset without a code":                    {opened, {tReset, 1, nil}},
		"a reset with a long text":                  {opened, reset(1, 0, string(make([]byte, 300)))},
		"an empty RESUME":                           {{tResume, 0, nil}},
		"a RESUME cut in the links":                 {{tResume, 0, []byte{1, 0, 2, 0, 0, 0, 1}}},
		"a RESUME cut in an entry":                  {{tResume, 0, []byte{1, 0, 0, 1, 1}}},
		"a RESUME with an endless number":           {{tResume, 0, append([]byte{1, 0, 0}, bytes.Repeat([]byte{0xff}, 20)...)}},
		"a RESUME over the link that it calls lost": {opened, resume([]uint32{1}, entry{1, 1, 0, 1 << 20})},
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := dialTo(t, mux.Config{}, newSession())
				var raw []byte
				for _, f := range frames {
					raw = append(raw, f.bytes()...)
				}
				go func() { _, _ = p.conn.Write(raw) }()
				p.mustBeCutOff(t, s)
			})
		})
	}
	t.Run("a frame of a giant length", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, s := dialTo(t, mux.Config{}, newSession())
			_, _ = p.conn.Write([]byte{tData, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1})
			p.mustBeCutOff(t, s)
		})
	})
}

// filled is an open stream whose peer sent n bytes, in frames of the largest size.
func filled(n int) []frame {
	frames := []frame{asks(1, 1<<20, "m")}
	for at := 0; at < n; at += 64 << 10 {
		frames = append(frames, data(1, uint64(at), make([]byte, min(64<<10, n-at))))
	}
	return frames
}

// mustBeCutOff wants a CLOSE with the code of a broken protocol and a text, and the session's error to say the same.
func (p peer) mustBeCutOff(t *testing.T, s *mux.Session) {
	t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(time.Minute))
	code, text, ok := p.closing()
	if !ok || code != closedForProtocol || text == "" {
		t.Errorf("CLOSE: got code %d, text %q, came %t; want code %d with a reason", code, text, ok, closedForProtocol)
	}
	if s.Err() == nil {
		t.Error("the session lives")
	}
	t.Log(text)
}

const closedForProtocol = 1

// TestPeerThatIsOnlyLate sends what a peer may send in good faith; its session must go on.
func TestPeerThatIsOnlyLate(t *testing.T) {
	opened := asks(1, 1<<20, "m")
	tests := map[string][]frame{
		"data twice":                    {opened, data(1, 0, []byte("abc")), data(1, 0, []byte("abc"))},
		"data of which half is known":   {opened, data(1, 0, []byte("abc")), data(1, 1, []byte("bcdef"))},
		"an open twice":                 {opened, opened},
		"a stream twice in a RESUME":    {opened, resume(nil, entry{1, 1, 0, 1 << 20}, entry{1, 1, 0, 1 << 20})},
		"the end twice":                 {opened, data(1, 0, []byte("abc")), fin(1, 3), fin(1, 3)},
		"frames of a stream that ended": {opened, reset(1, 0, "bye"), data(1, 0, []byte("x")), fin(1, 1), window(1, 0, 5), reset(1, 0, "")},
		"a limit that shrinks":          {opened, window(1, 0, 10)},
		"opens out of order":            {asks(3, 1<<20, "b"), asks(1, 1<<20, "a")},
		"an end in place of an open":    {reset(1, 0, "canceled"), asks(3, 1<<20, "b")},
		"an unknown type to skip":       {{0xf0, 0, []byte("future")}, {0xf1, 77, make([]byte, 16<<10)}},
		"a pong for nothing":            {{tPong, 0, u64(77)}},
		"MORE from the dialler":         {{tMore, 0, nil}},
		"a RESUME of nothing":           {resume(nil)},
		"a RESUME of unknown streams":   {resume(nil, entry{2, 1, 0, 1 << 20}, entry{44, 1, 5, 1 << 20})},
		"a loss of unknown links":       {resume([]uint32{7, 8, 9})},
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := dialTo(t, mux.Config{}, newSession())
				p.send(frames...)
				p.send(ping(99))
				p.awaitPong(99)
				if s.Err() != nil {
					t.Errorf("the session ended: %v", s.Err())
				}
			})
		})
	}
}

// awaitPong passes over everything but the answer.
func (p peer) awaitPong(n uint64) {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Fatalf("%v in place of a PONG", err)
		}
		if f.typ == tClose {
			p.t.Fatalf("got %s, want PONG: %s", f, f.body[1:])
		}
		if f.typ == tPong && number(f.body) == n {
			return
		}
	}
}

// TestHandshakes has strangers attach links.
func TestHandshakes(t *testing.T) {
	wrongSecret := func(a *attachment) { a.secret[0]++ }
	tests := []struct {
		name   string
		change func(*attachment)
		status byte
	}{
		{"the session's own dialler", func(*attachment) {}, 0},
		{"a wrong secret", wrongSecret, 2},
		{"an old link number", func(a *attachment) { a.link = 1 }, 2},
		{"another session", func(a *attachment) { a.session[0]++ }, 1},
		{"a later version", func(a *attachment) { a.version = 2 }, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newSession()
				_, s := dialTo(t, mux.Config{}, a)
				a.kind, a.link = 1, 2
				test.change(&a)
				near, far := newCable(cableConfig{})
				p := peer{t, near}
				p.send(a.frame())
				go serveJoin(far, s)
				f := p.expect(tAttached, 0)
				if len(f.body) < 5 || f.body[0] != test.status {
					t.Errorf("got %s, want status %d", f, test.status)
				}
				if test.status != 0 {
					if f, err := p.next(); err == nil {
						t.Errorf("%s after a refusal", f)
					}
				}
				if s.Err() != nil {
					t.Errorf("a stranger ended the session: %v", s.Err())
				}
				want := 1
				if test.status == 0 {
					want = 2
				}
				if s.Live() != want {
					t.Errorf("%d links, want %d", s.Live(), want)
				}
				near.Close()
			})
		})
	}
}

// serveJoin is an acceptor that has one session.
func serveJoin(conn *cableEnd, s *mux.Session) {
	g, err := mux.Greet(conn, time.Second)
	if err != nil {
		return
	}
	if id, joins := g.Joins(); !joins || id != s.ID() {
		g.Refuse(mux.UnknownSession, "unknown")
		return
	}
	_ = g.Join(s)
}

// TestBadGreetings are connections that never become links: they must be closed, in time.
func TestBadGreetings(t *testing.T) {
	whole := newSession().frame().bytes()
	tests := map[string][]byte{
		"nothing":               nil,
		"half an ATTACH":        whole[:30],
		"another frame first":   ping(1).bytes(),
		"not the protocol":      []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"an ATTACH of 57":       frame{tAttach, 0, make([]byte, 57)}.bytes(),
		"an ATTACH of a mega":   {tAttach, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		"an ATTACH of link 0":   func() []byte { a := newSession(); a.link = 0; return a.frame().bytes() }(),
		"an ATTACH of kind 9":   func() []byte { a := newSession(); a.kind = 9; return a.frame().bytes() }(),
		"an ATTACH of a stream": frame{tAttach, 3, newSession().frame().body}.bytes(),
	}
	for name, bytes := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := newCable(cableConfig{})
				_, _ = near.Write(bytes)
				begun := time.Now()
				g, err := mux.Greet(far, 5*time.Second)
				if err == nil {
					t.Errorf("greeted: %v", g)
					g.Refuse(mux.UnknownSession, "")
				}
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("took %s, want 5 s at most", took)
				}
				_, _ = io.Copy(io.Discard, near) // hangs, and fails so, while the connection is open
				near.Close()
			})
		})
	}
}

// quiesce waits until a session has ended or reads nothing more.
func quiesce(s *mux.Session) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for before := int64(-1); s.Err() == nil; <-tick.C {
		in, _ := s.Bytes()
		if in == before {
			return
		}
		before = in
	}
}

// heap is the live heap, in bytes.
func heap() int64 {
	for range 3 { // pools empty in two
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemoryOfHostilePeers measures what a peer can make a session hold.
func TestMemoryOfHostilePeers(t *testing.T) {
	const (
		kib = int64(1) << 10
		mib = int64(1) << 20
	)
	tests := []struct {
		name   string
		most   int64
		attack func(p peer, s *mux.Session)
	}{
		{"opens streams for ever, reads nothing", 12 * mib, opensForEver},
		{"opens and resets streams for ever, reads nothing", 6 * mib, opensAndResetsForEver},
		{"opens every second stream", 12 * mib, opensEverySecond},
		{"floods pings, reads nothing", 1 * mib, floods(ping(1))},
		{"floods frames to skip", 1 * mib, floods(frame{0xf0, 0, make([]byte, 1000)})},
		{"floods RESUMEs that name links", 1 * mib, floods(resume([]uint32{5, 6, 7, 8, 9, 10, 11, 12}))},
		{"never ends a RESUME", 3 * mib, neverEndsAResume},
		{"fills the windows of 16 streams", 16*256*kib + 2*mib, fillsWindows},
		{"writes one byte at a time", 2 * mib, writesBytes},
		{"never answers a ping while streams end", 8 * mib, neverAnswers},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			near, far := newCable(cableConfig{room: 64 << 10})
			p := peer{t, near}
			p.send(newSession().frame())
			before := heap()
			s, err := mux.Server(far, mux.Config{MaxStreams: 1000, Budget: mux.NewBudget(4 << 20)})
			if err != nil {
				t.Fatal(err)
			}
			test.attack(p, s)
			quiesce(s)
			if grown := heap() - before; grown > test.most {
				t.Errorf("the session holds %d KiB, want at most %d; error %v", grown>>10, test.most>>10, s.Err())
			} else {
				t.Logf("%d KiB of %d, session's error: %v", grown>>10, test.most>>10, s.Err())
			}
			near.Close()
			s.Close(nil)
		})
	}
}

// sendFor sends frames until the link ends or takes no more for a moment.
func (p peer) sendFor(n int, next func(i int) []frame) {
	for i := range n {
		_ = p.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if p.trySend(next(i)...) != nil {
			return
		}
	}
}

func opensForEver(p peer, _ *mux.Session) {
	p.sendFor(200_000, func(i int) []frame { return []frame{asks(uint64(2*i+1), 1<<20, "metadata")} })
}

func opensAndResetsForEver(p peer, _ *mux.Session) {
	p.sendFor(200_000, func(i int) []frame {
		id := uint64(2*i + 1)
		return []frame{asks(id, 1<<20, "metadata"), reset(id, 0, "no")}
	})
}

func opensEverySecond(p peer, _ *mux.Session) {
	p.sendFor(200_000, func(i int) []frame {
		id := uint64(4*i + 1)
		return []frame{asks(id, 1<<20, "metadata"), reset(id, 0, "no")}
	})
}

func floods(f frame) func(peer, *mux.Session) {
	return func(p peer, _ *mux.Session) {
		p.sendFor(100_000, func(int) []frame { return []frame{f} })
	}
}

func neverEndsAResume(p peer, _ *mux.Session) {
	go func() { _, _ = io.Copy(io.Discard, p.conn) }()
	p.sendFor(20_000, func(i int) []frame {
		var entries []entry
		for j := range 1000 {
			entries = append(entries, entry{uint64(i*1000+j)*2 + 1, 1, 5, 9})
		}
		return []frame{resumePart(false, []uint32{uint32(i) + 2}, entries...)}
	})
}

func fillsWindows(p peer, s *mux.Session) {
	go func() { _, _ = io.Copy(io.Discard, p.conn) }()
	for i := range uint64(16) {
		id := 2*i + 1
		p.send(asks(id, 1<<20, "m"))
		for at := range uint64(4) {
			p.send(data(id, at<<16, make([]byte, 64<<10)))
		}
	}
	p.send(ping(1), ping(2))
	for in, _ := s.Bytes(); in < 16*256<<10; in, _ = s.Bytes() {
		runtime.Gosched()
	}
}

// writesBytes fills a window with frames of one byte, which must not cost a buffer each.
func writesBytes(p peer, s *mux.Session) {
	go func() { _, _ = io.Copy(io.Discard, p.conn) }()
	p.send(asks(1, 1<<20, "m"))
	const n = 256 << 10
	var all bytes.Buffer
	for i := range uint64(n) {
		all.Write(data(1, i, []byte{1}).bytes())
	}
	_, _ = p.conn.Write(all.Bytes())
	for in, _ := s.Bytes(); in < n*21 && s.Err() == nil; in, _ = s.Bytes() {
		runtime.Gosched()
	}
}

// neverAnswers has the session refuse streams for ever, whose goodbyes it must remember until a ping is answered.
func neverAnswers(p peer, s *mux.Session) {
	go func() { _, _ = io.Copy(io.Discard, p.conn) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() {
		for {
			st, err := s.Accept(ctx)
			if err != nil {
				return
			}
			_ = st.Refuse(1, string(make([]byte, 1000)))
		}
	}()
	p.sendFor(20_000, func(i int) []frame { return []frame{asks(uint64(2*i+1), 1<<20, "m")} })
}
