package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"culvert/internal/upstream"
)

// firstBytes is how much of what a visitor sends at once is read before the service has answered: no more than a first
// request or a ClientHello needs, because it is held until the service is there.
const firstBytes = 4 << 10

// TCPConfig is what a TCP needs.
type TCPConfig struct {
	Upstream *upstream.Upstream
	Metrics  *Metrics // may be nil
	Label    string   // the port, in metrics and logs
	Log      *slog.Logger
	// DialTimeout bounds the search for a member that gives a connection, over all members; 30 s if zero.
	DialTimeout time.Duration
	// HalfClosedTimeout is how long the second direction may stand still after the first has ended; 10 min if zero.
	HalfClosedTimeout time.Duration
}

// TCP carries the visitors of one port to one upstream. It is safe for concurrent use.
type TCP struct {
	cfg   TCPConfig
	port  portMetrics
	count func(Direction, int)
	hands hands
}

// NewTCP makes a TCP; it opens nothing.
func NewTCP(cfg TCPConfig) *TCP {
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.HalfClosedTimeout <= 0 {
		cfg.HalfClosedTimeout = halfClosedTimeout
	}
	return &TCP{cfg: cfg, port: cfg.Metrics.tcpPort(cfg.Label), count: cfg.Metrics.tcpBytes}
}

// Serve sees one visitor through: it owns the connection and returns when it is closed. A visitor that gets no service
// gets a reset, never an end of data, which would look like an answer. The end of the context resets both sides.
//
// It costs what Relay costs while nothing moves.
func (t *TCP) Serve(ctx context.Context, visitor upstream.Conn) {
	t.port.begun()
	p := &passage{start: time.Now(), relay: relay{hands: &t.hands, count: t.count, halfClosed: t.cfg.HalfClosedTimeout}}
	err := p.run(ctx, func() bool { return t.connect(ctx, visitor, p) })
	p.place.Release()
	t.closed(ctx, p, err)
	t.port.ended()
}

// passage is a connection that has a service, or is to have one.
type passage struct {
	relay
	id    string
	start time.Time
	place *upstream.Place // nil while it has none
}

// connect finds a service for the visitor and joins the two; false if there is none, and then the visitor is gone.
func (t *TCP) connect(ctx context.Context, visitor upstream.Conn, p *passage) bool {
	p.id = newID()
	first := upstream.ReadFirst(visitor, firstBytes, upstream.Begun{})
	v := &upstream.Visit{
		ID: p.id, Source: addrPort(visitor.RemoteAddr()), Destination: addrPort(visitor.LocalAddr()), First: first,
	}
	d, err := t.dial(ctx, v)
	if err != nil {
		_ = visitor.Reset()
		first.Wait()
		t.failed(ctx, v, err)
		return false
	}
	if t.tells(ctx) {
		t.log(p.id).Debug("connection open", "source", v.Source, "member", d.Place.Member().Name(), "after", time.Since(p.start))
	}
	p.place = d.Place
	p.join(visitor, d.Conn)
	p.first, p.firstErr = first.Stop()
	if d.FirstSent {
		t.cfg.Metrics.tcpBytes(In, len(p.first))
		p.first = nil
	}
	return true
}

// tells says whether what happens to every connection is logged at all: finding that out for each line costs more.
func (t *TCP) tells(ctx context.Context) bool { return t.cfg.Log.Enabled(ctx, slog.LevelDebug) }

func (t *TCP) log(id string) *slog.Logger { return t.cfg.Log.With("conn", id, "port", t.cfg.Label) }

func (t *TCP) closed(ctx context.Context, p *passage, err error) {
	if p.place != nil && t.tells(ctx) {
		t.log(p.id).Debug("connection closed", "member", p.place.Member().Name(), "after", time.Since(p.start), "err", err)
	}
}

func (t *TCP) failed(ctx context.Context, v *upstream.Visit, err error) {
	level := slog.LevelWarn
	reason := upstream.ReasonOf(err)
	if reason == upstream.Canceled || reason == upstream.NoMember { // counted, and no news
		level = slog.LevelDebug
	}
	if t.cfg.Log.Enabled(ctx, level) {
		t.log(v.ID).Log(ctx, level, "no connection for the visitor", "source", v.Source, "reason", reason, "err", err)
	}
}

// dial finds a member for the visit. A visitor that goes away ends the search.
func (t *TCP) dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.DialTimeout)
	defer cancel()
	v.First.OnFailure(cancel)
	return t.cfg.Upstream.Dial(ctx, v)
}

// addrPort is the address of a TCP connection; the zero AddrPort for other networks.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
