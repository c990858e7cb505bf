package proxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// line is a socket of a test's own: datagrams come when the test says so, and answers are counted by whom they go to.
type line struct {
	in      chan udp.Packet
	mu      sync.Mutex
	answers map[netip.AddrPort]int
}

func (l *line) Run(ctx context.Context, handle func(udp.Packet)) error {
	for {
		select {
		case p := <-l.in:
			handle(p)
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *line) Send(_ []byte, to netip.AddrPort, _ netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[to]++
	return nil
}

func (l *line) Addr() net.Addr { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53} }

// answered sends a datagram of a visitor's, and says how many answers the visitor has had when nothing is under way.
func (l *line) answered(from netip.AddrPort) int {
	l.in <- udp.Packet{Source: from, Data: []byte("?")}
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[from]
}

// echoing is a member that answers each datagram at once, within the process; a mute one answers none.
type echoing struct {
	upstream.Member
	mute  bool
	dials atomic.Int64
	conns chan *echoConn // that were made; nil: nobody asks
}

func (m *echoing) Name() string { return "echoing" }

func (m *echoing) Dial(context.Context, *upstream.Visit) (upstream.Dialed, error) {
	m.dials.Add(1)
	c := &echoConn{member: m, said: make(chan []byte, 10), closed: make(chan struct{})}
	if m.conns != nil {
		m.conns <- c
	}
	return upstream.Dialed{Conn: c}, nil
}

type echoConn struct {
	net.Conn
	member *echoing
	said   chan []byte
	closed chan struct{}
	once   sync.Once
}

func (c *echoConn) Write(p []byte) (int, error) {
	if !c.member.mute {
		c.said <- append([]byte{}, p...)
	}
	return len(p), nil
}

func (c *echoConn) Read(p []byte) (int, error) {
	select {
	case said := <-c.said:
		return copy(p, said), nil
	case <-c.closed:
		return 0, io.ErrClosedPipe
	}
}

func (c *echoConn) Close() error      { c.once.Do(func() { close(c.closed) }); return nil }
func (c *echoConn) CloseWrite() error { return nil }
func (c *echoConn) Reset() error      { return c.Close() }

// carryLine runs a UDP on a line; stop ends it.
func carryLine(t *testing.T, cfg UDPConfig) (l *line, stop func()) {
	t.Helper()
	cfg.Label, cfg.Log = "test", quiet()
	return serveLine(t, NewUDP(cfg))
}

func serveLine(t *testing.T, u *UDP) (l *line, stop func()) {
	t.Helper()
	l = &line{in: make(chan udp.Packet), answers: map[netip.AddrPort]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- u.Serve(ctx, l) }()
	return l, func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// port is the n-th source port of an address.
func port(addr string, n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(1024+n))
}

// A service that gets each question from another port needs no more places than questions come in a second, though each
// flow may live for a minute; and what talks for longer, as a VPN that is silent for 25 s at a time, keeps its flow.
func TestEachQuestionFindsAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		service := &echoing{}
		var mu sync.Mutex
		ended := map[string]int{}
		l, stop := carryLine(t, UDPConfig{
			Route: to(pool(service)), Metrics: NewUDPMetrics(reg), MaxFlows: 20, MaxFlowsPerSource: 11,
			Opened: func(UDPFlow) {}, Closed: func(f UDPFlow) { mu.Lock(); ended[f.Reason]++; mu.Unlock() },
		})
		vpn := port("192.0.2.9", 0)
		for n := range udp.EstablishedAfter {
			if got := l.answered(vpn); got != n+1 {
				t.Fatalf("the VPN has %d answers to %d datagrams", got, n+1)
			}
		}
		const questions = 3000
		said := udp.EstablishedAfter
		for n := range questions { // ten a second of one resolver
			time.Sleep(100 * time.Millisecond)
			if got := l.answered(port("192.0.2.1", n)); got != 1 {
				t.Fatalf("question %d has %d answers", n, got)
			}
			if n%250 == 249 {
				if said++; l.answered(vpn) != said {
					t.Fatalf("after %d questions the VPN has no answer", n)
				}
			}
		}
		if got, want := service.dials.Load(), int64(1+questions); got != want {
			t.Errorf("%d flows were begun, want %d: the VPN's, and one for each question", got, want)
		}
		replaced := counter(t, reg, "culvert_udp_replaced_flows_total", "entrypoint", "test")
		if want := float64(questions - 11); replaced != want || float64(ended["replaced"]) != want {
			t.Errorf("%v flows were replaced, %d of them recorded, want %v", replaced, ended["replaced"], want)
		}
		if got := counter(t, reg, "culvert_udp_flows", "entrypoint", "test"); got != 12 {
			t.Errorf("%v flows are there, want the VPN's and 11 of the resolver", got)
		}
		for n := range 12 { // too many at once
			l.answered(port("192.0.2.2", n))
		}
		if got := counter(t, reg, "culvert_udp_dropped_total", "reason", droppedTableFull) + counter(t, reg, "culvert_udp_dropped_total", "reason", droppedPerSource); got == 0 {
			t.Error("more questions at once than there are places, and none was dropped")
		}
		stop()
	})
}

// Sources that nobody answers, as those that are spoofed, give way after two seconds, and have nothing begun before that.
func TestSilentFloodIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &echoing{mute: true}
		l, stop := carryLine(t, UDPConfig{Route: to(pool(service)), MaxFlows: 10, MaxFlowsPerSource: -1})
		for n := range 6000 { // a minute of a hundred a second
			l.in <- udp.Packet{Source: port("198.51.100.1", n), Data: []byte("spoofed")}
			time.Sleep(10 * time.Millisecond)
		}
		if got := service.dials.Load(); got < 290 || got > 300 {
			t.Errorf("a minute's flood had %d flows begun, want 10 places' each 2 s", got)
		}
		stop()
	})
}

// A flow whose connection fails while it is asked to go by new routes, and which ends before it has done so, stays ended: a
// connection that it got after its end would be nobody's to close.
func TestAFlowThatHasEndedGetsNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &echoing{conns: make(chan *echoConn, 10)}
		p := pool(service)
		held := make(chan struct{})
		var asked atomic.Int64
		u := NewUDP(UDPConfig{Label: "test", Log: quiet(), Idle: time.Second, Route: func(_ netip.Addr, _ uint32, from int) (*upstream.Upstream, int, bool, bool) {
			if asked.Add(1) == 2 {
				<-held
			}
			return p, 0, false, from == 0
		}})
		l, stop := serveLine(t, u)
		if l.answered(port("192.0.2.1", 0)) != 1 {
			t.Fatal("no answer")
		}
		u.Move(func(netip.AddrPort) bool { return true })
		synctest.Wait() // it asks the routes
		_ = (<-service.conns).Close()
		time.Sleep(2 * time.Second) // it is idle
		if n := u.Flows(); n != 0 {
			t.Fatalf("%d flows are there", n)
		}
		close(held)
		synctest.Wait()
		if n := service.dials.Load(); n != 1 {
			t.Errorf("after its end the flow got %d more connections", n-1)
		}
		stop()
	})
}
