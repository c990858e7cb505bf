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

// Carrier relays for many connections. The zero value is ready for use, and safe for concurrent use. It must not be copied.
type Carrier struct{ hands hands }

// Connect makes the two sides of a relay: a is the visitor's, b the service's.
type Connect = func() (a, b upstream.Conn, err error)

// Carry copies between two sides that connect makes, both ways, until both directions have ended, and closes both, which it
// owns. It returns at once; over is called when nothing of the relay is left, with the reason if that was no orderly end.
// An error of connect is such a reason.
//
// The end of one direction is passed on, and the other one goes on. An abort of either side, a second direction that
// stands still for ten minutes, and the end of the context abort both sides. A side that no longer listens is still heard to
// its end, because an early answer belongs to the visitor; then both are aborted.
//
// While nothing moves it costs neither a goroutine nor a buffer where connections give their descriptors or copy by
// themselves (pusher, puller).
//
// count, if not nil, is called with the number of bytes of each write, from two goroutines.
func (c *Carrier) Carry(ctx context.Context, connect Connect, count func(Direction, int), over func(error)) {
	r := &relay{hands: &c.hands, count: count, halfClosed: halfClosedTimeout, over: over}
	r.carry(ctx, func() bool {
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
	first      []byte // what was read of a already, and how that ended
	firstErr   error
	guard      *upstream.Watch // looks at what the visitor says next; nil: nothing need be looked at
	count      func(Direction, int)
	halfClosed time.Duration
	idle       idleWatch

	hands    *hands
	over     func(error)                // called when nothing of the relay is left
	ways     atomic.Int32               // directions that are not over
	stop     func() bool                // no longer watches the context
	watching sync.WaitGroup             // what the end of the context does
	still    atomic.Pointer[time.Timer] // runs once a direction has ended, starts anew with every write

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

// note keeps who was the first to end the relay, and by what error, nil for an orderly end. That of one side is not the end
// where the server cuts the other side off.
func (r *relay) note(by ender, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended || by == endServer && r.endErr == nil {
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

// carry relays between what begin joins, unless that says that there is nothing to join.
func (r *relay) carry(ctx context.Context, begin func() bool) {
	r.hands.start(func() {
		if !begin() {
			r.over(r.failure())
			return
		}
		r.ways.Store(2)
		r.stop = r.watch(ctx)
		r.idle.start(r)
		r.share().run()
	})
}

// watch has the end of the context reset both sides.
func (r *relay) watch(ctx context.Context) (stop func() bool) {
	r.watching.Add(1)
	return context.AfterFunc(ctx, func() {
		defer r.watching.Done()
		r.note(endServer, context.Cause(ctx))
		r.fail(context.Cause(ctx))
		r.reset()
	})
}

// wayOver says that a direction is over. The second one ends what is left.
func (r *relay) wayOver() {
	if r.ways.Add(-1) > 0 {
		return
	}
	if !r.stop() {
		r.watching.Wait()
	}
	if t := r.still.Load(); t != nil {
		t.Stop()
	}
	r.idle.stop()
	err := r.failure()
	if err != nil {
		r.reset()
	} else {
		_ = r.a.Close()
		_ = r.b.Close()
	}
	r.over(err)
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
	r.hands.sleepers.rouse(&r.in)
	r.hands.sleepers.rouse(&r.out)
}
