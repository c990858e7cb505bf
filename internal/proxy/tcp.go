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
	cfg  TCPConfig
	port portMetrics
}

// NewTCP makes a TCP; it opens nothing.
func NewTCP(cfg TCPConfig) *TCP {
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.HalfClosedTimeout <= 0 {
		cfg.HalfClosedTimeout = halfClosedTimeout
	}
	return &TCP{cfg, cfg.Metrics.tcpPort(cfg.Label)}
}

// Serve sees one visitor through: it owns the connection and returns when it is closed. A visitor that gets no service
// gets a reset, never an end of data, which would look like an answer. The end of the context resets both sides.
func (t *TCP) Serve(ctx context.Context, visitor upstream.Conn) {
	t.port.begun()
	defer t.port.ended()
	p := &passage{id: newID(), start: time.Now()}
	r := t.connect(ctx, visitor, p)
	if r == nil {
		return
	}
	err := r.run(ctx)
	if t.tells(ctx) {
		t.log(p).Debug("connection closed", "member", p.member.Name(), "after", time.Since(p.start), "err", err)
	}
}

// passage is what is told of a connection.
type passage struct {
	id     string
	start  time.Time
	member upstream.Member
}

// tells says whether what happens to every connection is logged at all: finding that out for each line costs more.
func (t *TCP) tells(ctx context.Context) bool { return t.cfg.Log.Enabled(ctx, slog.LevelDebug) }

func (t *TCP) log(p *passage) *slog.Logger { return t.cfg.Log.With("conn", p.id, "port", t.cfg.Label) }

// connect finds a service for the visitor and joins the two; nil if there is none, and then the visitor is gone.
// It is apart from Serve so that nothing of the search is held for as long as the connection lasts.
func (t *TCP) connect(ctx context.Context, visitor upstream.Conn, p *passage) *relay {
	first := upstream.ReadFirst(visitor, firstBytes)
	asked := &upstream.Visit{
		ID: p.id, Source: addrPort(visitor.RemoteAddr()), Destination: addrPort(visitor.LocalAddr()), First: first,
	}
	d, member, err := t.dial(ctx, asked)
	if err != nil {
		_ = visitor.Reset()
		first.Wait()
		t.failed(ctx, p, asked, err)
		return nil
	}
	p.member = member
	if t.tells(ctx) {
		t.log(p).Debug("connection open", "source", asked.Source, "member", p.member.Name(), "after", time.Since(p.start))
	}
	r := &relay{a: visitor, b: d.Conn, count: t.cfg.Metrics.tcpBytes, halfClosed: t.cfg.HalfClosedTimeout}
	r.first, r.firstErr = first.Stop()
	if d.FirstSent {
		t.cfg.Metrics.tcpBytes(In, len(r.first))
		r.first = nil
	}
	return r
}

func (t *TCP) failed(ctx context.Context, p *passage, asked *upstream.Visit, err error) {
	level := slog.LevelWarn
	reason := upstream.ReasonOf(err)
	if reason == upstream.Canceled || reason == upstream.NoMember { // counted, and no news
		level = slog.LevelDebug
	}
	if t.cfg.Log.Enabled(ctx, level) {
		t.log(p).Log(ctx, level, "no connection for the visitor", "source", asked.Source, "reason", reason, "err", err)
	}
}

// dial finds a member for the visit. A visitor that goes away ends the search.
func (t *TCP) dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, upstream.Member, error) {
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
