package dataplane

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"culvert/internal/config/plan"
	"culvert/internal/proxy"
	"culvert/internal/proxyproto"
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

// addStatic makes a member of the file and starts its check.
func (p *pool) addStatic(m plan.Member, rank int) *staticMember {
	network, address := addressOf(m)
	s := &staticMember{
		pool: p, plan: m, rank: rank, stop: func() {},
		member: upstream.NewStatic(upstream.StaticConfig{
			Name: m.Name, Network: network, Address: address, ConnectTimeout: p.file.Connect.Timeout,
			ProxyProtocol: emission(p.file.ProxyProtocol),
		}),
	}
	p.upstream.Add(s.placed())
	if p.file.Health != nil {
		s.check(*p.file.Health)
	}
	return s
}

func (s *staticMember) placed() upstream.Placed {
	return upstream.Placed{Member: s.member, Weight: s.plan.Weight, Backup: s.plan.Backup, MaxConns: s.plan.MaxConns, Rank: s.rank}
}

// change gives the member another place in its pool.
func (s *staticMember) change(m plan.Member, rank int) {
	if s.plan != m || s.rank != rank {
		s.plan, s.rank = m, rank
		s.pool.upstream.Update(s.placed())
	}
}

func (s *staticMember) remove() {
	s.stop()
	s.pool.upstream.Remove(s.member)
}

// addressOf is what to dial for a member of the file.
func addressOf(m plan.Member) (network, address string) {
	if path, ok := strings.CutPrefix(m.Address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", m.Address
}

// emission is the header that members get.
func emission(s plan.ProxySend) proxyproto.Emission {
	e := proxyproto.Emission{FirstDatagram: s.UDPHeader == plan.FirstDatagram}
	switch s.Version {
	case plan.SendV1:
		e.Version = proxyproto.V1
	case plan.SendV2:
		e.Version = proxyproto.V2
	}
	for _, t := range s.TLVs {
		switch t {
		case plan.TLVAuthority:
			e.Authority = true
		case plan.TLVUniqueID:
			e.UniqueID = true
		case plan.TLVChecksum:
			e.CRC32C = true
		}
	}
	return e
}

// check starts the member's check.
func (s *staticMember) check(h plan.Health) {
	network, address := addressOf(s.plan)
	c := checkOf(h)
	if c.Kind == health.UDP {
		network = "udp"
	}
	switch s.pool.file.ProxyProtocol.Version {
	case plan.SendV1:
		c.Proxy = 1
	case plan.SendV2:
		c.Proxy = 2
	}
	log := s.pool.plane.cfg.Log.With("upstream", s.pool.name, "member", s.plan.Name)
	checker, err := health.New(health.Config{
		Check: c, Network: network, Address: address,
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

// checkOf is the check that the file asks for.
func checkOf(h plan.Health) health.Check {
	c := health.Check{Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall, Port: h.Port}
	switch {
	case h.HTTP != nil:
		c.Kind, c.Path, c.Host = health.HTTP, h.HTTP.Path, h.HTTP.Host
		for _, r := range h.HTTP.Status {
			c.Status = append(c.Status, health.StatusRange(r))
		}
	case h.Expect != nil:
		c.Kind, c.Send, c.Expect = health.Expect, h.Expect.Send, h.Expect.Expect
	case h.UDP != nil:
		c.Kind, c.Send, c.Expect = health.UDP, h.UDP.Send, h.UDP.Expect
	default:
		c.Kind = health.TCP
	}
	return c
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

// endConnections resets the open connections that which picks, and says how many.
func (d *DataPlane) endConnections(which func(proxy.Open) bool) (n int) {
	d.mu.Lock()
	var servers []*tcpServer
	for _, e := range d.entries {
		if s, ok := e.server.(*tcpServer); ok {
			servers = append(servers, s)
		}
	}
	d.mu.Unlock()
	for _, s := range servers {
		n += s.proxy.End(which)
	}
	return n
}
