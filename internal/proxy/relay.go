// Package proxy is the data path: it takes a visitor's connection or request, has an upstream's members tried in order
// and relays, as bytes or as HTTP.
//
// It guarantees that what a visitor sent reaches at most one service: nothing is sent to a second member once a first
// one may have passed it on. An abort is passed on as an abort, never as an end, so what was cut short never looks
// complete. It does not accept connections and knows nothing of sessions: members do.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
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
// closes both. It owns a and b from the call on, and both its goroutines have ended when it returns.
//
// The end of one direction is passed on, and the other one goes on. An abort of either side, a second direction that
// stands still for ten minutes, and the end of the context abort both sides; then Relay returns the reason. A side that
// no longer listens is still heard to its end, because an early answer belongs to the visitor; then both are aborted.
//
// count, if not nil, is called with the number of bytes of each write, from two goroutines.
func Relay(ctx context.Context, a, b upstream.Conn, count func(Direction, int)) error {
	r := relay{a: a, b: b, count: count, halfClosed: halfClosedTimeout}
	return r.run(ctx)
}

type relay struct {
	a, b       upstream.Conn
	count      func(Direction, int)
	halfClosed time.Duration

	still atomic.Pointer[time.Timer] // runs once a direction has ended, starts anew with every write

	mu  sync.Mutex
	err error // the first failure
}

func (r *relay) run(ctx context.Context) error {
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		r.abort(context.Cause(ctx))
	})
	var out sync.WaitGroup
	out.Go(func() { r.pass(r.a, r.b, Out) })
	r.pass(r.b, r.a, In)
	out.Wait()
	if !stop() {
		<-aborted
	}
	if t := r.still.Load(); t != nil {
		t.Stop()
	}
	if err := r.failure(); err != nil {
		r.abort(err)
		return err
	}
	_ = r.a.Close()
	_ = r.b.Close()
	return nil
}

// pass sees one direction to its end.
func (r *relay) pass(dst, src upstream.Conn, d Direction) {
	heard, err := r.copy(dst, src, d)
	switch {
	case !heard: // dst does not listen any more; what it still says is passed on before the abort
		r.fail(err)
	case err != nil: // src was aborted
		r.abort(err)
		return
	case r.failure() != nil: // src ends after it stopped listening: that is no orderly end
		r.abort(nil)
		return
	default:
		if err := dst.CloseWrite(); err != nil {
			r.fail(fmt.Errorf("end: %w", err))
		}
	}
	if r.still.Load() != nil { // the other direction has ended too
		return
	}
	if t := time.AfterFunc(r.halfClosed, r.stalled); !r.still.CompareAndSwap(nil, t) {
		t.Stop()
	}
}

// copy copies until src ends, which is nil, or fails, or until dst does not listen: then heard is false.
func (r *relay) copy(dst, src upstream.Conn, d Direction) (heard bool, err error) {
	buf := getBuffer()
	defer putBuffer(buf)
	for {
		n, readErr := src.Read(buf[:])
		if n > 0 {
			n, err := dst.Write(buf[:n])
			r.moved(d, n)
			if err != nil {
				return false, fmt.Errorf("write: %w", err)
			}
		}
		if errors.Is(readErr, io.EOF) {
			return true, nil
		}
		if readErr != nil {
			return true, fmt.Errorf("read: %w", readErr)
		}
	}
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
	r.abort(fmt.Errorf("half-closed, and nothing moved for %s", r.halfClosed))
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

// abort resets both sides, which ends both directions.
func (r *relay) abort(err error) {
	r.fail(err)
	_ = r.a.Reset()
	_ = r.b.Reset()
}
