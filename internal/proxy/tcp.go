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

// addrPort is the address of a TCP connection; the zero AddrPort for other networks.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
