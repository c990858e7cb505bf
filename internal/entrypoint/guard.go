package entrypoint

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"culvert/internal/cidr"
)

// GuardConfig is what a Guard needs.
type GuardConfig struct {
	Allow              []netip.Prefix // the sources that may connect; empty: all
	Deadline           time.Duration  // for everything before Admit; 5 s if zero
	MaxUnauthenticated int            // connections that are not admitted; 512 if zero
	MaxPerSource       int            // of these from one IPv4 address or one IPv6 /64; 32 if zero
	Log                *slog.Logger
	// OnRefused, if set, is called for each connection that was closed at once, with a Refused reason.
	OnRefused func(reason string)
}

// Guard is a listener for a port to which strangers have access and which only few of them may use. Until a connection
// is admitted, it has one deadline for everything that is read and written on it, counted from when it was accepted,
// which no SetDeadline moves back; and only a bounded number of such connections is open. It starts no goroutine and
// holds no buffer for them.
type Guard struct {
	net.Listener
	cfg GuardConfig

	mu       sync.Mutex
	total    int
	bySource map[netip.Addr]int
}

// NewGuard guards a listener, which it owns.
func NewGuard(ln net.Listener, cfg GuardConfig) *Guard {
	cfg.Deadline = cmp.Or(cfg.Deadline, 5*time.Second)
	cfg.MaxUnauthenticated = cmp.Or(cfg.MaxUnauthenticated, 512)
	cfg.MaxPerSource = cmp.Or(cfg.MaxPerSource, 32)
	return &Guard{Listener: ln, cfg: cfg, bySource: map[netip.Addr]int{}}
}

// Accept gives the next connection that is within the limits. Its errors are those of the listener.
func (g *Guard) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := sourceOf(c.RemoteAddr())
		source := cidr.Source(addr)
		if reason := g.enter(addr, source); reason != "" {
			g.refuse(c, reason)
			continue
		}
		return newGuarded(c, g, source), nil
	}
}

// enter counts a connection as not admitted, or says why it must not be.
func (g *Guard) enter(addr netip.Addr, source netip.Addr) string {
	if !allowed(g.cfg.Allow, addr) {
		return RefusedSource
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.total >= g.cfg.MaxUnauthenticated:
		return RefusedTooMany
	case g.bySource[source] >= g.cfg.MaxPerSource:
		return RefusedPerSource
	}
	g.total++
	g.bySource[source]++
	return ""
}

func (g *Guard) leave(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.bySource[source]--; g.bySource[source] == 0 {
		delete(g.bySource, source)
	}
}

func (g *Guard) refuse(c net.Conn, reason string) {
	source := c.RemoteAddr()
	drop(c)
	g.cfg.Log.Debug("control connection refused", "source", source, "reason", reason)
	if g.cfg.OnRefused != nil {
		g.cfg.OnRefused(reason)
	}
}
