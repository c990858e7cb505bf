package dataplane

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"culvert/internal/config/plan"
	"culvert/internal/hostname"
	"culvert/internal/proxy"
	"culvert/internal/router"
	"culvert/internal/tunnel"
)

const (
	// portLinger is how long a port stays open after its last usable member: long enough for that one to come back, short
	// enough for a balancer's TCP check to notice.
	portLinger = 2 * time.Second
	// reopenPause is the time between attempts to open a port again that somebody else has taken.
	reopenPause = 2 * time.Second
)

// entry is an entrypoint: of the file, of a flag, or of a port that a client offers. It outlives its socket, which closes while
// there is nobody to send visitors to. The mutex of the data plane guards it.
type entry struct {
	plane *DataPlane
	plan  plan.Entrypoint
	// offered is the tunnel that the entrypoint is there for; the zero Name for one of the file or of a flag.
	offered tunnel.Name

	diverts []*divert // the newest first
	pools   []*pool   // that its routes lead to
	server  server
	socket  socket // nil while it is closed
	failed  error  // why it could not be opened last; nil if it could
	timer   *time.Timer
	totals  map[string]*atomic.Uint64 // what each route has taken, by name
}

// server carries what comes through an entrypoint.
type server interface {
	// set changes where visitors go from now on.
	set(e *entry, routes *proxy.Routes)
	// listen opens the entrypoint's socket and serves it.
	listen(e *entry) (socket, error)
	// reroute has open flows that which picks find their member anew, and open connections too if all is set.
	reroute(all bool, which func(source netip.Addr, host string) bool)
	// carried is how many connections or flows are open, and have been in all.
	carried() (open int, total uint64)
	// usable has visitors who wait for a member look again.
	usable()
}

// route is one route of an entrypoint, with the pool it leads to.
type route struct {
	router.L4Route
	pool  *pool
	limit time.Duration
}

// routes are those of the entrypoint as things stand: of diverts, the newest first, of the file, and of clients that offer a
// host by TLS.
func (e *entry) routes() []route {
	var list []route
	for _, v := range e.diverts {
		list = append(list, v.route())
	}
	for _, r := range e.plan.Routes {
		list = append(list, route{
			L4Route: router.L4Route{
				Name: cmp.Or(r.Name, r.Upstream), Sources: r.Match.Source, Hosts: r.Match.Host, Percent: r.Match.Percent,
				Upstream: r.Upstream, Fallback: r.OnDown == plan.Fallback,
			},
			pool: e.plane.pool(r.Upstream),
		})
	}
	if e.plan.Protocol == plan.TLS && e.plan.Name == plan.TLSEntrypoint {
		list = append(list, e.plane.offeredHosts()...)
	}
	return list
}

// offeredHosts are the routes of the hosts that clients offer by TLS: a host before a wildcard that it is below, and that
// before a shorter one.
func (d *DataPlane) offeredHosts() (list []route) {
	for name := range d.offers {
		if name.Kind() != tunnel.TLS {
			continue
		}
		list = append(list, route{
			L4Route: router.L4Route{Name: name.String(), Hosts: []hostname.Pattern{name.Host()}, Upstream: name.String()},
			pool:    d.pool(name.String()),
		})
	}
	slices.SortFunc(list, func(a, b route) int {
		x, y := a.Hosts[0].String(), b.Hosts[0].String()
		if wildX, wildY := strings.HasPrefix(x, "*"), strings.HasPrefix(y, "*"); wildX != wildY {
			if wildY {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(len(y), len(x)), strings.Compare(x, y))
	})
	return list
}

// rebuild gives the entrypoint its routes as things stand now. The error is of a route that cannot be.
func (e *entry) rebuild() error {
	list := e.routes()
	rules := make([]router.L4Route, len(list))
	targets := make([]proxy.Target, len(list))
	pools := make(map[*pool]struct{}, len(list))
	for i, r := range list {
		rules[i] = r.L4Route
		targets[i] = proxy.Target{
			Upstream: r.pool.upstream, Limit: r.limit, Took: e.took(r),
		}
		pools[r.pool] = struct{}{}
	}
	table, err := router.NewL4(rules)
	if err != nil {
		return fmt.Errorf("entrypoint %s: %w", e.plan.Name, err)
	}
	e.leadTo(pools)
	e.server.set(e, proxy.NewRoutes(table, targets))
	return nil
}

// leadTo notes which pools the routes lead to.
func (e *entry) leadTo(pools map[*pool]struct{}) {
	for _, p := range e.pools {
		if _, ok := pools[p]; !ok {
			delete(p.entries, e)
			e.plane.sweep(p)
		}
	}
	e.pools = e.pools[:0]
	for p := range pools {
		e.pools = append(e.pools, p)
		p.entries[e] = struct{}{}
	}
}

// isOwn says whether the entrypoint is of the configuration.
func (e *entry) isOwn() bool { return e.offered == tunnel.Name{} }

// isUsable says whether a visitor may find a member.
func (e *entry) isUsable() bool {
	return slices.ContainsFunc(e.pools, func(p *pool) bool { return p.upstream.Usable() })
}

// closes says whether the entrypoint's socket is to be closed while there is no usable member.
func (e *entry) closes() bool {
	if e.plan.Protocol == plan.UDP {
		return !e.isOwn()
	}
	return e.plan.WhenEmpty == plan.Refuse
}

// update opens the socket, or has it closed in a while, as the entrypoint has usable members or not.
func (e *entry) update() error {
	if e.plane.closed {
		return nil
	}
	usable := e.isUsable()
	switch {
	case usable || !e.closes():
		e.stopTimer()
		if e.socket == nil {
			if err := e.open(); err != nil {
				return err
			}
		}
	case e.socket != nil && e.timer == nil:
		e.after(portLinger, e.closeIdle)
	}
	if usable {
		e.server.usable()
	}
	return nil
}

func (e *entry) open() error {
	s, err := e.server.listen(e)
	e.failed = err
	if err != nil {
		return err
	}
	e.socket = s
	e.plane.cfg.Log.Info("entrypoint opened", "entrypoint", e.plan.Name, "protocol", e.plan.Protocol, "addr", s.Addr().String())
	return nil
}

// closeIdle closes the socket of an entrypoint that has had no usable member for a while.
func (e *entry) closeIdle() {
	if e.isUsable() || e.socket == nil {
		return
	}
	e.closeSocket("no member is usable")
}

// closeSocket takes no more visitors; those that are there go on.
func (e *entry) closeSocket(why string) {
	if e.socket != nil {
		_ = e.socket.Close()
		e.socket = nil
		e.plane.cfg.Log.Info("entrypoint closed", "entrypoint", e.plan.Name, "reason", why)
	}
}

// reopen tries to open the socket until it works or is not to be open any more.
func (e *entry) reopen() {
	if err := e.update(); err != nil {
		e.plane.cfg.Log.Warn("entrypoint cannot be opened, trying again", "entrypoint", e.plan.Name, "err", err, "after", reopenPause)
		e.after(reopenPause, e.reopen)
	}
}

// after has something done in a while, with the mutex held, unless stopTimer comes first.
func (e *entry) after(d time.Duration, do func()) {
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		e.plane.awaitSockets()
		e.plane.mu.Lock()
		defer e.plane.mu.Unlock()
		if e.timer == t && !e.plane.closed {
			e.timer = nil
			do()
		}
	})
	e.timer = t
}

// stopTimer ends what would change the entrypoint later.
func (e *entry) stopTimer() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// remove takes the entrypoint out of the data plane. Its connections go on.
func (e *entry) remove(why string) {
	e.stopTimer()
	e.closeSocket(why)
	e.leadTo(nil)
	if e.plane.entries[e.plan.Name] == e {
		delete(e.plane.entries, e.plan.Name)
	}
	e.forgetCounts()
}

// forgetCounts drops what metrics have of the entrypoint by its name. What is open goes on counting for nobody.
func (e *entry) forgetCounts() {
	if e.isOwn() {
		e.plane.cfg.Counters.forgetEntry(e.plan.Name)
	}
	if e.plan.Protocol == plan.UDP {
		e.plane.cfg.UDPMetrics.Forget(e.plan.Name)
	}
}

// expireSoon has the port of a tunnel forgotten in a while, unless a client offers it again.
func (e *entry) expireSoon() {
	e.stopTimer()
	e.after(portLinger, func() {
		if e.isWanted() {
			e.closeIdle() // another client came meanwhile, whose service may be down
			return
		}
		e.remove("its last client is gone")
	})
}

// isWanted says whether a client offers the port of the entrypoint, or has its traffic diverted.
func (e *entry) isWanted() bool { return len(e.plane.offers[e.offered]) > 0 || len(e.diverts) > 0 }
