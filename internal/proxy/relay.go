// Package proxy is the data path: it takes a visitor's connection or request, has an upstream's members tried in order
// and relays, as bytes or as HTTP.
//
// It guarantees that what a visitor sent reaches at most one service: nothing is sent to a second member once a first
// one may have passed it on. An abort is passed on as an abort, never as an end, so what was cut short never looks
// complete. It does not accept connections and knows nothing of sessions: members do.
package proxy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/upstream"
)

// Direction is the way that bytes go.
type Direction uint8

// The directions, as a visitor's side sees them.
const (
	In  Direction = iota // from the visitor to the service
	Out                  // from the service to the visitor
)

// halfClosedTimeout is how long the second direction may stand still after the first has ended.
const halfClosedTimeout = 10 * time.Minute

// Relay copies between a visitor's side a and a service's side b, both ways, until both directions have ended, and
// closes both. It owns a and b from the call on, and nothing of it is left when it returns.
//
// The end of one direction is passed on, and the other one goes on. An abort of either side, a second direction that
// stands still for ten minutes, and the end of the context abort both sides; then Relay returns the reason. A side that
// no longer listens is still heard to its end, because an early answer belongs to the visitor; then both are aborted.
//
// While nothing moves it costs no buffer where a connection gives its descriptor, and with a stream that copies by itself
// (pusher, puller) on one side no goroutine but the caller's, which keeps the small stack that it began with.
//
// count, if not nil, is called with the number of bytes of each write, from two goroutines.
func Relay(ctx context.Context, a, b upstream.Conn, count func(Direction, int)) error {
	return carry(ctx, nil, func() (upstream.Conn, upstream.Conn, error) { return a, b, nil }, count)
}

// Carrier relays for many connections. The zero value is ready for use, and safe for concurrent use. It must not be copied.
type Carrier struct{ hands hands }

// Carry is Relay between two sides that connect makes. An error of connect is returned, and nothing is done then. It runs
// connect in another goroutine, because what a dial needs of the stack would be held for as long as the caller's lives.
func (c *Carrier) Carry(ctx context.Context, connect Connect, count func(Direction, int)) error {
	return carry(ctx, &c.hands, connect, count)
}

// Connect makes the two sides of a relay.
type Connect = func() (a, b upstream.Conn, err error)

func carry(ctx context.Context, h *hands, connect Connect, count func(Direction, int)) error {
	r := &relay{hands: h, count: count, halfClosed: halfClosedTimeout}
	return r.run(ctx, func() bool {
		a, b, err := connect()
		if err != nil {
			r.fail(err)
			return false
		}
		r.join(a, b)
		return true
	})
}

type relay struct {
	a, b       upstream.Conn
	in, out    direction
	mine       *direction // the one that the caller's goroutine sees to its end
	first      []byte     // what was read of a already, and how that ended
	firstErr   error
	guard      *upstream.Watch // looks at what the visitor says next; nil: nothing need be looked at
	count      func(Direction, int)
	halfClosed time.Duration
	idle       idleWatch

	hands *hands                     // for what needs more stack than the caller's goroutine is to have
	stop  func() bool                // no longer watches the context
	still atomic.Pointer[time.Timer] // runs once a direction has ended, starts anew with every write
	other sync.WaitGroup             // all that is not mine

	mu     sync.Mutex
	err    error // the first failure
	ended  bool  // one side has ended or failed
	endBy  ender // which was the first
	endErr error // nil for an orderly end
}

// ender is who was the first to end a relay.
type ender uint8

const (
	endServer ender = iota // neither side: a time-out, or the context
	endVisitor
	endService
)

// note keeps who was the first to end the relay, and by what error, nil for an orderly end.
func (r *relay) note(by ender, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.ended, r.endBy, r.endErr = true, by, err
	}
}

// firstEnd is who was the first to end the relay, and by what error.
func (r *relay) firstEnd() (ender, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		return endServer, r.err
	}
	return r.endBy, r.endErr
}

// join says what stands on the two sides.
func (r *relay) join(a, b upstream.Conn) {
	r.a, r.b = a, b
	r.in = direction{relay: r, dst: b, src: a, way: In}
	r.out = direction{relay: r, dst: a, src: b, way: Out}
}

// run relays between what begin has joined, unless that says that there is nothing to join.
func (r *relay) run(ctx context.Context, begin func() bool) error {
	r.hands.do(func() {
		if begin() {
			r.stop = r.watch(ctx)
			r.idle.start(r)
			r.mine = r.share()
			r.mine.attend()
		}
	})
	if r.mine == nil {
		return r.failure()
	}
	r.mine.pass()
	return r.close()
}

// watch has the end of the context reset both sides. It counts as other until it is stopped.
func (r *relay) watch(ctx context.Context) (stop func() bool) {
	r.other.Add(1)
	return context.AfterFunc(ctx, func() {
		defer r.other.Done()
		r.note(endServer, context.Cause(ctx))
		r.fail(context.Cause(ctx))
		r.reset()
	})
}

// close waits for the other direction and ends what is left.
func (r *relay) close() error {
	if r.stop() {
		r.other.Done()
	}
	r.other.Wait()
	if t := r.still.Load(); t != nil {
		t.Stop()
	}
	r.idle.stop()
	if err := r.failure(); err != nil {
		r.reset()
		return err
	}
	_ = r.a.Close()
	_ = r.b.Close()
	return nil
}

// countDown bounds the time that the second direction may stand still, once the first has ended.
func (r *relay) countDown() {
	if r.still.Load() != nil || r.halfClosed <= 0 {
		return
	}
	if t := time.AfterFunc(r.halfClosed, r.stalled); !r.still.CompareAndSwap(nil, t) {
		t.Stop()
	}
}

func (r *relay) stalled() {
	err := fmt.Errorf("half-closed, and nothing moved for %s", r.halfClosed)
	r.note(endServer, err)
	r.fail(err)
	r.reset()
}

func (r *relay) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *relay) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

// reset aborts both sides, which ends both directions.
func (r *relay) reset() {
	_ = r.a.Reset()
	_ = r.b.Reset()
}
