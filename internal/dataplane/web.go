package dataplane

import (
	"time"

	"culvert/internal/router"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

const (
	// hostLinger is how long a host answers 503, "its clients are away", before it answers 404.
	hostLinger = time.Hour
	// settlePause is how long hosts that expire together are waited for.
	settlePause = 100 * time.Millisecond
)

// web is the hosts and paths that clients offer by HTTP, of which the HTTP entrypoint has a table. The mutex of the data plane
// guards it.
type web struct {
	hosts map[tunnel.Name]*host
	stale bool        // the entrypoint does not have the present hosts
	timer *time.Timer // runs while an expired host waits to be taken from the entrypoint
}

// host is one host and path prefix.
type host struct {
	name   tunnel.Name
	pool   *pool
	expiry *time.Timer // runs while no client offers it
}

func (h *host) route() router.HTTPRoute {
	return router.HTTPRoute{Host: h.name.Host(), Path: h.name.Path(), Upstream: h.name.String()}
}

// expose makes a host known to visitors with the next settle.
func (w *web) expose(d *DataPlane, name tunnel.Name) (address string, err error) {
	h := w.hosts[name]
	if h == nil {
		h = &host{name: name, pool: d.pool(name.String())}
		if _, err := router.NewHTTP([]router.HTTPRoute{h.route()}); err != nil {
			return "", err
		}
		if len(w.hosts) >= MaxTunnels && !w.makeRoom(d) {
			return "", errFull
		}
		if w.hosts == nil {
			w.hosts = make(map[tunnel.Name]*host)
		}
		w.hosts[name] = h
		h.pool.hosts = h
		w.stale = true
	}
	if h.expiry != nil {
		h.expiry.Stop()
		h.expiry = nil
	}
	return name.Host().String() + name.Path() + " on " + d.httpAddr, nil
}

// settle gives the HTTP entrypoint the present hosts. It is apart from expose because it costs as much for one new host as for
// thousands.
func (w *web) settle(d *DataPlane) {
	if !w.stale || d.closed {
		return
	}
	w.stale, w.timer = false, nil
	routes := make([]router.HTTPRoute, 0, len(w.hosts))
	upstreams := make(map[string]*upstream.Upstream, len(w.hosts))
	for name, h := range w.hosts {
		routes = append(routes, h.route())
		upstreams[name.String()] = h.pool.upstream
	}
	table, err := router.NewHTTP(routes)
	if err != nil { // each was checked, and names are canonical: no two are for one host and path
		d.cfg.Log.Error("route", "err", err)
		return
	}
	d.cfg.HTTP.SetRoutes(table, upstreams)
}

// linger starts the time after which a host is forgotten that no client offers.
func (w *web) linger(d *DataPlane, name tunnel.Name) {
	h := w.hosts[name]
	if h == nil || h.expiry != nil {
		return
	}
	h.expiry = time.AfterFunc(hostLinger, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.closed && len(d.offers[name]) == 0 && w.hosts[name] == h {
			w.forget(d, h)
		}
	})
}

func (w *web) forget(d *DataPlane, h *host) {
	delete(w.hosts, h.name)
	h.pool.hosts = nil
	d.sweep(h.pool)
	w.stale = true
	if w.timer == nil {
		w.timer = time.AfterFunc(settlePause, d.Settle)
	}
}

// makeRoom forgets a host that no client offers, so that names which nobody offers any more keep out none that is offered.
func (w *web) makeRoom(d *DataPlane) bool {
	for _, h := range w.hosts {
		if h.expiry != nil {
			h.expiry.Stop()
			w.forget(d, h)
			return true
		}
	}
	return false
}

func (w *web) stop() {
	for _, h := range w.hosts {
		if h.expiry != nil {
			h.expiry.Stop()
		}
	}
	if w.timer != nil {
		w.timer.Stop()
	}
}
