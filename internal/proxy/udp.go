package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/cidr"
	"culvert/internal/proxyproto"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// The defaults of a UDP. With DefaultMaxFlows, a flood of spoofed sources costs docs/udp.md's figure and no more.
const (
	DefaultUDPIdle           = 60 * time.Second
	VPNIdle                  = 180 * time.Second // of the profile vpn: peers that keep silent for two minutes and more
	DefaultMaxFlows          = 4096
	DefaultMaxFlowsPerSource = 2048
)

// UDPRoute finds where a flow goes: to the first of the routes, from number from on, that fits. roll is a random number
// that stays the same for a flow's life. fallback says that the routes behind are to be tried if no member of this one
// takes the flow.
type UDPRoute func(source netip.Addr, roll uint32, from int) (u *upstream.Upstream, index int, fallback, ok bool)

// UDPConfig is what a UDP needs.
type UDPConfig struct {
	Label   string // the entrypoint, in metrics and logs
	Route   UDPRoute
	Metrics *UDPMetrics // may be nil
	Log     *slog.Logger

	Idle                time.Duration // a flow whose visitor is silent for this long ends; DefaultUDPIdle if zero
	MaxFlows            int           // DefaultMaxFlows if zero
	MaxFlowsPerSource   int           // DefaultMaxFlowsPerSource if zero, negative: no limit of its own
	MaxPacketsPerSource int           // a second; 0: no limit
	Room                *udp.Room     // of the flows of this and other UDPs together; nil: no limit of theirs
	// PerPacket sends each datagram to the next member and awaits no answer; there are no flows then.
	PerPacket bool
	// DialTimeout bounds the search for a member, over all members; 10 s if zero.
	DialTimeout time.Duration
	// DrainIdle is how long a visitor's silence ends its flow after Drain; 5 s if zero, and never more than Idle.
	DrainIdle time.Duration

	// ProxyTrusted are the balancers in front, each of whose datagrams must begin with a PROXY header of version 2. One of
	// anybody else's that does is dropped. Empty: nobody's datagrams are looked into.
	ProxyTrusted []netip.Prefix

	// Opened and Closed, if set, hear of each flow that got a member, and of its end. They must not wait.
	Opened, Closed func(UDPFlow)
}

// Datagrams is where visitors' datagrams come from and answers leave: an *entrypoint.UDP.
type Datagrams interface {
	// Run hands over one datagram after the other until the context ends.
	Run(ctx context.Context, handle func(udp.Packet)) error
	Send(p []byte, to netip.AddrPort, from netip.Addr) error
	Addr() net.Addr // a *net.UDPAddr
}

// UDP carries the datagrams of one entrypoint. What one source address and port sends is a flow, which has one connection
// to one member until it ends, or the member can serve it no more. It is safe for concurrent use.
//
// Every datagram that a visitor gets was sent by a member, for that visitor's flow. Nothing waits on the way: what cannot
// go at once is dropped and counted. A flow that is idle holds no buffer.
type UDP struct {
	cfg     UDPConfig
	count   udpCounters
	begun   time.Time
	route   atomic.Pointer[UDPRoute]
	flows   *udp.Table[udpKey, udpFlow]
	rate    *udp.Rate
	held    holding
	waiting atomic.Int64 // bytes of datagrams that wait for a member
	packets *packets     // in place of flows, with PerPacket
	serving
	gate
}

// serving is what works for the flows while Serve runs.
type serving struct {
	socket  Datagrams
	life    context.Context
	end     context.CancelFunc
	work    sync.WaitGroup // everything that flows do
	seekers seekers
	poller  udp.Poller // hears their members' answers
}

// gate is where flows begin.
type gate struct {
	mu       sync.Mutex
	sweeper  *time.Timer // runs while there are flows
	crowding crowding
	draining bool
	over     bool // no flow may begin, and the sweeper is at rest
}

// NewUDP makes a UDP; it opens nothing.
func NewUDP(cfg UDPConfig) *UDP {
	if cfg.Idle <= 0 {
		cfg.Idle = DefaultUDPIdle
	}
	if cfg.MaxFlows <= 0 {
		cfg.MaxFlows = DefaultMaxFlows
	}
	if cfg.MaxFlowsPerSource == 0 {
		cfg.MaxFlowsPerSource = DefaultMaxFlowsPerSource
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	cfg.DrainIdle = min(cmp.Or(cfg.DrainIdle, 5*time.Second), cfg.Idle)
	u := &UDP{
		cfg: cfg, count: cfg.Metrics.of(cfg.Label), begun: time.Now(), rate: udp.NewRate(cfg.MaxPacketsPerSource),
		flows: udp.NewTable[udpKey, udpFlow](udp.Limits{Flows: cfg.MaxFlows, PerSource: cfg.MaxFlowsPerSource, Idle: cfg.Idle, Room: cfg.Room}),
	}
	u.seekers.work = &u.work
	u.life, u.end = context.WithCancel(context.Background())
	u.route.Store(&cfg.Route)
	if cfg.PerPacket {
		u.packets = newPackets(u)
	}
	return u
}

// Serve carries what comes on the socket until the context ends, or Drain was called and the last flow has ended. Nothing
// of the flows is left when it returns. It is called once.
func (u *UDP) Serve(ctx context.Context, socket Datagrams) error {
	stop := context.AfterFunc(ctx, u.end)
	defer stop()
	u.socket = socket
	u.mu.Lock()
	u.sweeper = time.AfterFunc(time.Hour, u.sweep)
	u.sweeper.Stop()
	u.mu.Unlock()
	err := socket.Run(u.life, u.handle)
	u.end()
	u.mu.Lock()
	u.over = true // a sweep that runs has the mutex
	u.sweeper.Stop()
	u.mu.Unlock()
	for _, e := range u.flows.All() {
		e.Flow.close("end", nil)
	}
	if u.packets != nil {
		u.packets.close()
	}
	u.work.Wait()
	u.poller.Close()
	return err
}

// SetRoutes has flows from now on go by other routes. Those that are there stay with their members.
func (u *UDP) SetRoutes(r UDPRoute) {
	u.route.Store(&r)
}

// Drain takes no new flows. Those that are there go on until they are idle, for which DrainIdle is enough now: the flows of
// many protocols never end, and a process that goes down would wait for each in vain.
func (u *UDP) Drain() {
	u.mu.Lock()
	u.draining = true
	if u.sweeper != nil && !u.over {
		u.sweeper.Reset(0)
	}
	u.mu.Unlock()
	u.drained()
}

// drained ends Serve if nothing is left to wait for.
func (u *UDP) drained() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.draining && u.flows.Len() == 0 {
		u.end()
	}
}

func (u *UDP) now() time.Duration { return time.Since(u.begun) }

// handle sees to one datagram of a visitor's. It waits for nothing.
func (u *UDP) handle(p udp.Packet) {
	now := u.now()
	key := udpKey{peer: p.Source, local: p.Destination}
	data := p.Data
	var header *proxyproto.Header
	if len(u.cfg.ProxyTrusted) > 0 {
		var ok bool
		if header, data, ok = u.unwrap(p); !ok {
			u.count.drop(droppedProxy, 1)
			return
		}
		if header != nil {
			key.visitor = header.Source
		}
	}
	source := key.source().Addr()
	if !u.rate.Allow(source, now) {
		u.count.drop(droppedRate, 1)
		return
	}
	if u.packets != nil {
		u.packets.send(source, data)
		return
	}
	if e := u.flows.Get(key, now); e != nil && e.Flow.send(data) {
		return
	}
	u.begin(key, header, data, now)
}

// unwrap takes the PROXY header off a balancer's datagram, or says that the datagram is not to be had: a header is missing
// or malformed, of a health check, which asks for nothing, or somebody's who may send none.
func (u *UDP) unwrap(p udp.Packet) (header *proxyproto.Header, data []byte, ok bool) {
	trusted := cidr.Contain(u.cfg.ProxyTrusted, p.Source.Addr())
	if is, _ := proxyproto.Signature(p.Data); !trusted || !is {
		return nil, p.Data, !trusted && !is
	}
	h, n, more, err := proxyproto.Parse(p.Data)
	if err != nil || more || h.Transport != proxyproto.UDP || !h.Real() {
		return nil, nil, false
	}
	return &h, p.Data[n:], true
}
