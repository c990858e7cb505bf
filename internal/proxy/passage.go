package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"culvert/internal/accesslog"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

// passage is a connection that has a service, or is to have one.
type passage struct {
	relay
	tcp      *TCP
	settings *settings
	accepted *net.TCPConn // nil for a connection of another kind
	visitor  upstream.Conn
	received bool // and counted
	start    time.Time
	roll     uint32
	visit    upstream.Visit

	via    netip.AddrPort
	route  *router.L4Route // that was taken last
	target *Target         // of that route
	dialed upstream.Dialed // without a Place while there is no member
	entry  *accesslog.Entry
}

// seen is what End is told.
func (p *passage) seen() Open {
	return Open{
		Source: p.visit.Source, Host: p.visit.Host, Upstream: p.target.Upstream.Name(), Member: p.member(),
	}
}

// connect finds a service for the visitor and joins the two; false if there is none, and then the visitor is gone.
func (p *passage) connect(ctx context.Context) bool {
	a, err := p.receive()
	if err == nil {
		err = p.admit()
	}
	if err != nil {
		p.turnAway(err)
		return false
	}
	p.visit = upstream.Visit{
		ID: newID(), Source: a.Source, Destination: a.Destination, Host: a.Host, Proxy: a.Header, Emit: p.settings.Emit,
	}
	p.via = a.Via
	first := upstream.ReadFirst(p.visitor, firstBytes, a.Begun)
	p.visit.First = first
	d, err := p.find(ctx)
	if err != nil {
		p.giveUp(ctx, err)
		first.Wait()
		return false
	}
	p.dialed = d
	p.opened(ctx)
	p.join(p.visitor, d.Conn)
	p.relay.first, p.firstErr = first.Stop()
	if w := first.Watch(); !w.Certain() {
		p.guard = w
	}
	p.visit.First = nil // nobody asks for it any more, and the connection may be idle for long
	if d.FirstSent {
		p.settings.count(In, len(p.relay.first))
		p.in.bytes += int64(len(p.relay.first))
		p.relay.first = nil
	}
	p.tcp.open.add(p)
	p.tcp.lookLater()
	return true
}

// receive reads what the connection begins with.
func (p *passage) receive() (Arrival, error) {
	if p.settings.Receive != nil && p.accepted != nil {
		return p.settings.Receive(p.accepted)
	}
	return Arrival{Source: addrPort(p.visitor.RemoteAddr()), Destination: addrPort(p.visitor.LocalAddr())}, nil
}

var errFull = errors.New("too many connections are open")

// admit counts the connection, if there is room for it.
func (p *passage) admit() error {
	n := p.tcp.received.Add(1)
	p.received = p.settings.MaxConns == 0 || n <= int64(p.settings.MaxConns)
	if p.received {
		return nil
	}
	p.tcp.received.Add(-1)
	if p.settings.Full != nil {
		p.settings.Full()
	}
	return errFull
}

// turnAway closes a connection that was not received: in order, if all has been answered.
func (p *passage) turnAway(err error) {
	if errors.Is(err, ErrAnswered) {
		_ = p.visitor.Close()
		return
	}
	p.tcp.cfg.Log.Debug("connection refused", "entrypoint", p.settings.Name, "source", p.visitor.RemoteAddr(), "reason", err)
	_ = p.visitor.Reset()
}

// errNoRoute is the failure of a visitor whom no route takes.
var errNoRoute = &upstream.DialError{Reason: upstream.NoRoute, Err: errors.New("no route takes the visitor")}

// find has the routes' upstreams tried in order, as far as each leaves the visit to the next. A visitor that goes away ends
// the search.
func (p *passage) find(ctx context.Context) (upstream.Dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, p.settings.DialTimeout+p.settings.EmptyTimeout)
	defer cancel()
	first := p.visit.First
	first.OnFailure(cancel)
	var waited <-chan time.Time
	for routes := p.settings.Routes; ; {
		var changed <-chan struct{}
		if p.settings.EmptyTimeout > 0 {
			changed = p.tcp.usable.next() // before the search, so that nothing is missed
		}
		d, err := p.search(ctx, routes, first)
		if err == nil || changed == nil || upstream.ReasonOf(err) != upstream.NoMember {
			return d, err
		}
		begun := time.Now()
		if waited == nil {
			timer := time.NewTimer(p.settings.EmptyTimeout)
			defer timer.Stop()
			waited = timer.C
		}
		select {
		case <-changed:
			routes = p.tcp.settings.Load().Routes
		case <-waited:
			changed = nil
		case <-ctx.Done():
			changed = nil
		}
		p.dialed.Queued += time.Since(begun)
		if changed == nil {
			return d, err
		}
	}
}

// search goes through the routes once. What was tried on the way, and how long the visitor has waited so far, is in dialed.
func (p *passage) search(ctx context.Context, routes *Routes, first *upstream.First) (upstream.Dialed, error) {
	key := router.L4Key{Source: p.visit.Source.Addr().WithZone(""), Host: p.visit.Host, Roll: p.roll}
	p.dialed.Tries = nil
	var err error = errNoRoute
	resort := -1 // a route whose members are all ejected
	index, target, ok := routes.Next(key, 0)
	for ok {
		at := index
		p.route, p.target = routes.Route(index), target
		if ok = p.route.Fallback; ok {
			index, target, ok = routes.Next(key, index+1)
		}
		d, dialErr := p.dial(ctx, first, ok)
		if dialErr == nil || maybeSent(dialErr) || ctx.Err() != nil {
			return d, dialErr
		}
		if err = dialErr; resort < 0 && upstream.ReasonOf(err) == upstream.Ejected {
			resort = at
		}
	}
	if resort >= 0 { // nobody else serves the visitor
		_, target, _ = routes.Next(key, resort)
		p.route, p.target = routes.Route(resort), target
		if d, dialErr := p.dial(ctx, first, false); dialErr == nil || maybeSent(dialErr) {
			return d, dialErr
		}
	}
	return upstream.Dialed{}, err
}

// dial asks the upstream of the route that is the visitor's turn. Elsewhere says that there is another one for it.
func (p *passage) dial(ctx context.Context, first *upstream.First, elsewhere bool) (upstream.Dialed, error) {
	p.visit.Limit, p.visit.First, p.visit.Elsewhere = p.target.Limit, first, elsewhere
	d, err := p.target.Upstream.Dial(ctx, &p.visit)
	if err != nil {
		p.failed(err)
		return upstream.Dialed{}, err
	}
	if took := p.target.Took; took != nil {
		took(&d)
	}
	if before := p.dialed.Tries; len(before) > 0 {
		d.Tries = append(before, d.Tries...)
	}
	d.Queued += p.dialed.Queued
	return d, nil
}

// failed notes what a dial that gave no connection has tried: without any try there was no member for the visitor.
func (p *passage) failed(err error) {
	var d *upstream.DialError
	if !errors.As(err, &d) {
		return
	}
	p.dialed.Queued += d.Queued
	if len(d.Tries) == 0 {
		d.Tries = []upstream.Try{{Member: p.target.Upstream.Name(), Reason: d.Reason, Took: d.Queued}}
	}
	for _, t := range d.Tries {
		t.Route = p.route.Name
		p.dialed.Tries = append(p.dialed.Tries, t)
	}
}

func maybeSent(err error) bool {
	var d *upstream.DialError
	return !errors.As(err, &d) || d.MaybeSent
}
