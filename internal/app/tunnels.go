package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"culvert/internal/control"
	"culvert/internal/entrypoint"
	"culvert/internal/proxy"
	"culvert/internal/router"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

const (
	// portLinger is how long a port stays open after its last client: long enough for that client to come back, short
	// enough for a balancer's TCP check to notice.
	portLinger = 2 * time.Second
	// hostLinger is how long a host answers 503, "its clients are away", before it answers 404.
	hostLinger = time.Hour
	// maxTunnels bounds the names that clients can make the server remember.
	maxTunnels = 1 << 16
)

// tunnels is the data plane of what clients offer: it is the control.Publisher that gives each tunnel an upstream and a
// way in for visitors. It owns the entrypoints that it opens.
type tunnels struct {
	tunnelsConfig

	serving sync.WaitGroup // entrypoints with their connections

	mu     sync.Mutex
	closed bool
	stale  bool        // the HTTP entrypoint does not have the present set of tunnels
	settle *time.Timer // runs while an expired tunnel waits to be taken from the HTTP entrypoint
	byName map[tunnel.Name]*exposure
	ports  map[*entrypoint.TCP]struct{} // every one that has connections or may get some
}

type tunnelsConfig struct {
	addr     string // where ports are opened
	reserved map[uint16]string
	sources  []netip.Prefix
	http     *proxy.HTTP // nil if the server carries no HTTP
	httpAddr string
	metrics  *proxy.Metrics
	log      *slog.Logger
}

func newTunnels(cfg tunnelsConfig) *tunnels {
	return &tunnels{
		tunnelsConfig: cfg,
		byName:        make(map[tunnel.Name]*exposure),
		ports:         make(map[*entrypoint.TCP]struct{}),
	}
}

// exposure is one tunnel as visitors see it.
type exposure struct {
	name     tunnel.Name
	upstream *upstream.Upstream
	port     *entrypoint.TCP // of a TCP tunnel
	expiry   *time.Timer     // runs while the tunnel has no member
}

var errClosed = errors.New("the server is going down")

// Publish implements control.Publisher.
func (t *tunnels) Publish(o control.Offered) (control.Publication, error) {
	name, placed := o.Name, upstream.Placed{Member: o.Member}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	e := t.byName[name]
	if e == nil {
		if len(t.byName) >= maxTunnels && !t.makeRoom() {
			return nil, fmt.Errorf("the server has %d tunnels, which is its limit", maxTunnels)
		}
		var err error
		if e, err = t.expose(name, placed); err != nil {
			return nil, err
		}
	}
	if e.expiry != nil {
		e.expiry.Stop()
		e.expiry = nil
	}
	e.upstream.Add(placed)
	return &publication{tunnels: t, exposure: e, member: o.Member}, nil
}

// expose makes a tunnel known to visitors, those of HTTP with the next Settle. The caller holds mu.
func (t *tunnels) expose(name tunnel.Name, first upstream.Placed) (*exposure, error) {
	e := &exposure{name: name, upstream: upstream.New(t.upstreamConfig(name))}
	e.upstream.Add(first) // before visitors come
	switch name.Kind() {
	case tunnel.TCP:
		if err := t.openPort(e); err != nil {
			return nil, err
		}
		t.byName[name] = e
	case tunnel.HTTP:
		if _, err := router.NewHTTP([]router.HTTPRoute{e.route()}); err != nil {
			return nil, err
		}
		t.byName[name] = e
		t.stale = true
	default:
		return nil, fmt.Errorf("no visitor can reach %s", name)
	}
	return e, nil
}

func (t *tunnels) upstreamConfig(name tunnel.Name) upstream.Config {
	cfg := upstream.Config{Name: name.String(), Retries: -1}
	if name.Kind() == tunnel.TCP {
		cfg.OnFailedDial = t.metrics.FailedTCPOpen
	}
	return cfg
}

func (t *tunnels) openPort(e *exposure) error {
	port := e.name.Port()
	if owner, ok := t.reserved[port]; ok {
		return fmt.Errorf("port %d is the server's own: %s", port, owner)
	}
	label := strconv.Itoa(int(port))
	ep, err := entrypoint.ListenTCP(entrypoint.Config{Addr: net.JoinHostPort(t.addr, label), Allow: t.sources, Log: t.log, OnRefused: t.metrics.RefusedTCP})
	if err != nil {
		return fmt.Errorf("port %d cannot be opened on the server: %w", port, err)
	}
	e.port = ep
	t.ports[ep] = struct{}{}
	relay := proxy.NewTCP(proxy.TCPConfig{Upstream: e.upstream, Metrics: t.metrics, Label: label, Log: t.log})
	t.serving.Go(func() {
		// The context is not the server's: connections outlive the start of a shutdown, until shutdown aborts them.
		err := ep.Run(context.Background(), func(ctx context.Context, c *net.TCPConn) { relay.Serve(ctx, upstream.FromTCP(c)) })
		if err != nil {
			t.log.Error("port failed", "port", port, "err", err)
		}
		t.mu.Lock()
		delete(t.ports, ep)
		t.mu.Unlock()
	})
	t.log.Info("port opened", "port", port)
	return nil
}

func (e *exposure) route() router.HTTPRoute {
	return router.HTTPRoute{Host: e.name.Host(), Path: e.name.Path(), Upstream: e.name.String()}
}

// Settle implements control.Publisher: it gives the HTTP entrypoint the present set of tunnels. It is apart from Publish
// because it costs as much for one new tunnel as for thousands.
func (t *tunnels) Settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stale || t.closed {
		return
	}
	t.stale, t.settle = false, nil
	var routes []router.HTTPRoute
	upstreams := make(map[string]*upstream.Upstream)
	for name, e := range t.byName {
		if name.Kind() == tunnel.HTTP {
			routes = append(routes, e.route())
			upstreams[name.String()] = e.upstream
		}
	}
	table, err := router.NewHTTP(routes)
	if err != nil { // each was checked, and names are canonical: no two are for one host and path
		t.log.Error("route", "err", err)
		return
	}
	t.http.SetRoutes(table, upstreams)
}

// withdraw takes a member out and, with the last one, starts the tunnel's expiry.
func (t *tunnels) withdraw(e *exposure, m upstream.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.upstream.Remove(m)
	if t.http != nil {
		t.http.Forget(m)
	}
	if len(e.upstream.Members()) > 0 || e.expiry != nil || t.closed {
		return
	}
	linger := hostLinger
	if e.port != nil {
		linger = portLinger
	}
	e.expiry = time.AfterFunc(linger, func() { t.expire(e) })
}

// expire forgets a tunnel that is still without a member.
func (t *tunnels) expire(e *exposure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(e.upstream.Members()) > 0 || t.byName[e.name] != e {
		return
	}
	t.forget(e)
}

// settlePause is how long tunnels that expire together are waited for.
const settlePause = 100 * time.Millisecond

// forget drops a tunnel. The caller holds mu.
func (t *tunnels) forget(e *exposure) {
	delete(t.byName, e.name)
	if e.port != nil {
		e.port.Close() // its connections go on
		t.log.Info("port closed, its last client is gone", "port", e.name.Port())
		return
	}
	t.stale = true
	if t.settle == nil {
		t.settle = time.AfterFunc(settlePause, t.Settle)
	}
}

// makeRoom forgets a tunnel that has no member, so that names which nobody offers any more keep out none that is offered.
// The caller holds mu.
func (t *tunnels) makeRoom() bool {
	for _, e := range t.byName {
		if e.expiry != nil {
			e.expiry.Stop()
			t.forget(e)
			return true
		}
	}
	return false
}

// shutdown takes no new connections, waits for the open ones until the context ends and then aborts them. Nothing of
// the entrypoints is left when it returns.
func (t *tunnels) shutdown(ctx context.Context) {
	t.mu.Lock()
	t.closed = true
	for _, e := range t.byName {
		if e.expiry != nil {
			e.expiry.Stop()
		}
	}
	ports := slices.Collect(maps.Keys(t.ports))
	t.mu.Unlock()
	for _, p := range ports {
		p.Close()
	}
	drained := make(chan struct{})
	go func() {
		t.serving.Wait()
		close(drained)
	}()
	select {
	case <-drained:
		return
	case <-ctx.Done():
		t.log.Warn("connections were still open at the end of the drain")
	}
	for _, p := range ports {
		p.Abort()
	}
	<-drained
}

// publication is one member's place in an exposure.
type publication struct {
	tunnels  *tunnels
	exposure *exposure
	member   upstream.Member
	once     sync.Once
}

func (p *publication) Withdraw() {
	p.once.Do(func() { p.tunnels.withdraw(p.exposure, p.member) })
}

// Address is where visitors reach the tunnel: a port of this server, or a host and path on its HTTP entrypoint.
func (p *publication) Address() string {
	if p.exposure.port != nil {
		return p.exposure.port.Addr().String()
	}
	name := p.exposure.name
	return name.Host().String() + name.Path() + " on " + p.tunnels.httpAddr
}
