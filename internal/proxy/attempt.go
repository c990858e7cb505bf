package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"culvert/internal/upstream"
)

// attempt is one member's turn at a request: it finds out how far the request got.
type attempt struct {
	visit *upstream.Visit

	// Of the connection that the request has now.
	conn   *pooledConn
	before uint64 // its writes before this request
	reused bool   // it carried other requests before

	passed atomic.Bool  // something may have been written to a connection
	state  atomic.Int32 // waiting, answered or abandoned
}

// The states of an attempt.
const (
	waiting   = 0
	answered  = 1 // some part of an answer was read
	abandoned = 2 // before any of it
)

type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt { return ctx.Value(attemptKey{}).(*attempt) }

// request is the request as the attempt sends it.
func (a *attempt) request(req *http.Request, f *flow) *http.Request {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn:              a.gotConn,
		PutIdleConn:          a.putIdleConn,
		GotFirstResponseByte: func() { a.state.CompareAndSwap(waiting, answered) },
	})
	out := req.WithContext(context.WithValue(ctx, attemptKey{}, a))
	if f.body != nil {
		out.Body = &bodyView{held: f.body, attempt: a, in: f.in, out: out}
	}
	return out
}

// gotConn is called again when http.Transport moves the request to another connection of the member.
func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	if a.sent() {
		a.passed.Store(true)
	}
	c, ok := info.Conn.(*pooledConn)
	if !ok {
		a.passed.Store(true) // nothing is known of it, so think the worst
		return
	}
	c.idle.Store(false)
	a.conn, a.before, a.reused = c, c.writes.Load(), info.Reused
}

// putIdleConn is called when the pool takes the connection back, which HTTP/2 never tells.
func (a *attempt) putIdleConn(err error) {
	if err == nil && a.conn != nil {
		a.conn.idle.Store(true)
		a.conn.pool.returned()
	}
}

// sent says whether anything of the request may have left. On a connection that requests share, as in HTTP/2, others'
// writes count too, so it may say yes too often.
func (a *attempt) sent() bool {
	return a.passed.Load() || a.conn != nil && a.conn.writes.Load() != a.before
}

// retriable says whether another member may have the request after this attempt failed.
func (a *attempt) retriable(req *http.Request, f *flow, err error) bool {
	var d *upstream.DialError
	if req.Context().Err() != nil || errors.As(err, &d) && d.MaybeSent {
		return false
	}
	if a.sent() {
		return f.body == nil && safe(req.Method) && a.state.Load() != answered
	}
	// Nothing was written, so whoever read the body has stopped.
	return f.body == nil || f.body.whole()
}
