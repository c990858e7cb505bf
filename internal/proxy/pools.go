package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/upstream"
)

// pools keeps connections to members, for each member its own, so that no request ever travels on a connection that was
// made for another member. As a RoundTripper it sends a request to the first of its candidates that takes it.
type pools struct {
	dial     func(context.Context, upstream.Member, *upstream.Visit) (upstream.Conn, error)
	byMember sync.Map // upstream.Member → *memberPool
	closed   atomic.Bool
}

// memberPool is the connections to one member.
type memberPool struct {
	*http.Transport
	forgotten atomic.Bool
}

// returned closes a connection that is idle again, if the member has gone meanwhile: it would hold up who waits for its end. A
// request that comes at the wrong moment has http.Transport forget that it was told so.
func (p *memberPool) returned() {
	if p.forgotten.Load() {
		p.CloseIdleConnections()
	}
}

func (p *pools) of(m upstream.Member) *memberPool {
	if t, ok := p.byMember.Load(m); ok {
		return t.(*memberPool)
	}
	t, _ := p.byMember.LoadOrStore(m, p.open(m))
	return t.(*memberPool)
}

func (p *pools) open(m upstream.Member) *memberPool {
	own := new(memberPool)
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := p.dial(ctx, m, attemptOf(ctx).visit)
			if err != nil {
				return nil, err
			}
			return &pooledConn{Conn: c, pool: own, shared: m.Protocol() == upstream.H2C}, nil
		},
		DisableCompression:     true, // bodies pass as they are
		DisableKeepAlives:      p.closed.Load(),
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        time.Minute,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20,
	}
	if m.Protocol() == upstream.H2C {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	own.Transport = t
	return own
}

func (p *pools) forget(m upstream.Member) {
	if t, ok := p.byMember.LoadAndDelete(m); ok {
		t.(*memberPool).forgotten.Store(true) // before: what is put back from now on is closed there
		t.(*memberPool).CloseIdleConnections()
	}
}

func (p *pools) close() {
	p.closed.Store(true)
	p.byMember.Range(func(m, _ any) bool {
		p.forget(m.(upstream.Member))
		return true
	})
}

// staleTurns is how often the last candidate is asked again because a connection of its pool was dead already.
const staleTurns = 3

// RoundTrip tries the candidates of the request's flow in order. The next one is tried only when it is certain that
// the one before got nothing of the request, or when the request may run twice and no part of an answer came.
func (p *pools) RoundTrip(req *http.Request) (*http.Response, error) {
	f := flowOf(req.Context())
	if f.body != nil {
		f.body.src = req.Body // not the visitor's own request's: this one cannot be read once the request is over
	}
	c := &f.admitted.Candidates
	for tries, stale := 0, 0; ; {
		m := f.admitted.Place.Member()
		if r, ok := m.(upstream.Revocable); ok && r.Permitted() != nil {
			p.forget(m) // what is kept may not be used; the new dial says why
		}
		a := &attempt{visit: c.Visit(&f.visit, tries)}
		again := tries+1 < c.Tries() && f.body == nil && safe(req.Method)
		res, err := withinReach(m, again, a, a.request(req, f), p.of(m).RoundTrip)
		report(f.admitted.Place, err)
		if err == nil {
			return res, nil
		}
		if reason, _ := reasonOf(err); reason == upstream.Lost || reason == upstream.NotAllowed {
			p.forget(m) // a pool that was made anew after the member's removal would stay for ever
		}
		switch {
		case !a.retriable(req, f, err):
			return nil, err
		case tries+1 < c.Tries() && f.admitted.Next():
			tries++
		case a.reused && stale < staleTurns:
			stale++
		default:
			return nil, err
		}
	}
}

// report tells the member's account what came of an attempt. What fails after the connection is no news of it.
func report(p *upstream.Place, err error) {
	var d *upstream.DialError
	if err == nil || errors.As(err, &d) && d.Reason != upstream.Canceled {
		p.Report(d)
	}
}

// pooledConn knows whether anything was written to it, and whether a request has it.
type pooledConn struct {
	upstream.Conn
	pool   *memberPool
	shared bool          // by requests at the same time, as in HTTP/2
	writes atomic.Uint64 // Writes begun, whatever came of them
	idle   atomic.Bool   // the pool has it
	ended  atomic.Bool   // the service has said all that it will
	closed atomic.Bool
}

func (c *pooledConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		c.ended.Store(true)
	}
	if err != nil && c.closed.Load() {
		_ = c.Conn.Close() // the farewell is over
	}
	return n, err
}

func (c *pooledConn) Write(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed // certainly not sent
	}
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// farewell is what a service gets to end an idle connection too.
const farewell = time.Second

// Close aborts a request that is under way, so that its service knows. Otherwise it ends the connection in order: a
// service is not to see a fault each time that the pool has had a connection for long enough. The transport reads from
// idle and shared connections all the time, and that Read then hears the service's end, or runs out of time.
func (c *pooledConn) Close() error {
	switch {
	case c.closed.Swap(true):
		return nil
	case c.ended.Load():
		return errors.Join(c.CloseWrite(), c.Conn.Close())
	case c.idle.Load() || c.shared:
		return errors.Join(c.SetReadDeadline(time.Now().Add(farewell)), c.CloseWrite())
	default:
		return c.Reset()
	}
}

// reasonOf is upstream.ReasonOf for an error that may not be of a dial: then ok is false.
func reasonOf(err error) (r upstream.Reason, ok bool) {
	var d *upstream.DialError
	if errors.As(err, &d) {
		return d.Reason, true
	}
	return "", false
}
