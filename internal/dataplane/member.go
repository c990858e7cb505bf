package dataplane

import (
	"context"
	"log/slog"
	"time"

	"culvert/internal/config/plan"
	"culvert/internal/proxy"
	"culvert/internal/upstream"
	"culvert/internal/upstream/health"
)

// staticMember is an address of the file in a pool, with the check that goes on beside it.
type staticMember struct {
	pool    *pool
	plan    plan.Member
	rank    int // in the file
	member  *upstream.Static
	checker *health.Checker // nil if the upstream has no check
	stop    context.CancelFunc
}

// newStatic makes a member of the file.
func (p *pool) newStatic(m plan.Member, rank int) *staticMember {
	network, address := m.Network()
	return &staticMember{
		pool: p, plan: m, rank: rank, stop: func() {},
		member: upstream.NewStatic(upstream.StaticConfig{
			Name: m.Name, Network: network, Address: address, ConnectTimeout: p.file.Connect.Timeout,
			ProxyProtocol: p.file.ProxyProtocol.Emission(),
		}),
	}
}

// addStatic adds members of the file and starts their checks. One that takes the place of a member that is down gets no visitors
// before its own check has found it up.
func (p *pool) addStatic(fresh []*staticMember, down map[string]bool) {
	c, checked := p.file.Check()
	all := make([]upstream.Placed, len(fresh))
	for i, s := range fresh {
		p.static[s.plan.Address] = s
		all[i] = s.placed()
		all[i].Down = checked && down[s.plan.Address]
	}
	p.upstream.Add(all...)
	if checked {
		for _, s := range fresh {
			s.check(c)
		}
	}
}

func (s *staticMember) placed() upstream.Placed {
	return upstream.Placed{
		Member: s.member, Weight: s.plan.Weight, Backup: s.plan.Backup, MaxConns: s.plan.MaxConns, Account: s.plan.Address, Rank: s.rank,
	}
}

// change gives the member another place in its pool.
func (s *staticMember) change(m plan.Member, rank int) {
	if s.plan != m || s.rank != rank {
		s.plan, s.rank = m, rank
		s.pool.upstream.Update(s.placed())
	}
}

// check starts the member's check.
func (s *staticMember) check(c health.Check) {
	network, address := s.plan.Network()
	if c.Kind == health.UDP {
		network = "udp"
	}
	log := s.pool.plane.cfg.Log.With("upstream", s.pool.name, "member", s.plan.Name)
	checker, err := health.New(health.Config{
		Check: c, Network: network, Address: address, TLS: s.pool.file.CheckTLS(s.plan),
		OnChange: func(up bool, cause error) { s.changed(log, up, cause) },
	})
	if err != nil { // the file was checked, so this is a check that no file can ask for
		log.Error("no check of the member", "err", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.checker, s.stop = checker, cancel
	s.pool.plane.serving.Go(func() { checker.Run(ctx) })
}

// changed is called by the checker.
func (s *staticMember) changed(log *slog.Logger, up bool, cause error) {
	s.pool.upstream.SetHealth(s.member, up, cause)
	if up {
		log.Info("member is up")
		return
	}
	log.Warn("member is down", "reason", cause)
	if s.pool.closesOnDown() {
		s.pool.plane.endConnections(func(o proxy.Open) bool { return o.Upstream == s.pool.name && o.Member == s.plan.Name })
	}
}

func (p *pool) closesOnDown() bool {
	p.plane.mu.Lock()
	defer p.plane.mu.Unlock()
	return p.file != nil && p.file.CloseOnDown
}

func (p *pool) failedDial(m upstream.Member, r upstream.Reason) {
	p.counts.failed(r)
	if p.isTunnel() {
		p.plane.cfg.Metrics.FailedTCPOpen(m, r)
	}
}

func (p *pool) ejected(m upstream.Member, r upstream.Reason, until time.Time) {
	p.counts.ejectedOne(r)
	p.plane.cfg.Log.Warn("member is left out for a while", "upstream", p.name, "member", m.Name(), "reason", r,
		"for", time.Until(until).Round(time.Second))
}

// endConnections resets the open connections that which picks.
func (d *DataPlane) endConnections(which func(proxy.Open) bool) {
	d.mu.Lock()
	var servers []*tcpServer
	for _, e := range d.entries {
		if s, ok := e.server.(*tcpServer); ok {
			servers = append(servers, s)
		}
	}
	d.mu.Unlock()
	for _, s := range servers {
		s.proxy.End(which)
	}
}
