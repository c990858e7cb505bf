package dataplane

import (
	"slices"
	"strings"

	"culvert/internal/balancer"
	"culvert/internal/config/plan"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
	"culvert/internal/upstream/health"
)

// pool is an upstream, with where its members come from: addresses of the file, which are made here, and clients that offer a
// tunnel. The mutex of the data plane guards it.
type pool struct {
	plane    *DataPlane
	name     string
	upstream *upstream.Upstream
	file     *plan.Upstream           // nil unless it is of the file
	static   map[string]*staticMember // by address
	entries  map[*entry]struct{}      // those whose routes lead here
	counts   *poolCounts              // nil for a tunnel's
	hosts    *host                    // whose upstream it is; nil if of none
}

// newPool makes a pool without members that is not of the file.
func (d *DataPlane) newPool(name string) *pool {
	p := &pool{plane: d, name: name, static: make(map[string]*staticMember), entries: make(map[*entry]struct{})}
	if !p.isTunnel() {
		p.counts = d.cfg.Counters.pool(name)
	}
	p.upstream = upstream.New(p.config())
	return p
}

// pool gives the upstream of a name, which it makes if it must.
func (d *DataPlane) pool(name string) *pool {
	p := d.pools[name]
	if p == nil {
		p = d.newPool(name)
		d.pools[name] = p
	}
	return p
}

// sweep forgets a pool that nobody has a use for.
func (d *DataPlane) sweep(p *pool) {
	if p.file == nil && len(p.entries) == 0 && p.hosts == nil && len(p.upstream.Members()) == 0 && d.pools[p.name] == p {
		delete(d.pools, p.name)
		if p.counts != nil {
			d.cfg.Counters.forgetPool(p.name)
		}
	}
}

// config is how the upstream balances. A tunnel has every client tried.
func (p *pool) config() upstream.Config {
	c := upstream.Config{
		Name: p.name, Retries: -1,
		OnFailedDial: p.failedDial, OnUsable: p.usable, OnEjected: p.ejected,
	}
	f := p.file
	if f == nil {
		if _, ok := divertID(p.name); ok {
			c.Ejection.Most = divertEjection
		}
		return c
	}
	c.Policy, c.Retries, c.SlowStart = balancer.Policy(f.Balance), f.Connect.Retries, f.SlowStart
	c.Emit = f.ProxyProtocol.Emission() // for the clients of tunnels
	c.Queue = upstream.Queue{Max: f.Queue.Max, Timeout: f.Queue.Timeout}
	c.Ejection = upstream.Ejection{After: f.Eject.After, For: f.Eject.For, Most: f.Eject.Most}
	return c
}

// set makes the pool what the file says; nil is a pool that the file has no longer. What comes is there before what goes
// has gone: at no moment is there no member for a visitor.
func (p *pool) set(file *plan.Upstream) {
	before := p.file
	p.file = file
	p.upstream.Reconfigure(p.config())
	var want []plan.Member
	if file != nil {
		want = file.Members
	}
	names := make(map[string]string, len(want)) // by address
	for _, w := range want {
		names[w.Address] = w.Name
	}
	sameDial := before != nil && file != nil && before.SameDial(*file)
	down := p.foundDown()
	var gone []upstream.Member
	for address, m := range p.static {
		if names[address] != m.plan.Name || !sameDial { // no name is empty
			gone = append(gone, m.member)
			m.stop()
			delete(p.static, address)
		}
	}
	var fresh []*staticMember
	for rank, w := range want {
		switch m := p.static[w.Address]; {
		case w.Address == "": // its clients come with offerings
		case m == nil:
			fresh = append(fresh, p.newStatic(w, rank))
		default:
			m.change(w, rank)
		}
	}
	if len(fresh) > 0 {
		p.addStatic(fresh, down)
	}
	p.setOffered()
	p.upstream.Remove(gone...)
}

// foundDown are the addresses of members that their check has found down.
func (p *pool) foundDown() map[string]bool {
	places := make(map[upstream.Member]bool)
	for _, at := range p.upstream.Places() {
		places[at.Member] = at.Down
	}
	down := make(map[string]bool)
	for address, m := range p.static {
		down[address] = m.checker != nil && places[m.member]
	}
	return down
}

// checkers are those of the members that are checked here.
func (p *pool) checkers() map[upstream.Member]*health.Checker {
	checkers := make(map[upstream.Member]*health.Checker, len(p.static))
	for _, m := range p.static {
		if m.checker != nil {
			checkers[m.member] = m.checker
		}
	}
	return checkers
}

// retire takes a pool out of the data plane that nothing leads to any more. It keeps its members: a visitor who came a moment
// ago, by the routes of before, still finds them.
func (p *pool) retire() {
	p.stopChecks()
	delete(p.plane.pools, p.name)
	p.plane.cfg.Counters.forgetPool(p.name)
}

func (p *pool) stopChecks() {
	for _, m := range p.static {
		m.stop()
	}
}

// offering is the place that the pool has for clients that offer a tunnel; false if it has none.
func (p *pool) offering(name tunnel.Name) (offering, bool) {
	if p.file != nil {
		for rank, m := range p.file.Members {
			if m.Address == "" && m.Tunnel == name {
				return offering{m, rank}, true
			}
		}
	}
	return offering{Member: plan.Member{Weight: 1}}, p.name == name.String()
}

// offering is a place for clients that offer a tunnel.
type offering struct {
	plan.Member
	rank int
}

// setOffered gives the pool the clients that belong to it, and takes out those that do no longer.
func (p *pool) setOffered() {
	for name, list := range p.plane.offers {
		place, ok := p.offering(name)
		for _, o := range list {
			if ok {
				p.place(o, place)
			} else {
				p.upstream.Remove(o.offered.Member)
			}
		}
	}
}

// place gives a client its place in the pool.
func (p *pool) place(o *publication, place offering) {
	placed := upstream.Placed{
		Member: o.offered.Member, Weight: max(place.Weight, 1) * max(o.offered.Offer.Weight, 1),
		Backup: place.Backup || o.offered.Offer.Backup, MaxConns: place.MaxConns, Rank: place.rank, Down: o.down != nil,
	}
	if slices.Contains(p.upstream.Members(), placed.Member) {
		p.upstream.Update(placed)
		return
	}
	p.upstream.Add(placed)
	if o.down != nil {
		p.upstream.SetHealth(placed.Member, false, o.down) // who asks is told why
	}
}

// poolsOf are the pools that clients who offer a tunnel belong to, each with the place it has for them.
func (d *DataPlane) poolsOf(name tunnel.Name) map[*pool]offering {
	pools := make(map[*pool]offering, 1)
	if p := d.pools[name.String()]; p != nil {
		pools[p], _ = p.offering(name)
	}
	for _, p := range d.filePools {
		if place, ok := p.offering(name); ok {
			pools[p] = place
		}
	}
	return pools
}

// isTunnel says whether the pool is a tunnel's.
func (p *pool) isTunnel() bool { return strings.Contains(p.name, "/") }

// usable is called when the upstream has got its first usable member or has lost its last, in no goroutine of ours.
func (p *pool) usable(bool) { p.plane.changed(p) }
