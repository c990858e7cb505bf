package mux_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// TestExactlyOnceInOrder is the heart of the proof: random streams over links that break at random bytes. A stream that
// nobody gave up, of a session that was never without a link for the resume window, arrives whole; every other ends with
// an error on both sides; none is ever short without one, nor has a byte twice.
//
// It runs for half a minute, and 50,000 rounds with CULVERT_TEST_LONG=1. CULVERT_MUX_SEED=N repeats round N, many
// times, because the order of goroutines is not in the seed.
func TestExactlyOnceInOrder(t *testing.T) {
	in := conditions{
		faults:   []fault{torn, drained, ended, blackhole, deaf},
		slow:     400 * time.Millisecond,
		patience: 30 * time.Minute,
		absences: true,
		mostSize: 4 << 20,
	}
	rounds(t, 30*time.Second, 50_000, func(t *testing.T, seed uint64) (failed bool) {
		synctest.Test(t, func(t *testing.T) {
			newRound(t, newRoundPlan(seed, in), memoryPeers{}).run()
			failed = t.Failed()
		})
		return failed
	})
}

// TestExactlyOnceOnSockets does the same in real time, with the users' ends on TCP, where the mux reads and writes without
// waiting. Links that fall silent are left to the other test: they take seconds.
func TestExactlyOnceOnSockets(t *testing.T) {
	in := conditions{
		faults:   []fault{torn, drained, ended},
		slow:     2 * time.Millisecond,
		patience: time.Minute,
		mostSize: 1 << 20,
	}
	rounds(t, 10*time.Second, 2_000, func(t *testing.T, seed uint64) bool {
		newRound(t, newRoundPlan(seed, in), newSocketPeers(t)).run()
		return t.Failed()
	})
}

// rounds runs rounds of consecutive seeds on several workers: for a time, or so many in a long test.
func rounds(t *testing.T, length time.Duration, long int64, round func(t *testing.T, seed uint64) (failed bool)) {
	t.Helper()
	base := rand.Uint64()
	if text := os.Getenv("CULVERT_MUX_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			if round(t, seed) {
				return
			}
		}
		return
	}
	fmt.Fprintf(os.Stdout, "%s: first seed %d\n", t.Name(), base) // not t.Log, which a panic in a goroutine of the mux swallows
	var next atomic.Int64
	var stop atomic.Bool
	begun := time.Now()
	more := func() (uint64, bool) {
		n := next.Add(1) - 1
		enough := time.Since(begun) > length
		if os.Getenv("CULVERT_TEST_LONG") == "1" {
			enough = n >= long
		}
		return base + uint64(n), !enough && !stop.Load()
	}
	t.Run("workers", func(t *testing.T) {
		for i := range 3 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for seed, ok := more(); ok; seed, ok = more() {
					if round(t, seed) {
						stop.Store(true)
						t.Logf("round %d failed: CULVERT_MUX_SEED=%d go test -run %s ./internal/mux", seed, seed,
							strings.SplitN(t.Name(), "/", 2)[0])
					}
				}
			})
		}
	})
	t.Logf("%d rounds in %s", next.Load(), time.Since(begun).Round(time.Second))
}

// round is one run of a plan.
type round struct {
	*roundPlan
	t      *testing.T
	peers  userEnds
	line   *line
	client *mux.Session
	server *mux.Session

	mu       sync.Mutex
	rng      *rand.Rand
	users    map[string]*user
	accepted map[int]int // how often each stream came out of Accept
}

func newRound(t *testing.T, plan *roundPlan, peers userEnds) *round {
	return &round{
		roundPlan: plan, t: t, peers: peers,
		rng:   rand.New(rand.NewPCG(plan.seed, 5)),
		users: map[string]*user{}, accepted: map[int]int{},
	}
}

// chance is a random duration below d.
func (r *round) chance(d time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(r.rng.Int64N(int64(d) + 1))
}

func (r *round) errorf(format string, args ...any) {
	r.t.Errorf("round %d: "+format, append([]any{r.seed}, args...)...)
}

// wait pauses, as the plan says.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *round) run() {
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	budget := mux.NewBudget(r.budget)
	cfg := mux.Config{Resume: r.resume, MaxLinks: r.links, Budget: budget}
	r.line = newLine(r, cfg)
	r.client, r.server = r.line.connect(ctx)
	if r.client == nil {
		r.errorf("no first connection")
		return
	}
	var all sync.WaitGroup
	streams := newCrowd()
	lineCtx, hangUp := context.WithCancel(ctx)
	all.Go(func() { r.line.keep(lineCtx) })
	all.Go(func() { r.line.grow(lineCtx) })
	all.Go(func() { r.line.stayAway(lineCtx) })
	acceptCtx, noMore := context.WithCancel(ctx)
	for _, s := range []*mux.Session{r.client, r.server} {
		all.Go(func() { r.acceptAll(acceptCtx, s, streams) })
	}
	for _, p := range r.streams {
		streams.Go(func() { r.openStream(ctx, p) })
	}
	r.await(ctx, streams)
	r.settle(ctx)
	noMore()
	hangUp()
	r.client.Close(nil)
	r.server.Close(nil)
	all.Wait()
	r.line.close()
	r.judge()
	if used := budget.Used(); used != 0 {
		r.errorf("%d bytes of the budget are in use after the end", used)
	}
	if r.t.Failed() {
		r.t.Log(r.report())
	}
}

// await waits for all streams; those that hang are reported and ended with their sessions.
func (r *round) await(ctx context.Context, streams *crowd) {
	done := make(chan struct{})
	go func() {
		streams.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		r.errorf("streams hang\n%s", r.report())
		r.client.Close(nil)
		r.server.Close(nil)
		<-done
	}
}

// settle waits until both sides have forgotten all streams, or their sessions have ended as they must.
func (r *round) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := func(s *mux.Session) bool {
		if r.lethal {
			return s.Err() != nil
		}
		return s.Err() != nil || s.Streams() == 0
	}
	for !over(r.client) || !over(r.server) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.errorf("not settled: client has %d streams, error %v; server %d, %v",
				r.client.Streams(), r.client.Err(), r.server.Streams(), r.server.Err())
			return
		}
	}
	if err := errors.Join(r.client.Err(), r.server.Err()); err != nil && !r.lethal {
		r.errorf("a session ended: client %v, server %v", r.client.Err(), r.server.Err())
	}
}

func (r *round) openStream(ctx context.Context, p streamPlan) {
	wait(ctx, p.begin)
	from := r.server
	if p.fromClient {
		from = r.client
	}
	meta := binary.BigEndian.AppendUint32(nil, uint32(p.index))
	meta = append(meta, make([]byte, p.index*7)...)
	st, err := from.Open(ctx, meta)
	for errors.Is(err, mux.ErrLost) && from.Err() == nil { // a session without a link opens nothing
		wait(ctx, r.slow/10)
		st, err = from.Open(ctx, meta)
	}
	if err != nil {
		if !r.lethal {
			r.errorf("open stream %d: %v", p.index, err)
		}
		return
	}
	r.use(ctx, st, p, 0)
}

func (r *round) acceptAll(ctx context.Context, s *mux.Session, streams *crowd) {
	for {
		st, err := s.Accept(ctx)
		if err != nil {
			return
		}
		index := int(binary.BigEndian.Uint32(st.Meta()))
		r.mu.Lock()
		r.accepted[index]++
		r.mu.Unlock()
		streams.Go(func() { r.use(ctx, st, r.streams[index], 1) })
	}
}

// use plays one side of a stream to its end.
func (r *round) use(ctx context.Context, st *mux.Stream, p streamPlan, side int) {
	u := &user{round: r, stream: p, side: side, st: st, name: fmt.Sprintf("stream %d side %d", p.index, side)}
	r.mu.Lock()
	r.users[u.name] = u
	r.mu.Unlock()
	u.live(ctx)
}

// judge compares what both sides of every stream saw.
func (r *round) judge() {
	for _, p := range r.streams {
		if n := r.accepted[p.index]; n > 1 {
			r.errorf("stream %d was accepted %d times", p.index, n)
		}
		for side := range 2 {
			u := r.users[fmt.Sprintf("stream %d side %d", p.index, side)]
			if u == nil {
				if !r.lethal && p.clean() {
					r.errorf("stream %d never reached side %d", p.index, side)
				}
				continue
			}
			u.judge(r.users[fmt.Sprintf("stream %d side %d", p.index, 1-side)])
		}
	}
}

func (r *round) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", r.roundPlan, r.line)
	fmt.Fprintf(&b, "client: live %d, err %v; server: live %d, err %v\n",
		r.client.Live(), r.client.Err(), r.server.Live(), r.server.Err())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.streams {
		a, b2 := r.users[fmt.Sprintf("stream %d side 0", p.index)], r.users[fmt.Sprintf("stream %d side 1", p.index)]
		if !a.whole() || !b2.whole() {
			fmt.Fprintf(&b, "%+v\n  %s\n  %s\n", p, a, b2)
		}
	}
	return b.String()
}

// crowd waits for goroutines of which others may start while somebody waits, which a sync.WaitGroup does not allow.
type crowd struct {
	mu    sync.Mutex
	n     int
	empty sync.Cond
}

func newCrowd() *crowd {
	c := &crowd{}
	c.empty.L = &c.mu
	return c
}

func (c *crowd) Go(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	go func() {
		defer c.leave()
		f()
	}()
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 {
		c.empty.Broadcast()
	}
}

func (c *crowd) Wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n > 0 {
		c.empty.Wait()
	}
}
