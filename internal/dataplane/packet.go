package dataplane

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/accesslog"
	"culvert/internal/config/plan"
	"culvert/internal/entrypoint"
	"culvert/internal/proxy"
	"culvert/internal/router"
	"culvert/internal/upstream"
)

// udpServer carries the datagrams of an entrypoint of UDP.
type udpServer struct {
	routes atomic.Pointer[proxy.Routes]
	total  atomic.Uint64
	socket *udpSocket // the newest; the mutex of the data plane guards it
}

func (s *udpServer) set(e *entry, routes *proxy.Routes) {
	s.routes.Store(routes)
	if s.socket != nil && !s.socket.settings.Equal(socketSettings(e.plan)) { // its flows end with it
		e.closeSocket("its settings have changed")
	}
}

// udpSocket is one opening of an entrypoint, with the flows that came through it.
type udpSocket struct {
	*entrypoint.UDP
	settings plan.Entrypoint // that it has for as long as it is open
	proxy    *proxy.UDP
	cancel   context.CancelFunc
}

// socketSettings are those of an entrypoint that a socket for datagrams is opened with.
func socketSettings(e plan.Entrypoint) plan.Entrypoint {
	return plan.Entrypoint{Name: e.Name, Access: e.Access, Flows: e.Flows, IdleTimeout: e.IdleTimeout}
}

// Close closes the socket, and ends the flows that came through it: their answers would leave by it.
func (s *udpSocket) Close() error {
	s.cancel()
	return s.UDP.Close()
}

// Drain takes no new flows, and ends those that are there once they are idle.
func (s *udpSocket) Drain() { s.proxy.Drain() }

// Abort ends all flows.
func (s *udpSocket) Abort() { s.cancel() }

// Open is the number of flows.
func (s *udpSocket) Open() int { return s.proxy.Flows() }

// LeavePackets closes the sockets for datagrams, whose flows end with them: of two processes that have one socket, each gets
// some of its datagrams, so that the old one must not go on reading.
func (d *DataPlane) LeavePackets() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.listens {
		if u, ok := l.(*udpSocket); ok {
			_ = u.Close()
		}
	}
}

func (s *udpServer) listen(e *entry) (socket, error) {
	d, name := e.plane, e.plan.Name
	ep, err := entrypoint.ListenUDP(entrypoint.UDPConfig{
		Addr: e.plan.Addr, Allow: e.plan.Allow, Inherit: d.cfg.Inherit,
		OnRefused: func(reason string) { d.cfg.UDPMetrics.Refused(name, reason) },
	})
	if err != nil {
		return nil, err
	}
	if most := d.flows.Most(); e.plan.MaxFlows > most && e.plan.Mode != plan.PerPacket {
		d.cfg.Log.Warn("all entrypoints together may have fewer flows than max_flows, half of the limit of open files: raise that (LimitNOFILE= of a unit, ulimit -Hn)",
			"entrypoint", name, "max_flows", e.plan.MaxFlows, "flows", most)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &udpSocket{UDP: ep, settings: socketSettings(e.plan), cancel: cancel}
	records := flowRecords{records: d.cfg.Records, entrypoint: name, routes: &s.routes, total: &s.total}
	l.proxy = proxy.NewUDP(proxy.UDPConfig{
		Label: name, Route: s.route, Metrics: d.cfg.UDPMetrics, Log: d.cfg.Log,
		Idle: e.plan.IdleTimeout, MaxFlows: e.plan.MaxFlows, MaxFlowsPerSource: e.plan.MaxFlowsPerSource,
		MaxPacketsPerSource: e.plan.MaxPacketsPerSource, Room: d.flows, PerPacket: e.plan.Mode == plan.PerPacket,
		ProxyTrusted: trustedBy(e.plan.ProxyProtocol), Opened: records.opened, Closed: records.closed,
	})
	s.socket = l
	d.listens[l] = struct{}{}
	d.serving.Go(func() {
		defer cancel()
		d.settled()
		if err := l.proxy.Serve(ctx, ep); err != nil {
			d.cfg.Log.Error("entrypoint failed", "entrypoint", name, "err", err)
		}
		_ = ep.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.listens, l)
		if d.entries[name] == nil { // the last flows may have been counted since
			d.cfg.UDPMetrics.Forget(name)
		}
	})
	return l, nil
}

// trustedBy are the balancers whose headers are expected; none if none are.
func trustedBy(a plan.ProxyAccept) []netip.Prefix {
	if a.Accept != plan.AcceptAuto {
		return nil
	}
	return a.Trusted
}

// route implements proxy.UDPRoute.
func (s *udpServer) route(source netip.Addr, roll uint32, from int) (u *upstream.Upstream, index int, fallback, ok bool) {
	routes := s.routes.Load()
	index, target, ok := routes.Next(router.L4Key{Source: source.WithZone(""), Roll: roll}, from)
	if !ok {
		return nil, index, false, false
	}
	return target.Upstream, index, routes.Route(index).Fallback, true
}

func (s *udpServer) reroute(_ bool, which func(netip.Addr, string) bool) {
	if s.socket != nil {
		s.socket.proxy.Move(func(visitor netip.AddrPort) bool { return which(visitor.Addr(), "") })
	}
}

func (s *udpServer) carried() (open int, total uint64) {
	if s.socket != nil {
		open = s.socket.Open()
	}
	return open, s.total.Load()
}

func (s *udpServer) usable() {
	if s.socket != nil {
		s.socket.proxy.Recheck()
	}
}

// flowRecords makes records of flows.
type flowRecords struct {
	records    *accesslog.Log
	entrypoint string
	routes     *atomic.Pointer[proxy.Routes]
	total      *atomic.Uint64
	open       sync.Map // *accesslog.Entry by the flow's id
}

func (r *flowRecords) opened(f proxy.UDPFlow) {
	r.total.Add(1)
	if routes := r.routes.Load(); f.Route < routes.Len() {
		routes.CountFlow(f.Route)
	}
	if entry := r.records.Opened(r.record(f)); entry != nil {
		r.open.Store(f.ID, entry)
	}
}

func (r *flowRecords) record(f proxy.UDPFlow) accesslog.Record {
	rec := accesslog.Record{
		ID: f.ID, Begun: f.Opened, Entrypoint: r.entrypoint, Protocol: string(plan.UDP), Upstream: f.Upstream, Member: f.Member,
		Source: f.Source, Destination: f.Destination, Via: f.Via,
	}
	if routes := r.routes.Load(); f.Route < routes.Len() {
		rec.Route = routes.Route(f.Route).Name
	}
	return rec
}

func (r *flowRecords) closed(f proxy.UDPFlow) {
	entry, ok := r.open.LoadAndDelete(f.ID)
	if !ok {
		return
	}
	entry.(*accesslog.Entry).Closed(func(rec *accesslog.Record) {
		rec.Route, rec.Member, rec.Upstream = r.record(f).Route, f.Member, f.Upstream // it may have moved
		rec.Duration = time.Since(f.Opened)
		rec.In, rec.Out = int64(f.Bytes[proxy.In]), int64(f.Bytes[proxy.Out])
		rec.ClosedBy, rec.Why = accesslog.Server, f.Reason
		if f.Err != nil {
			rec.Why += ": " + f.Err.Error()
		}
	})
}
