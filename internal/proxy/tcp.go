package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"culvert/internal/upstream"
)

// firstBytes is how much of what a visitor sends at once is read before the service has answered. It is held for as
// long as a visitor says nothing, so it is no more than a first request or a ClientHello needs.
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
	cfg TCPConfig
}

// NewTCP makes a TCP; it opens nothing.
func NewTCP(cfg TCPConfig) *TCP {
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.HalfClosedTimeout <= 0 {
		cfg.HalfClosedTimeout = halfClosedTimeout
	}
	return &TCP{cfg}
}

// Serve sees one visitor through: it owns the connection and returns when it is closed. A visitor that gets no service
// gets a reset, never an end of data, which would look like an answer. The end of the context resets both sides.
func (t *TCP) Serve(ctx context.Context, visitor upstream.Conn) {
	defer t.cfg.Metrics.tcpConnection(t.cfg.Label)()
	visit := &upstream.Visit{
		ID:          newID(),
		Source:      addrPort(visitor.RemoteAddr()),
		Destination: addrPort(visitor.LocalAddr()),
		First:       upstream.ReadFirst(visitor, firstBytes),
	}
	defer visit.First.Wait() // the connection is closed by then
	log := t.cfg.Log.With("conn", visit.ID, "port", t.cfg.Label)
	start := time.Now()

	d, member, err := t.dial(ctx, visit)
	if err != nil {
		_ = visitor.Reset()
		level := slog.LevelWarn
		if r := upstream.ReasonOf(err); r == upstream.Canceled || r == upstream.NoMember { // counted, and no news
			level = slog.LevelDebug
		}
		log.Log(ctx, level, "no connection for the visitor", "source", visit.Source, "reason", upstream.ReasonOf(err), "err", err)
		return
	}
	log.Debug("connection open", "source", visit.Source, "member", member.Name(), "after", time.Since(start))
	r := relay{
		a: visit.First.Rest(visitor, d.FirstSent), b: d.Conn,
		count: t.cfg.Metrics.tcpBytes, halfClosed: t.cfg.HalfClosedTimeout,
	}
	if d.FirstSent {
		sent, _ := visit.First.Bytes()
		t.cfg.Metrics.tcpBytes(In, len(sent))
	}
	err = r.run(ctx)
	log.Debug("connection closed", "member", member.Name(), "after", time.Since(start), "err", err)
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
