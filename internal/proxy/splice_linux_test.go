package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/upstream"
)

// heavily is a visitor and a service with a relay between them that may splice.
type heavily struct {
	joined
	carrier *Carrier
	spliced [2]atomic.Bool // whether something of a direction has gone through a pipe
}

// joinHeavily relays between a and b, whose far ends are visitor and service.
func joinHeavily(ctx context.Context, c *Carrier, visitor, service *net.TCPConn, a, b upstream.Conn) *heavily {
	h := &heavily{joined: joined{visitor: visitor, service: service}, carrier: c}
	h.done = between(ctx, c, a, b, func(d Direction, n int) {
		map[Direction]*atomic.Int64{In: &h.in, Out: &h.out}[d].Add(int64(n))
		if c.hands.pipes.lent() > 0 { // by this direction, if only one of them moves
			h.spliced[d].Store(true)
		}
	})
	return h
}

func heavy(t testing.TB, ctx context.Context) *heavily {
	visitor, a := pair(t)
	b, service := pair(t)
	return joinHeavily(ctx, new(Carrier), visitor, service, upstream.FromTCP(a), upstream.FromTCP(b))
}

func (s *pipes) lent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open - len(s.idle)
}

func (s *pipes) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// text is n bytes that do not repeat soon.
func text(rnd *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

// sizes gives pieces as they come on a network: mostly large or mostly small for a while.
func sizes(rnd *rand.Rand) func(left int) int {
	most := 1
	return func(left int) int {
		if rnd.IntN(8) == 0 {
			most = 1 << rnd.IntN(20)
		}
		return min(left, 1+rnd.IntN(most))
	}
}

func sendIn(c io.Writer, p []byte, size func(int) int) error {
	for len(p) > 0 {
		n, err := c.Write(p[:size(len(p))])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func receiveIn(c io.Reader, size func(int) int) ([]byte, error) {
	var all []byte
	for {
		p := make([]byte, size(1<<20))
		n, err := c.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		} else if err != nil {
			return all, err
		}
	}
}

// Whatever the pieces are, both sides get exactly what the other one said, and its end.
func TestHeavyRelayIsExact(t *testing.T) {
	rounds := 20
	if os.Getenv("CULVERT_TEST_LONG") != "" {
		rounds = 500
	}
	var spliced [2]int
	for range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := heavy(t, t.Context())
			h.exact(t, seed)
			for d := range spliced {
				if h.spliced[d].Load() {
					spliced[d]++
				}
			}
			if n := h.carrier.hands.pipes.lent(); n != 0 {
				t.Errorf("%d pipes are still lent", n)
			}
		})
	}
	if spliced[In] == 0 || spliced[Out] == 0 {
		t.Errorf("of %d relays %v went through a pipe, in and out", rounds, spliced)
	}
}

// TestCopiedRelayIsExact is the same without pipes.
func TestCopiedRelayIsExact(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			visitor, a := pair(t)
			b, service := pair(t)
			j := &joined{visitor: visitor, service: service, done: make(chan error, 1)}
			count := func(d Direction, n int) { map[Direction]*atomic.Int64{In: &j.in, Out: &j.out}[d].Add(int64(n)) }
			carryUnfit(t.Context(), a, b, count, j.done)
			j.exact(t, seed)
		})
	}
}

// carryUnfit relays without pipes.
func carryUnfit(ctx context.Context, a, b *net.TCPConn, count func(Direction, int), done chan<- error) {
	r := &relay{hands: new(hands), count: count, over: func(err error) { done <- err }}
	r.carry(ctx, func() bool {
		r.join(upstream.FromTCP(a), upstream.FromTCP(b))
		r.in.unfit, r.out.unfit = true, true
		return true
	})
}

// exact has both sides say something at once, in pieces of all sizes, and compares what came.
func (j *joined) exact(t *testing.T, seed uint64) {
	t.Helper()
	var want, got [2][]byte
	var errs [4]error
	var all sync.WaitGroup
	for d, ends := range [2][2]*net.TCPConn{In: {j.visitor, j.service}, Out: {j.service, j.visitor}} {
		rnd := rand.New(rand.NewPCG(seed, uint64(d)))
		want[d] = text(rnd, rnd.IntN(8<<20))
		if rnd.IntN(4) == 0 {
			want[d] = nil // one way alone
		}
		send, receive := sizes(rnd), sizes(rand.New(rand.NewPCG(seed, uint64(d)+2)))
		all.Go(func() {
			errs[2*d] = sendIn(ends[0], want[d], send)
			_ = ends[0].CloseWrite()
		})
		all.Go(func() { got[d], errs[2*d+1] = receiveIn(ends[1], receive) })
	}
	all.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Error(err)
	}
	if err := <-j.done; err != nil {
		t.Errorf("relay gave %v", err)
	}
	for d, count := range []int64{j.in.Load(), j.out.Load()} {
		if !bytes.Equal(got[d], want[d]) || count != int64(len(want[d])) {
			t.Errorf("direction %d: %d bytes came and %d were counted of %d, equal %t", d, len(got[d]), count, len(want[d]), bytes.Equal(got[d], want[d]))
		}
	}
}

// makeHeavy sends until the direction goes through a pipe, and has it received.
func (h *heavily) makeHeavy(t testing.TB, d Direction) {
	t.Helper()
	from, to := h.visitor, h.service
	if d == Out {
		from, to = to, from
	}
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for range 10_000 {
		if h.spliced[d].Load() {
			return
		}
		if _, err := from.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, q); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("nothing went through a pipe")
}

// TestHeavyRelayPassesEndsOn has each kind of end come after much has moved.
func TestHeavyRelayPassesEndsOn(t *testing.T) {
	for _, way := range []struct {
		name string
		d    Direction
	}{{"upload", In}, {"download", Out}} {
		for _, tt := range []struct {
			name string
			ends func(from, to *net.TCPConn)
			rest string // what from reads
			err  error  // of both
		}{
			{"half-close", func(from, to *net.TCPConn) {
				_ = from.CloseWrite()
				_, _ = io.WriteString(to, "answer")
				_ = to.CloseWrite()
			}, "answer", nil},
			{"the sender resets", func(from, _ *net.TCPConn) { _ = upstream.FromTCP(from).Reset() }, "", syscall.ECONNRESET},
			{"the receiver resets", func(_, to *net.TCPConn) { _ = upstream.FromTCP(to).Reset() }, "", syscall.ECONNRESET},
		} {
			t.Run(way.name+", "+tt.name, func(t *testing.T) {
				h := heavy(t, t.Context())
				h.makeHeavy(t, way.d)
				from, to := h.visitor, h.service
				if way.d == Out {
					from, to = to, from
				}
				tt.ends(from, to)
				if p, err := io.ReadAll(from); !errors.Is(err, tt.err) && !errors.Is(err, net.ErrClosed) || string(p) != tt.rest {
					t.Errorf("the sender read %q, %v, want %q, %v", p, err, tt.rest, tt.err)
				}
				if p, err := io.ReadAll(to); !errors.Is(err, tt.err) && !errors.Is(err, net.ErrClosed) || len(p) > 0 {
					t.Errorf("the receiver read %q, %v, want %v", p, err, tt.err)
				}
				if err := <-h.done; !errors.Is(err, tt.err) {
					t.Errorf("relay gave %v, want %v", err, tt.err)
				}
			})
		}
	}
}

// TestSpliceTellsTheSides has a single direction, so that it is the one to hear of an end.
func TestSpliceTellsTheSides(t *testing.T) {
	for _, tt := range []struct {
		name            string
		ends            func(from, to *net.TCPConn)
		readErr, wrtErr error
	}{
		{"the source ends", func(from, _ *net.TCPConn) { _ = from.CloseWrite() }, nil, nil},
		{"the source resets", func(from, _ *net.TCPConn) { _ = upstream.FromTCP(from).Reset() }, syscall.ECONNRESET, nil},
		{"the destination resets", func(from, to *net.TCPConn) {
			_ = upstream.FromTCP(to).Reset()
			_, _ = from.Write(make([]byte, 64<<10))
		}, nil, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, src := pair(t)
			dst, to := pair(t)
			r := relay{hands: new(hands)}
			d := direction{relay: &r, src: upstream.FromTCP(src), dst: upstream.FromTCP(dst), weight: heavyAfter}
			d.descriptors()
			tt.ends(from, to)
			over, readErr, writeErr := d.splice()
			if !over || !errors.Is(readErr, tt.readErr) || !errors.Is(writeErr, tt.wrtErr) {
				t.Errorf("splice gave %t, read %v, write %v, want %v and %v", over, readErr, writeErr, tt.readErr, tt.wrtErr)
			}
			if n := r.hands.pipes.lent(); n != 0 {
				t.Errorf("%d pipes are still lent", n)
			}
		})
	}
}

// stall sends until the relay takes no more, so that a pipe stands full.
func (h *heavily) stall(t testing.TB) {
	t.Helper()
	for p, n := make([]byte, 1<<20), 1; n > 0; { // what was taken in a while says that there may be more
		_ = h.visitor.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, _ = h.visitor.Write(p)
	}
}

func TestPipeThatIsNotEmptyIsClosed(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends func(h *heavily, cancel context.CancelFunc)
	}{
		{"the context ends", func(_ *heavily, cancel context.CancelFunc) { cancel() }},
		{"the receiver resets", func(h *heavily, _ context.CancelFunc) { _ = upstream.FromTCP(h.service).Reset() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h := heavy(t, ctx)
			h.makeHeavy(t, In)
			h.stall(t)
			if n := h.carrier.hands.pipes.lent(); n != 1 {
				t.Errorf("%d pipes are lent while the receiver stalls, want 1", n)
			}
			tt.ends(h, cancel)
			if err := <-h.done; err == nil {
				t.Error("relay gave nil")
			}
			if n := h.carrier.hands.pipes.opened(); n != 0 {
				t.Errorf("%d pipes are open after it, want none", n)
			}
		})
	}
}

func TestHalfClosedAndStalledPipeIsReset(t *testing.T) {
	visitor, a := pair(t)
	b, service := pair(t)
	var h hands
	done := make(chan error, 1)
	r := relay{hands: &h, halfClosed: 1500 * time.Millisecond, over: func(err error) { done <- err }}
	_ = service.CloseWrite()
	r.carry(t.Context(), func() bool {
		r.join(upstream.FromTCP(a), upstream.FromTCP(b))
		r.in.weight = heavyAfter
		return true
	})
	go func() { _ = sendIn(visitor, make([]byte, 64<<20), func(n int) int { return n }) }()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "half-closed") {
		t.Errorf("relay gave %v", err)
	}
	if by, err := r.firstEnd(); by != endServer || err == nil { // the service said no more, and then it was cut off
		t.Errorf("it was ended by %d, %v, want the server and why", by, err)
	}
	if n := h.pipes.opened(); n != 0 {
		t.Errorf("%d pipes are open", n)
	}
}

// appended is a Conn whose descriptor takes nothing from pipes: a file that is appended to.
type appended struct {
	upstream.Conn
	file *os.File
}

func (a appended) Write(p []byte) (int, error)           { return a.file.Write(p) }
func (a appended) SyscallConn() (syscall.RawConn, error) { return a.file.SyscallConn() }
func (a appended) CloseWrite() error                     { return nil }

func TestWhatIsInAPipeIsNotLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	visitor, src := pair(t)
	var moved atomic.Int64
	r := relay{hands: new(hands), count: func(_ Direction, n int) { moved.Add(int64(n)) }}
	d := direction{relay: &r, src: upstream.FromTCP(src), dst: appended{upstream.FromTCP(visitor), f}, weight: heavyAfter}
	want := text(rand.New(rand.NewPCG(1, 1)), 4<<20)
	go func() {
		_ = sendIn(visitor, want, func(n int) int { return n })
		_ = visitor.CloseWrite()
	}()
	d.descriptors()
	if over, readErr, writeErr := d.splice(); over || !d.unfit || d.heavy() || moved.Load() == 0 {
		t.Errorf("splice gave %t, %v, %v after %d bytes, and the direction is unfit: %t", over, readErr, writeErr, moved.Load(), d.unfit)
	}
	if readErr, writeErr := d.transfer(); readErr != nil || writeErr != nil {
		t.Errorf("transfer gave %v, %v", readErr, writeErr)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) || moved.Load() != int64(len(want)) {
		t.Errorf("%d bytes came and %d were counted of %d, equal %t, %v", len(got), moved.Load(), len(want), bytes.Equal(got, want), err)
	}
}

// descriptors is how many this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all) - 1 // the folder itself
}

// awaitDescriptors waits until no more than most are open, or for long enough.
func awaitDescriptors(t testing.TB, most int) (n int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if n = descriptors(t); n <= most {
			break
		}
		<-tick.C
	}
	return n
}

func TestIdleConnectionHasTwoDescriptors(t *testing.T) {
	const n = 20
	var c Carrier
	var near, far [2 * n]*net.TCPConn
	for i := range near {
		near[i], far[i] = pair(t)
	}
	before := descriptors(t) // with two for each connection of the relay
	var all []*heavily
	for i := range n {
		h := joinHeavily(t.Context(), &c, near[2*i], near[2*i+1], upstream.FromTCP(far[2*i]), upstream.FromTCP(far[2*i+1]))
		h.makeHeavy(t, In)
		h.makeHeavy(t, Out)
		all = append(all, h)
	}
	const sleepers = 1 // a descriptor for all
	if got := awaitDescriptors(t, before+sleepers); got > before+sleepers {
		t.Errorf("%d idle connections have %d descriptors more than two each", n, got-before)
	}
	for _, h := range all {
		h.visitor.Close()
		h.service.Close()
		<-h.done
	}
	if got := awaitDescriptors(t, before-4*n); got > before-4*n {
		t.Errorf("%d descriptors are left", got-before+4*n)
	}
}

func TestPipesAreBoundedUsedAgainAndClosed(t *testing.T) {
	before := descriptors(t)
	synctest.Test(t, func(t *testing.T) {
		var s pipes
		var lent []*pipe
		for range maxPipes {
			p := s.borrow()
			if p == nil {
				t.Fatal("no pipe")
			}
			lent = append(lent, p)
		}
		if p := s.borrow(); p != nil {
			t.Errorf("there are more than %d", maxPipes)
		}
		for i, p := range lent {
			s.giveBack(p, i%2 == 0)
		}
		if got, want := descriptors(t)-before, maxPipes; got > want+2 { // two a pipe, for half of them; synctest may have some
			t.Errorf("%d descriptors after those not empty were closed, want %d", got, want)
		}
		for range 30 { // one at a time for longer than any is kept
			p := s.borrow()
			time.Sleep(spareTime / 10)
			s.giveBack(p, true)
		}
		synctest.Wait()
		if n := s.opened(); n != 1 {
			t.Errorf("%d pipes are open for one at a time, want 1", n)
		}
		time.Sleep(3 * spareTime)
		synctest.Wait()
		if n := s.opened(); n != 0 {
			t.Errorf("%d pipes are open for nothing, want none", n)
		}
	})
	if got := descriptors(t); got > before {
		t.Errorf("%d descriptors are left", got-before)
	}
}

// limitDescriptors has the process open no more than most, until the test ends.
func limitDescriptors(t *testing.T, most uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = most
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
}

func TestPipesLeaveDescriptorsForConnections(t *testing.T) {
	const most = 2048 // beyond what this process may have from who started it
	limitDescriptors(t, most)
	var all []*pipe
	for p := newPipe(); p != nil; p = newPipe() {
		all = append(all, p)
		defer p.close()
		if p.in >= most-most/8 || p.out >= most-most/8 {
			t.Errorf("a pipe has descriptors %d and %d of %d", p.in, p.out, most)
		}
	}
	if len(all) == 0 {
		t.Error("there is no pipe at all")
	}
	for range most / 8 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatalf("nothing is left for connections: %v", err)
		}
		defer f.Close()
	}
}

func TestRelayWithoutPipesCopies(t *testing.T) {
	h := heavy(t, t.Context())
	limitDescriptors(t, 3)
	want := text(rand.New(rand.NewPCG(1, 1)), 8<<20)
	go func() {
		_ = sendIn(h.visitor, want, func(n int) int { return n })
		_ = h.visitor.CloseWrite()
		_ = h.service.CloseWrite()
	}()
	if got, err := io.ReadAll(h.service); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if err := <-h.done; err != nil {
		t.Errorf("relay gave %v", err)
	}
	if h.spliced[In].Load() {
		t.Error("a pipe was opened although there are no descriptors")
	}
}

// A pipe is lent while there is something to move: not while a heavy direction waits.
func TestPipeIsGivenBackBeforeTheWait(t *testing.T) {
	from, src := pair(t)
	dst, to := pair(t)
	r := relay{hands: new(hands)}
	d := direction{relay: &r, src: upstream.FromTCP(src), dst: upstream.FromTCP(dst), weight: heavyAfter}
	d.descriptors()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = d.splice()
	}()
	p := make([]byte, 64<<10)
	if _, err := from.Write(p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, p); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); r.hands.pipes.lent() > 0; <-tick.C {
		if time.Now().After(end) {
			t.Error("the pipe is lent while there is nothing to move")
			break
		}
	}
	if n := r.hands.pipes.opened(); n != 1 {
		t.Errorf("%d pipes were opened, want 1", n)
	}
	_ = from.CloseWrite()
	<-done
}

func TestManySmallPiecesAreNotHeavy(t *testing.T) {
	h := heavy(t, t.Context())
	go echo(h.service)
	p := make([]byte, 1024)
	for range 2000 {
		if _, err := h.visitor.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(h.visitor, p); err != nil {
			t.Fatal(err)
		}
	}
	if h.spliced[In].Load() || h.spliced[Out].Load() {
		t.Error("small messages went through a pipe")
	}
	h.visitor.Close()
	h.service.Close()
	<-h.done
}

// BenchmarkRelayBulk is a download, its service and its visitor included.
func BenchmarkRelayBulk(b *testing.B) {
	for _, tt := range []struct {
		name  string
		carry func(a, b *net.TCPConn, done chan error)
	}{
		{"splice", func(x, y *net.TCPConn, done chan error) {
			new(Carrier).Carry(b.Context(), func() (_, _ upstream.Conn, _ error) {
				return upstream.FromTCP(x), upstream.FromTCP(y), nil
			}, nil, func(err error) { done <- err })
		}},
		{"copy", func(x, y *net.TCPConn, done chan error) { carryUnfit(b.Context(), x, y, nil, done) }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			visitor, a := pair(b)
			c, far := pair(b)
			done := make(chan error, 1)
			tt.carry(a, c, done)
			p := make([]byte, 128<<10)
			go func() {
				for q := make([]byte, 128<<10); ; {
					if _, err := far.Write(q); err != nil {
						return
					}
				}
			}()
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := io.ReadFull(visitor, p); err != nil {
					b.Fatal(err)
				}
			}
			visitor.Close()
			far.Close()
			<-done
		})
	}
}
