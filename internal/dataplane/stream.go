package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"culvert/internal/config/plan"
	"culvert/internal/entrypoint"
	"culvert/internal/proxy"
	"culvert/internal/upstream"
)

// socket is an entrypoint's listening socket.
type socket interface {
	Addr() net.Addr
	Close() error // takes no more; what is there goes on
}

// tcpServer carries the connections of an entrypoint of TCP or TLS.
type tcpServer struct {
	proxy *proxy.TCP
	open  atomic.Int64
	total atomic.Uint64

	// Who receives, and with which settings. The mutex of the data plane guards both.
	receive  func(*net.TCPConn) (proxy.Arrival, error)
	receives *plan.Entrypoint
}

// newServer makes what carries an entrypoint's traffic.
func (d *DataPlane) newServer(e *entry) server {
	if e.plan.Protocol == plan.UDP {
		return new(udpServer)
	}
	return &tcpServer{proxy: proxy.NewTCP(proxy.TCPConfig{Metrics: d.cfg.Metrics, Records: d.cfg.Records, Log: d.cfg.Log})}
}

func (s *tcpServer) set(e *entry, routes *proxy.Routes) {
	set := proxy.Settings{
		Name: e.plan.Name, Kind: string(e.plan.Protocol), Label: e.label(), Counts: e.plane.countsOf(e),
		Routes: routes, Receive: s.reception(e), HalfClosedTimeout: e.plan.HalfClosedTimeout, IdleTimeout: e.plan.IdleTimeout,
		Emit: e.plane.cfg.Emit, DialTimeout: e.dialTimeout(), MaxConns: e.plan.MaxConns,
	}
	refused := e.refused()
	set.Full = func() { refused(entrypoint.RefusedTooMany) }
	if e.plan.HalfClosedTimeout == 0 {
		set.HalfClosedTimeout = -1 // in the file, 0 is for ever
	}
	if e.plan.WhenEmpty == plan.Wait {
		set.EmptyTimeout = e.plan.QueueTimeout
	}
	if e.plan.Protocol == plan.TLS {
		set.Refuse = func(c upstream.Conn) { entrypoint.UnknownHost(c) }
	}
	s.proxy.Set(set)
	if l, ok := e.socket.(*tcpSocket); ok {
		l.Allow(e.peers())
	}
}

// leastDialTimeout is how long, at least, members are sought for a visitor.
const leastDialTimeout = 30 * time.Second

// dialTimeout bounds the search for a member. It leaves room for one slow attempt, and for what the file says of queues.
func (e *entry) dialTimeout() time.Duration {
	longest := leastDialTimeout
	for _, p := range e.pools {
		if p.file == nil {
			continue
		}
		t := max(leastDialTimeout, p.file.Connect.Timeout)
		if p.file.Queue.Max > 0 {
			t += p.file.Queue.Timeout
		}
		longest = max(longest, t)
	}
	return longest
}

// label is the entrypoint's in the tcp_dataplane metrics: the port where there is one of its own, as they have always had it.
func (e *entry) label() string {
	if e.isOwn() {
		return e.plan.Name
	}
	return strconv.Itoa(int(e.offered.Port()))
}

// reception is that of the entrypoint. It stays the same while its settings do, because it bounds what one source may have
// waiting.
func (s *tcpServer) reception(e *entry) func(*net.TCPConn) (proxy.Arrival, error) {
	settings := plan.Entrypoint{
		Name: e.plan.Name, Protocol: e.plan.Protocol, Access: e.plan.Access, Streams: plan.Streams{HelloTimeout: e.plan.HelloTimeout},
	}
	if s.receives == nil || !s.receives.Equal(settings) {
		s.receives, s.receive = &settings, e.reception()
	}
	return s.receive
}

// reception is how the entrypoint finds out whom a connection is from and where to; nil if nothing has to be read for that.
func (e *entry) reception() func(*net.TCPConn) (proxy.Arrival, error) {
	a := e.plan.Access
	accepts := a.ProxyProtocol.Accept == plan.AcceptAuto
	if !accepts && len(a.ProbeSources) == 0 && e.plan.Protocol != plan.TLS {
		return nil
	}
	r := &entrypoint.Reception{
		ClientHello: e.plan.Protocol == plan.TLS, ProbeSources: a.ProbeSources, HeaderTimeout: a.ProxyProtocol.Timeout,
		HelloTimeout: e.plan.HelloTimeout, OnRefused: e.refused(),
	}
	if accepts {
		r.Proxy = &entrypoint.ProxyPolicy{Trusted: a.ProxyProtocol.Trusted}
		r.Allow = a.Allow
	}
	return func(c *net.TCPConn) (proxy.Arrival, error) {
		v, err := r.Receive(c)
		if errors.Is(err, entrypoint.ErrProbe) {
			err = proxy.ErrAnswered
		}
		return proxy.Arrival{
			Source: v.Source, Destination: v.Destination, Via: v.Via, Host: v.Host, Header: v.Header,
			Begun: upstream.Begun{Read: v.First, Guard: v.Guard},
		}, err
	}
}

// peers are those that may connect, all if empty. Behind a balancer that says whom a connection is from, it is the
// reception that asks whether the visitor may.
func (e *entry) peers() []netip.Prefix {
	if e.plan.ProxyProtocol.Accept == plan.AcceptAuto {
		return nil
	}
	return e.plan.Allow
}

// refused counts connections that are closed before they are routed.
func (e *entry) refused() func(reason string) {
	d, name := e.plane, e.plan.Name
	if !e.isOwn() {
		return d.cfg.Metrics.RefusedTCP
	}
	return func(reason string) {
		d.cfg.Metrics.RefusedTCP(reason)
		d.cfg.Counters.refuse(name, reason)
	}
}

// countsOf are the counts of an entrypoint of the configuration.
func (d *DataPlane) countsOf(e *entry) proxy.Counts {
	if !e.isOwn() {
		return proxy.Counts{}
	}
	return d.cfg.Counters.entries.Of(e.plan.Name)
}

// tcpSocket is one opening of an entrypoint, with the connections that came through it.
type tcpSocket struct {
	*entrypoint.TCP
	open atomic.Int64
}

func (s *tcpSocket) Open() int { return int(s.open.Load()) }

// Drain takes no more connections; those that are there go on.
func (s *tcpSocket) Drain() { _ = s.Close() }

// settled waits until a change is whole. An entrypoint is opened in the midst of one, to find out whether it can be, and has no
// routes yet: its first visitors wait in the kernel.
func (d *DataPlane) settled() {
	d.mu.Lock()
	defer d.mu.Unlock()
}

func (s *tcpServer) listen(e *entry) (socket, error) {
	d := e.plane
	ep, err := entrypoint.ListenTCP(entrypoint.Config{
		Addr: e.plan.Addr, Allow: e.peers(), Log: d.cfg.Log, OnRefused: e.refused(), Inherit: d.cfg.Inherit,
	})
	if err != nil {
		return nil, err
	}
	l := &tcpSocket{TCP: ep}
	d.listens[l] = struct{}{}
	name := e.plan.Name
	d.serving.Go(func() {
		d.settled()
		// The context is not the server's: connections outlive the start of a shutdown, until Shutdown aborts them.
		err := ep.Run(context.Background(), func(ctx context.Context, c *net.TCPConn, over func()) {
			s.total.Add(1)
			s.open.Add(1)
			l.open.Add(1)
			s.proxy.ServeTCP(ctx, c, func() {
				l.open.Add(-1)
				s.open.Add(-1)
				over()
			})
		})
		if err != nil {
			d.cfg.Log.Error("entrypoint failed", "entrypoint", name, "err", err)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.listens, l)
	})
	return l, nil
}

func (s *tcpServer) reroute(all bool, which func(netip.Addr, string) bool) {
	if all {
		s.proxy.End(func(o proxy.Open) bool { return which(o.Source.Addr(), o.Host) })
	}
}

func (s *tcpServer) carried() (open int, total uint64) { return int(s.open.Load()), s.total.Load() }

func (s *tcpServer) usable() { s.proxy.Usable() }
