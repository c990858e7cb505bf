package mux_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/mux"
)

// user is one side of a stream, with what it saw.
type user struct {
	*round
	stream streamPlan
	side   int // 0 opened it
	st     *mux.Stream
	name   string

	wrote, got atomic.Int64
	gaveUp     atomic.Bool

	mu     sync.Mutex
	facts  facts
	errs   []error // that a user of a clean stream must not see
	broken []string
}

// facts are what a user knows at its end.
type facts struct {
	ended    bool  // its CloseWrite or End was accepted behind all its bytes
	sawEnd   bool  // it read the end
	readErr  error // what ended reading otherwise
	writeErr error
	result   error
	closed   bool
}

func (u *user) plan() sidePlan { return u.stream.sides[u.side] }

func (u *user) String() string {
	if u == nil {
		return "never began"
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return fmt.Sprintf("%s: wrote %d of %d, got %d of %d, gave up %t, %+v, errors %v, broken %v", u.name, u.wrote.Load(),
		u.plan().size, u.got.Load(), u.stream.sides[1-u.side].size, u.gaveUp.Load(), u.facts, u.errs, u.broken)
}

func (u *user) learn(f func(*facts)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.facts)
}

func (u *user) failed(what string, err error) {
	if err == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.errs = append(u.errs, fmt.Errorf("%s: %w", what, err))
}

// wrong notes a breach that no plan excuses.
func (u *user) wrong(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.broken = append(u.broken, fmt.Sprintf(format, args...))
}

func (u *user) live(ctx context.Context) {
	if u.side == 1 {
		wait(ctx, u.stream.decide)
		if code := u.stream.refuse; code != 0 {
			u.failed("refuse", u.st.Refuse(code, "no"))
			return
		}
		u.failed("confirm", u.st.Confirm())
	}
	var both sync.WaitGroup
	both.Go(func() { u.write(ctx) })
	if u.side == 0 {
		both.Go(func() {
			err := u.st.Result(ctx)
			u.learn(func(f *facts) { f.result = err })
		})
	}
	if u.plan().ending != hangsUp || u.plan().along {
		both.Go(func() { u.read(ctx) })
	}
	both.Wait()
	switch {
	case u.plan().ending != hangsUp:
		err := u.st.Close()
		u.failed("close", err)
		u.learn(func(f *facts) { f.closed = err == nil })
	case !u.facts.ended:
		_ = u.st.Reset()
	}
}

// whole says that the user did and got all that it could.
func (u *user) whole() bool { return u != nil && u.facts.ended && u.facts.sawEnd && u.facts.closed }

// giveUp ends the stream before its time once the plan's byte is reached.
func (u *user) giveUp() {
	p := u.plan()
	if p.ending != resets && p.ending != leaves {
		return
	}
	n := u.wrote.Load()
	if p.byRead {
		n = u.got.Load()
	}
	if n < int64(p.at) {
		return
	}
	if !u.gaveUp.CompareAndSwap(false, true) { // a sync.Once is a mutex, which stops a bubble's clock
		return
	}
	if p.ending == resets {
		_ = u.st.Reset()
	} else {
		_ = u.st.Close()
	}
}

func (u *user) write(ctx context.Context) {
	if u.side == 0 && !u.stream.early {
		select {
		case <-u.st.Received():
		case <-u.st.Decided():
		case <-ctx.Done():
		}
	}
	u.giveUp()
	src := &source{u: u, ctx: ctx, rng: rand.New(rand.NewPCG(u.seed, uint64(u.stream.index*2+u.side)))}
	var err error
	if u.plan().copies {
		err = u.pull(src)
	} else {
		err = u.writeAll(src)
	}
	if err != nil {
		u.failed("write", err)
		u.learn(func(f *facts) { f.writeErr = err })
		return
	}
	u.giveUp()
	end := u.st.CloseWrite
	if u.plan().ending == hangsUp {
		end = u.st.End
	}
	err = end()
	u.failed("half-close", err)
	u.learn(func(f *facts) { f.ended = err == nil })
}

func (u *user) pull(src *source) error {
	from, stop := u.peers.source(src)
	defer stop()
	readErr, writeErr := u.st.Pull(from, func(n int) {
		u.wrote.Add(int64(n))
		u.giveUp()
	})
	if readErr != nil && writeErr != nil {
		u.wrong("pull ended with two errors: %v and %v", readErr, writeErr)
	}
	return errors.Join(readErr, writeErr)
}

func (u *user) writeAll(src *source) error {
	buf := make([]byte, u.plan().chunk)
	for {
		n, err := src.Read(buf)
		if err == io.EOF {
			return nil
		}
		for p := buf[:n]; len(p) > 0; {
			if u.plan().hasty {
				_ = u.st.SetWriteDeadline(time.Now().Add(u.chance(u.slow)))
			}
			k, err := u.st.Write(p)
			u.wrote.Add(int64(k))
			p = p[k:]
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			if err == nil && len(p) > 0 {
				u.wrong("Write took %d bytes fewer without an error", len(p))
			}
		}
		u.giveUp()
	}
}

func (u *user) read(ctx context.Context) {
	u.giveUp()
	dst := &sink{u: u, ctx: ctx}
	var err error
	if u.plan().copies {
		err = u.push(dst)
	} else {
		err = u.readAll(dst)
	}
	u.failed("read", err)
	u.learn(func(f *facts) { f.sawEnd, f.readErr = err == nil, err })
	if want := int64(u.stream.sides[1-u.side].size); err == nil && u.got.Load() != want {
		u.wrong("a clean end after %d bytes of %d", u.got.Load(), want)
	}
}

func (u *user) push(dst *sink) error {
	to, wait := u.peers.sink(dst)
	type end struct{ readErr, writeErr error }
	over := make(chan end, 2)
	u.st.Push(to, func(int) {}, func(readErr, writeErr error) { over <- end{readErr, writeErr} })
	e := <-over
	wait() // until the sink has what was written
	if e.readErr != nil && e.writeErr != nil {
		u.wrong("push ended with two errors: %v and %v", e.readErr, e.writeErr)
	}
	if len(over) > 0 {
		u.wrong("push ended twice")
	}
	return errors.Join(e.readErr, e.writeErr)
}

func (u *user) readAll(dst *sink) error {
	buf := make([]byte, 1+max(u.plan().chunk, u.stream.sides[1-u.side].size/200))
	for {
		if u.plan().hasty {
			_ = u.st.SetReadDeadline(time.Now().Add(u.chance(u.slow)))
		}
		n, err := u.st.Read(buf)
		_, _ = dst.Write(buf[:n])
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !u.plan().hasty {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// judge says what the plans and the other side make of what this side saw.
func (u *user) judge(other *user) {
	for _, b := range u.broken {
		u.errorf("%s: %s", u.name, b)
	}
	if u.lethal {
		return // its reads and writes came to an end, and what it read was right
	}
	if u.facts.sawEnd && other != nil && !other.facts.ended {
		u.errorf("%s read an end that the other side never wrote", u.name)
	}
	p := u.stream
	if p.clean() {
		for _, err := range u.errs {
			u.errorf("%s: %v", u.name, err)
		}
		if !u.facts.sawEnd || !u.facts.ended || !u.facts.closed || u.facts.result != nil {
			u.errorf("%s has not completed: %+v", u.name, u.facts)
		}
		return
	}
	u.judgeUnclean(other)
}

func (u *user) judgeUnclean(other *user) {
	p := u.stream
	if p.refuse != 0 && u.side == 0 && p.sides[0].ending == finishes {
		var refusal *mux.Refusal
		if !errors.As(u.facts.result, &refusal) || refusal.Code != p.refuse || refusal.Detail != "no" {
			u.errorf("%s: result %v, want refusal %d", u.name, u.facts.result, p.refuse)
		}
		if u.facts.sawEnd {
			u.errorf("%s: a refused stream was read to an end", u.name)
		}
		return
	}
	// One that hung up still delivers what it wrote.
	if p.refuse == 0 && other != nil && other.plan().ending == hangsUp && u.plan().ending == finishes &&
		other.facts.ended && !u.facts.sawEnd {
		u.errorf("%s: the other side wrote all and ended, but %v was read", u.name, u.facts.readErr)
	}
}

// pattern has a prime length, so that a shift is a difference.
var pattern = sync.OnceValue(func() []byte {
	p := make([]byte, 65521)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(p)
	return p
})

// content writes into p what side of stream index sends at an offset, and differs is where got differs from that.
func content(index, side int, offset int64, p []byte) {
	all := pattern()
	at := int((offset + int64(index*2+side)*7919) % int64(len(all)))
	for len(p) > 0 {
		n := copy(p, all[at:])
		p, at = p[n:], 0
	}
}

// source gives a side's bytes at the plan's pace.
type source struct {
	u      *user
	ctx    context.Context
	rng    *rand.Rand
	offset int64
	reads  int
}

func (s *source) Read(p []byte) (int, error) {
	plan := s.u.plan()
	left := int64(plan.size) - s.offset
	if left == 0 {
		return 0, io.EOF
	}
	if s.reads++; s.reads%plan.pauses == 0 {
		wait(s.ctx, plan.pause)
	}
	n := min(int64(len(p)), left, 1+int64(s.rng.IntN(plan.chunk)))
	content(s.u.stream.index, s.u.side, s.offset, p[:n])
	s.offset += n
	return int(n), nil
}

// sink checks the other side's bytes and takes them at the plan's pace.
type sink struct {
	u      *user
	ctx    context.Context
	writes int
	buf    []byte
}

func (s *sink) Write(p []byte) (int, error) {
	plan := s.u.plan()
	if s.writes++; s.writes%plan.pauses == 0 && s.writes < 300 {
		wait(s.ctx, plan.pause)
	}
	if cap(s.buf) < len(p) {
		s.buf = make([]byte, len(p))
	}
	want := s.buf[:len(p)]
	at := s.u.got.Load()
	content(s.u.stream.index, 1-s.u.side, at, want)
	if !bytes.Equal(p, want) {
		i := 0
		for p[i] == want[i] {
			i++
		}
		s.u.wrong("byte %d differs", at+int64(i))
	}
	s.u.got.Add(int64(len(p)))
	s.u.giveUp()
	return len(p), nil
}

// userEnds makes what Pull reads from and Push writes to.
type userEnds interface {
	source(s *source) (from io.Reader, stop func())
	// sink's wait returns when the sink has all that was written.
	sink(s *sink) (to net.Conn, wait func())
}

// memoryPeers are users without sockets.
type memoryPeers struct{}

func (memoryPeers) source(s *source) (io.Reader, func()) { return s, func() {} }

func (memoryPeers) sink(s *sink) (net.Conn, func()) {
	near, far := newCable(cableConfig{room: 8 << 10})
	var drained sync.WaitGroup
	drained.Go(func() { drain(far, s) })
	return near, func() {
		near.Close()
		drained.Wait()
	}
}

// drain takes what comes on conn to the sink.
func drain(conn net.Conn, s *sink) {
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		_, _ = s.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// socketPeers are users on TCP.
type socketPeers struct {
	t      testing.TB
	listen net.Listener

	mu sync.Mutex // from a dial to its accept
}

func newSocketPeers(t testing.TB) *socketPeers {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &socketPeers{t: t, listen: ln}
}

// pair joins two sockets.
func (p *socketPeers) pair() (a, b net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, err := net.Dial("tcp", p.listen.Addr().String())
	if err != nil {
		p.t.Error(err)
		return newCable(cableConfig{})
	}
	b, err = p.listen.Accept()
	if err != nil {
		p.t.Error(err)
	}
	return a, b
}

func (p *socketPeers) source(s *source) (io.Reader, func()) {
	near, far := p.pair()
	var feeding sync.WaitGroup
	feeding.Go(func() {
		_, _ = io.Copy(struct{ io.Writer }{far}, s)
		far.Close()
	})
	return near, func() {
		near.Close()
		feeding.Wait()
	}
}

func (p *socketPeers) sink(s *sink) (net.Conn, func()) {
	near, far := p.pair()
	for _, c := range []net.Conn{near, far} { // so that not everything fits
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(16 << 10)
			_ = tcp.SetReadBuffer(32 << 10)
		}
	}
	var drained sync.WaitGroup
	drained.Go(func() {
		drain(far, s)
		far.Close()
	})
	return near, func() {
		near.Close()
		drained.Wait()
	}
}
