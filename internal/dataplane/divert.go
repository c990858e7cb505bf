package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/internal/cidr"
	"culvert/internal/config/plan"
	"culvert/internal/control"
	"culvert/internal/hostname"
	"culvert/internal/router"
	"culvert/internal/tunnel"
)

// divertLimit is what a client may take to answer for a visitor before the visitor falls through to the other routes.
const divertLimit = time.Second

// divertEjection is for how long, at most, visitors fall through at once while the client answers nothing, before one of them
// tries again: somebody sits there who mends it.
const divertEjection = 30 * time.Second

// divert is the route of a control.Divert, before the others of its entrypoint. Control keeps its time and tells of it.
type divert struct {
	control.Divert
	name  string // of the tunnel, and so of the route and its upstream
	owner *publication
	entry *entry
}

// beginDivert places the route. Its address says which protocol the entrypoint has.
func (d *DataPlane) beginDivert(p *publication) (address string, err error) {
	want := p.offered.Divert
	e := d.entries[want.Entrypoint]
	switch {
	case e == nil:
		return "", fmt.Errorf("no entrypoint %q; there are %s", want.Entrypoint, d.entryNames(p.offered.MayDivert))
	case len(want.Hosts) > 0 && e.plan.Protocol != plan.TLS:
		return "", fmt.Errorf("entrypoint %s has protocol %s, whose visitors name no host", want.Entrypoint, e.plan.Protocol)
	case e.plan.Protocol == plan.UDP && strings.HasPrefix(want.To, "unix:"):
		return "", fmt.Errorf("entrypoint %s has protocol udp, and a Unix socket takes no datagrams: divert it to HOST:PORT", want.Entrypoint)
	}
	p.divert = &divert{Divert: *want, name: p.offered.Name.String(), owner: p, entry: e}
	e.diverts = slices.Insert(e.diverts, 0, p.divert)
	if err := e.rebuild(); err != nil {
		p.divert.remove()
		return "", err
	}
	d.report(e.update())
	if want.Existing != control.Keep {
		e.server.reroute(want.Existing == control.Move, p.divert.takes)
	}
	return string(e.plan.Protocol) + " of entrypoint " + e.plan.Name, nil
}

// endDivert takes the route out. Connections that the client has go on while the client does; its flows go back.
func (d *DataPlane) endDivert(v *divert) {
	v.remove()
	if d.entries[v.entry.plan.Name] != v.entry {
		return // the configuration has the entrypoint no longer: it is not to be opened again
	}
	d.report(v.entry.rebuild())
	d.report(v.entry.update())
	if v.Existing != control.Keep {
		v.entry.server.reroute(false, v.takes)
	}
	if !slices.ContainsFunc(v.entry.diverts, func(o *divert) bool { return o.name == v.name }) {
		delete(v.entry.totals, v.name)
		d.cfg.Counters.forgetRoute(v.entry.plan.Name, v.name)
	}
	if !v.entry.isOwn() && !v.entry.isWanted() {
		v.entry.expireSoon()
	}
}

// divertID is the id of the divert that has a route and an upstream of this name; false if none has.
func divertID(name string) (id string, ok bool) {
	return strings.CutPrefix(name, string(tunnel.Divert)+"/")
}

func (v *divert) remove() {
	v.entry.diverts = slices.DeleteFunc(v.entry.diverts, func(o *divert) bool { return o == v })
}

// entryNames lists the entrypoints that someone may know of, for a message.
func (d *DataPlane) entryNames(may func(name string) bool) string {
	const most = 20
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(d.entries)), func(name string) bool { return !may(name) })
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// route is the divert as a route.
func (v *divert) route() route {
	return route{
		L4Route: router.L4Route{
			Name: v.name, Sources: v.Sources, Hosts: v.Hosts, Percent: v.Percent, Upstream: v.name, Fallback: !v.Fail,
		},
		pool: v.entry.plane.pool(v.name), limit: divertLimit,
	}
}

// takes says whether an open connection or flow is among those that the divert is for.
func (v *divert) takes(source netip.Addr, host string) bool {
	bySource := len(v.Sources) == 0 || cidr.Contain(v.Sources, source)
	byHost := len(v.Hosts) == 0 || slices.ContainsFunc(v.Hosts, func(h hostname.Pattern) bool { return h.Match(host) })
	return bySource && byHost
}

// Carried implements control.DivertPublication.
func (p *publication) Carried() (protocol string, open int, total uint64) {
	d := p.plane
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.divert == nil {
		return "", 0, 0
	}
	if pool := d.pools[p.divert.name]; pool != nil {
		for _, s := range pool.upstream.Places() {
			open, total = open+s.Open, total+s.Total-s.Failed
		}
	}
	return string(p.divert.entry.plan.Protocol), open, total
}

var _ control.DivertPublication = (*publication)(nil)
