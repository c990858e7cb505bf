// Package dataplane puts entrypoints, routes, upstreams and members together: of what the configuration file says, of what
// clients offer and of what is diverted for a time; and changes them while visitors are served.
//
// It owns every socket that visitors come to but the one of HTTP. A change is made whole or not at all, and touches no
// connection that is open: those keep the member they have. Nothing here is on the way of a connection: what that reads is
// an immutable set of routes, swapped whole.
package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"culvert/internal/accesslog"
	"culvert/internal/config/plan"
	"culvert/internal/entrypoint"
	"culvert/internal/proxy"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/udp"
)

// Config is what a DataPlane needs.
type Config struct {
	Addr       string              // the host where ports are opened that clients offer
	Reserved   map[uint16]string   // ports that no client may open, with what they are for
	Sources    []netip.Prefix      // who may connect to those; empty: everyone
	Accept     plan.ProxyAccept    // of balancers in front of those
	Emit       proxyproto.Emission // the PROXY header that services get whose upstream has no setting of its own
	Inherit    entrypoint.Inheritance
	HTTP       *proxy.HTTP // nil if no HTTP is carried
	Metrics    *proxy.Metrics
	UDPMetrics *proxy.UDPMetrics // may be nil
	Counters   *Counters
	Records    *accesslog.Log // may be nil
	Log        *slog.Logger
}

// DataPlane is the data plane of one process. Use New, Apply, then what you like, and Shutdown once.
type DataPlane struct {
	cfg   Config
	flows *udp.Room // of all entrypoints of UDP together

	ports    map[string]plan.Entrypoint // what those that clients open have in common, by network
	serving  sync.WaitGroup             // entrypoints with their connections, checks of members
	httpAddr string                     // where HTTP is served, for people

	mu      sync.Mutex
	closed  bool
	pools   map[string]*pool               // upstreams by name
	entries map[string]*entry              // entrypoints by name
	offers  map[tunnel.Name][]*publication // what clients offer, in the order of their coming
	// Of the configuration, among those above: a look at thousands of tunnels need not pass by these.
	filePools []*pool
	own       []*entry
	listens   map[listening]struct{}
	web       web

	dirtyMu sync.Mutex
	dirty   map[*pool]struct{} // whose usability has changed since the entrypoints looked last
	look    chan struct{}
}

var errClosed = errors.New("the server is going down")

// New makes a data plane without anything in it. It opens nothing.
func New(cfg Config) *DataPlane {
	port := func(p plan.Protocol) plan.Entrypoint {
		e := plan.NewEntrypoint("", p, "")
		e.Allow, e.ProxyProtocol = cfg.Sources, cfg.Accept
		return e
	}
	return &DataPlane{
		cfg: cfg, flows: proxy.NewFlowRoom(), ports: map[string]plan.Entrypoint{"tcp": port(plan.TCP), "udp": port(plan.UDP)},
		pools: make(map[string]*pool), entries: make(map[string]*entry), offers: make(map[tunnel.Name][]*publication),
		listens: make(map[listening]struct{}), dirty: make(map[*pool]struct{}), look: make(chan struct{}, 1),
	}
}

// ServeHTTPAt says where HTTP is served, for the addresses that clients are told.
func (d *DataPlane) ServeHTTPAt(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.httpAddr = addr
}

// Shutdown takes no new visitors, waits for those that are there until the context ends and then resets them. Nothing of
// the data plane is left when it returns.
func (d *DataPlane) Shutdown(ctx context.Context) {
	d.mu.Lock()
	d.closed = true
	for _, e := range d.entries {
		e.stopTimer()
	}
	d.web.stop()
	for _, p := range d.filePools {
		p.stopChecks()
	}
	listens := slices.Collect(maps.Keys(d.listens))
	d.mu.Unlock()
	for _, l := range listens {
		l.Drain()
	}
	served := make(chan struct{})
	go func() {
		d.serving.Wait()
		close(served)
	}()
	select {
	case <-served:
		return
	case <-ctx.Done():
		if n := d.Open(); n > 0 { // else what is left are checks, or nothing was served yet
			d.cfg.Log.Warn("connections were still open at the end of the drain", "connections", n)
		}
	}
	for _, l := range listens {
		l.Abort()
	}
	<-served
}

// awaitSockets waits while the process is being replaced, when no socket can be opened. It is for callers who may open one,
// before they take the mutex: whoever asks how the data plane is must not wait so long.
func (d *DataPlane) awaitSockets() { d.cfg.Inherit.From().Settled() }

// Open is the number of connections and flows of visitors that are open, but for HTTP.
func (d *DataPlane) Open() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.listens {
		n += l.Open()
	}
	return n
}

// listening is a socket with what came through it.
type listening interface {
	Drain()    // takes no more
	Abort()    // ends what is left
	Open() int // connections or flows
}

// changed is called when a pool's usability has changed, by no goroutine of ours: the entrypoints look in their turn.
func (d *DataPlane) changed(p *pool) {
	d.dirtyMu.Lock()
	defer d.dirtyMu.Unlock()
	d.dirty[p] = struct{}{}
	select {
	case d.look <- struct{}{}:
	default: // it looks anyway
	}
}

// Run has entrypoints follow what becomes of their members, until the context ends.
func (d *DataPlane) Run(ctx context.Context) error {
	for {
		select {
		case <-d.look:
			d.follow()
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *DataPlane) follow() {
	d.awaitSockets()
	d.dirtyMu.Lock()
	dirty := d.dirty
	d.dirty = make(map[*pool]struct{})
	d.dirtyMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range dirty {
		for e := range p.entries {
			e.reopen()
		}
	}
}
