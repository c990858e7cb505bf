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
	"syscall"
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
// (pusher, puller) on one side no goroutine but the caller's; otherwise there is one more.
//
// count, if not nil, is called with the number of bytes of each write, from two goroutines.
func Relay(ctx context.Context, a, b upstream.Conn, count func(Direction, int)) error {
	r := relay{a: a, b: b, count: count, halfClosed: halfClosedTimeout}
	return r.run(ctx)
}

type relay struct {
	a, b       upstream.Conn
	first      []byte // what was read of a already, and how that ended
	firstErr   error
	count      func(Direction, int)
	halfClosed time.Duration

	still atomic.Pointer[time.Timer] // runs once a direction has ended, starts anew with every write
	other sync.WaitGroup             // all that is not in the caller's goroutine

	mu  sync.Mutex
	err error // the first failure
}

func (r *relay) run(ctx context.Context) error {
	r.other.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer r.other.Done()
		r.fail(context.Cause(ctx))
		r.reset()
	})
	r.both()
	if stop() {
		r.other.Done()
	}
	r.other.Wait()
	if t := r.still.Load(); t != nil {
		t.Stop()
	}
	if err := r.failure(); err != nil {
		r.reset()
		return err
	}
	_ = r.a.Close()
	_ = r.b.Close()
	return nil
}

// end takes the end of a direction down: the source has ended (nil) or failed, or the destination does not listen any
// more (not heard). False means that both sides are to be reset. Where dst is a socket it does not wait for anybody.
func (r *relay) end(dst upstream.Conn, heard bool, err error) (orderly bool) {
	if err != nil {
		r.fail(err)
	}
	last := r.still.Load() != nil
	switch {
	case !heard: // what dst still says is passed on before the reset
	case r.failure() != nil: // the source failed, or ends after it stopped listening: that is no orderly end
		return false
	case last && isSocket(dst): // is closed at once, which says the same
	default:
		if err := dst.CloseWrite(); err != nil {
			r.fail(fmt.Errorf("end: %w", err))
		}
	}
	if last {
		return true
	}
	if t := time.AfterFunc(r.halfClosed, r.stalled); !r.still.CompareAndSwap(nil, t) {
		t.Stop()
	}
	return true
}

// isSocket says whether the ends of a connection's directions are the kernel's.
func isSocket(c upstream.Conn) bool {
	_, ok := c.(syscall.Conn)
	return ok
}

func (r *relay) moved(d Direction, n int) {
	if r.count != nil && n > 0 {
		r.count(d, n)
	}
	if t := r.still.Load(); t != nil {
		t.Reset(r.halfClosed)
	}
}

func (r *relay) stalled() {
	r.fail(fmt.Errorf("half-closed, and nothing moved for %s", r.halfClosed))
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
