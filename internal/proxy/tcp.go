package proxy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"culvert/internal/accesslog"
	"culvert/internal/proxyproto"
	"culvert/internal/router"
	"culvert/internal/upstream"

	"golang.org/x/time/rate"
)

// firstBytes is how much of what a visitor sends at once is read before the service has answered: no more than a first
// request or a ClientHello needs, because it is held until the service is there.
const firstBytes = 4 << 10

// TCPConfig is what a TCP needs.
type TCPConfig struct {
	Settings
	Metrics *Metrics       // may be nil
	Records *accesslog.Log // may be nil
	Log     *slog.Logger
}

// Settings are what of a TCP may change while it runs. Connections keep those that they began with.
type Settings struct {
	Name   string // of the entrypoint, in records and logs
	Kind   string // tcp or tls, in records
	Label  string // in the tcp_dataplane metrics: the port
	Counts Counts // of the entrypoint's own metrics
	Routes *Routes
	// Receive, if set, reads what a connection begins with before it is routed. It blocks within a deadline of its own.
	Receive func(*net.TCPConn) (Arrival, error)
	// MaxConns bounds the open connections that have been received: those that are silent before that have a bound of their own.
	// One more is reset, and Full called, if it is set. No limit, if zero.
	MaxConns int
	Full     func()
	// Refuse, if set, is called in place of a reset for a visitor whom no route takes. It owns the connection.
	Refuse func(upstream.Conn)
	// Emit is the PROXY header that services get whose member has no setting of its own.
	Emit proxyproto.Emission
	// DialTimeout bounds the search for a member that gives a connection, over all members and with the time in queues, but
	// without EmptyTimeout; 30 s if zero.
	DialTimeout time.Duration
	// EmptyTimeout is how long a visitor waits for a usable member; none, if zero.
	EmptyTimeout time.Duration
	// HalfClosedTimeout is how long the second direction may stand still after the first has ended; 10 min if zero, for ever
	// if negative.
	HalfClosedTimeout time.Duration
	// IdleTimeout resets a connection on which nothing has moved for so long; never, if zero.
	IdleTimeout time.Duration
}

// Arrival is a visitor who was received.
type Arrival struct {
	Source      netip.AddrPort     // the visitor
	Destination netip.AddrPort     // where it connected to
	Via         netip.AddrPort     // the balancer in front that told; invalid if none did
	Host        string             // that was asked for in the ClientHello, in canonical form
	Begun       upstream.Begun     // what was read of the visitor's own bytes already, and who must look at them
	Header      *proxyproto.Header // the balancer's PROXY header; nil if there was none
}

// ErrAnswered is given by Receive for a connection that needs nothing more, as the probe of a balancer in front: it is
// closed in order.
var ErrAnswered = errors.New("answered here")

// TCP carries the visitors of one entrypoint to the upstreams of its routes. It is safe for concurrent use.
type TCP struct {
	cfg      TCPConfig
	settings atomic.Pointer[settings]
	usable   wake
	hands    hands
	received atomic.Int64 // connections that are open
	open     crowd
	looking  atomic.Bool // for stuck connections

	// A visitor in vain is news, a flood of them is not: the records and the access log have each.
	news   *rate.Limiter
	untold atomic.Uint64 // since the last line
}

// NewTCP makes a TCP; it opens nothing.
func NewTCP(cfg TCPConfig) *TCP {
	t := &TCP{cfg: cfg, news: rate.NewLimiter(rate.Every(time.Second), 10)}
	t.Set(cfg.Settings)
	return t
}

// Set changes the settings for the connections to come.
func (t *TCP) Set(s Settings) {
	if s.DialTimeout <= 0 {
		s.DialTimeout = 30 * time.Second
	}
	switch {
	case s.HalfClosedTimeout == 0:
		s.HalfClosedTimeout = halfClosedTimeout
	case s.HalfClosedTimeout < 0:
		s.HalfClosedTimeout = 0
	}
	set := &settings{Settings: s, port: t.cfg.Metrics.tcpPort(s.Label)}
	set.count = func(d Direction, n int) {
		t.cfg.Metrics.tcpBytes(d, n)
		set.Counts.Moved(d, n)
	}
	t.settings.Store(set)
	t.usable.all() // waiting visitors look at the new routes
}

// settings is Settings with what follows from them, once for all connections.
type settings struct {
	Settings
	port  portMetrics
	count func(Direction, int)
}

// Usable has visitors that wait for a member look again.
func (t *TCP) Usable() { t.usable.all() }

// ServeTCP sees one visitor through, from the connection as it was accepted, which it owns. It returns at once and calls over
// when the connection is closed. A visitor that gets no service gets a reset, never an end of data, which would look like an
// answer. The end of the context resets both sides.
//
// It costs what a Carrier's connections cost while nothing moves.
func (t *TCP) ServeTCP(ctx context.Context, c *net.TCPConn, over func()) {
	t.serve(ctx, c, upstream.FromTCP(c), over)
}

// Serve is ServeTCP for a connection of any kind, which is not received. It returns when that is closed.
func (t *TCP) Serve(ctx context.Context, visitor upstream.Conn) {
	over := make(chan struct{})
	t.serve(ctx, nil, visitor, func() { close(over) })
	<-over
}

func (t *TCP) serve(ctx context.Context, accepted *net.TCPConn, visitor upstream.Conn, over func()) {
	s := t.settings.Load()
	s.port.begun()
	s.Counts.Begun()
	p := &passage{
		tcp: t, settings: s, accepted: accepted, visitor: visitor, start: time.Now(), roll: rand.Uint32(),
		relay: relay{hands: &t.hands, count: s.count, halfClosed: s.HalfClosedTimeout, idle: idleWatch{after: s.IdleTimeout}},
	}
	p.relay.over = func(err error) {
		p.closed(ctx, err)
		if p.received {
			t.received.Add(-1)
		}
		s.port.ended()
		s.Counts.Ended()
		over()
	}
	p.carry(ctx, func() bool { return p.connect(ctx) })
}

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

// giveUp ends a visitor that gets no service.
func (p *passage) giveUp(ctx context.Context, err error) {
	reason := upstream.ReasonOf(err)
	p.recordFailure(err) // first: who was sent away can be told why
	if reason == upstream.NoRoute && p.settings.Refuse != nil {
		p.settings.Refuse(p.visitor)
	} else {
		_ = p.visitor.Reset()
	}
	level := slog.LevelWarn
	switch reason {
	case upstream.Canceled, upstream.NoMember, upstream.NoRoute: // counted, and no news
		level = slog.LevelDebug
	}
	p.tcp.tell(ctx, level, p, reason, err)
}

// tell logs that a visitor came in vain, or counts it for the next line if there were many.
func (t *TCP) tell(ctx context.Context, level slog.Level, p *passage, reason upstream.Reason, err error) {
	if !t.cfg.Log.Enabled(ctx, level) {
		return
	}
	if level > slog.LevelDebug && !t.news.Allow() {
		t.untold.Add(1)
		return
	}
	attrs := []any{"source", p.visit.Source, "reason", reason, "err", err}
	if n := t.untold.Swap(0); n > 0 {
		attrs = append(attrs, "untold", n)
	}
	p.log().Log(ctx, level, "no connection for the visitor", attrs...)
}

// tells says whether what happens to every connection is logged at all: finding that out for each line costs more.
func (t *TCP) tells(ctx context.Context) bool { return t.cfg.Log.Enabled(ctx, slog.LevelDebug) }

func (p *passage) log() *slog.Logger {
	return p.tcp.cfg.Log.With("conn", p.visit.ID, "entrypoint", p.settings.Name)
}

// opened puts down that the visitor has a member.
func (p *passage) opened(ctx context.Context) {
	if p.tcp.tells(ctx) {
		p.log().Debug("connection open", "source", p.visit.Source, "member", p.member(), "after", time.Since(p.start))
	}
	if p.tcp.cfg.Records != nil {
		p.entry = p.tcp.cfg.Records.Opened(p.record())
	}
}

// member is the name of who serves the visitor.
func (p *passage) member() string { return p.dialed.Place.Member().Name() }

// closed puts down how a connection ended, and gives its place back.
func (p *passage) closed(ctx context.Context, err error) {
	if p.dialed.Place == nil {
		return
	}
	p.tcp.open.remove(p)
	p.dialed.Place.Release()
	p.recordEnd()
	if p.tcp.tells(ctx) {
		p.log().Debug("connection closed", "member", p.member(), "after", time.Since(p.start), "err", err)
	}
}

// addrPort is the address of a TCP connection; the zero AddrPort for other networks.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
