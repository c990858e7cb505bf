package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"culvert/internal/entrypoint"
	"culvert/internal/proxyproto"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// datagramService answers each datagram with its own name, the sender's port and the datagram, as often as the handler
// says.
type datagramService struct {
	net.PacketConn
	name string
	done chan struct{}

	mu      sync.Mutex
	heard   [][]byte
	senders map[string]int
}

// serveDatagrams answers what comes at an address until the end of the test, or Close.
func serveDatagrams(t testing.TB, name, addr string, answer func(p []byte) [][]byte) *datagramService {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &datagramService{PacketConn: c, name: name, done: make(chan struct{}), senders: make(map[string]int)}
	go func() {
		defer close(s.done)
		buf := make([]byte, udp.MaxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error for an answer
			}
			s.mu.Lock()
			s.heard = append(s.heard, append([]byte{}, buf[:n]...))
			s.senders[from.String()]++
			s.mu.Unlock()
			for _, p := range answer(buf[:n]) {
				_, _ = c.WriteTo(p, from)
			}
		}
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *datagramService) stop() {
	_ = s.Close()
	<-s.done
}

func (s *datagramService) addr() string { return s.LocalAddr().String() }

// ports is how many sockets the service was spoken to from, and datagrams how many datagrams came.
func (s *datagramService) ports() (ports, datagrams int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.senders), len(s.heard)
}

func named(name string) func([]byte) [][]byte {
	return func(p []byte) [][]byte { return [][]byte{append([]byte(name+":"), p...)} }
}

func echoed(p []byte) [][]byte { return [][]byte{append([]byte{}, p...)} }

func datagramsTo(addr string) *upstream.Static {
	return upstream.NewStatic(upstream.StaticConfig{Network: "udp", Address: addr})
}

func pool(members ...upstream.Member) *upstream.Upstream {
	u := upstream.New(upstream.Config{Name: "pool", Retries: -1})
	for _, m := range members {
		u.Add(upstream.Placed{Member: m})
	}
	return u
}

func to(u *upstream.Upstream) UDPRoute {
	return func(_ netip.Addr, _ uint32, from int) (*upstream.Upstream, int, bool, bool) {
		return u, 0, false, from == 0
	}
}

// carryUDP runs a UDP on a socket of its own until the end of the test, and gives where visitors send to.
func carryUDP(t testing.TB, addr string, cfg UDPConfig) (*UDP, netip.AddrPort) {
	t.Helper()
	e, err := entrypoint.ListenUDP(entrypoint.UDPConfig{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Label, cfg.Log = "test", quiet()
	u := NewUDP(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- u.Serve(ctx, e) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return u, e.Addr().(*net.UDPAddr).AddrPort()
}

func visitor(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// tell sends a datagram.
func tell(t testing.TB, c *net.UDPConn, what string) {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
}

// hear waits for a datagram.
func hear(t testing.TB, c *net.UDPConn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, udp.MaxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return string(buf[:n])
}

func ask(t testing.TB, c *net.UDPConn, what string) string {
	t.Helper()
	tell(t, c, what)
	return hear(t, c)
}

// wantSilence checks that nothing waits for the visitor, behind an answer that came later than it would have.
func wantSilence(t testing.TB, c *net.UDPConn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a datagram of %d bytes came that nobody sent (%v)", n, err)
	}
}

func TestAFlowKeepsItsPort(t *testing.T) {
	one, two := serveDatagrams(t, "one", "127.0.0.1:0", named("one")), serveDatagrams(t, "two", "127.0.0.1:0", named("two"))
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(pool(datagramsTo(one.addr()), datagramsTo(two.addr())))})
	c := visitor(t, at)
	first := ask(t, c, "0")
	for i := range 1000 {
		if got, want := ask(t, c, fmt.Sprint(i)), first[:4]+fmt.Sprint(i); got != want {
			t.Fatalf("datagram %d: answer %q, want %q", i, got, want)
		}
	}
	for _, s := range []*datagramService{one, two} {
		ports, datagrams := s.ports()
		if datagrams > 0 && (ports != 1 || datagrams != 1001) {
			t.Errorf("%s heard %d datagrams from %d ports, want 1001 from 1", s.name, datagrams, ports)
		}
	}
}

func TestKilledServiceIsSurvived(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			services := map[string]*datagramService{}
			var members []upstream.Member
			for _, name := range []string{"one", "two"} {
				s := serveDatagrams(t, name, host+":0", named(name))
				services[name] = s
				members = append(members, datagramsTo(s.addr()))
			}
			_, at := carryUDP(t, host+":0", UDPConfig{Route: to(pool(members...))})
			c := visitor(t, at)
			first := ask(t, c, "a")[:3]
			services[first].stop()
			other := map[string]string{"one": "two", "two": "one"}[first]
			if got, want := ask(t, c, "b"), other+":b"; got != want {
				t.Errorf("answer %q after the service was killed, want %q", got, want)
			}
			if got, want := ask(t, c, "c"), other+":c"; got != want {
				t.Errorf("answer %q, want %q", got, want)
			}
			wantSilence(t, c)
			if ports, _ := services[other].ports(); ports != 1 {
				t.Errorf("the flow moved to %d ports, want 1", ports)
			}
		})
	}
}

func TestEmptyDatagramsAndSeveralAnswers(t *testing.T) {
	s := serveDatagrams(t, "s", "127.0.0.1:0", func(p []byte) [][]byte { return [][]byte{{}, append([]byte{}, p...), {}} })
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(pool(datagramsTo(s.addr())))})
	c := visitor(t, at)
	for _, what := range []string{"x", "", "y"} {
		tell(t, c, what)
		for i, want := range []string{"", what, ""} {
			if got := hear(t, c); got != want {
				t.Errorf("answer %d to %q is %q, want %q", i, what, got, want)
			}
		}
	}
	wantSilence(t, c)
	if _, n := s.ports(); n != 3 {
		t.Errorf("the service heard %d datagrams, want 3", n)
	}
}

// header is a PROXY header of version 2 of a datagram.
func datagramHeader(source string, tlvs ...proxyproto.TLV) []byte {
	return proxyproto.Header{
		Version: proxyproto.V2, Transport: proxyproto.UDP,
		Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort("203.0.113.1:53"), TLVs: tlvs,
	}.AppendTo(nil, proxyproto.V2)
}

func TestProxyHeadersOfDatagrams(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
	var mu sync.Mutex
	var flows []UDPFlow
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{
		Route: to(pool(datagramsTo(s.addr()))), Metrics: NewUDPMetrics(reg),
		ProxyTrusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")},
		Opened:       func(f UDPFlow) { mu.Lock(); flows = append(flows, f); mu.Unlock() },
	})
	balancer, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer balancer.Close()
	stranger := visitor(t, at)

	for _, p := range []string{
		"no header", "", string(datagramHeader("192.0.2.9:1")[:20]),
		string(proxyproto.Header{Local: true}.AppendTo(nil, proxyproto.V2)),
		string(proxyproto.Header{Transport: proxyproto.TCP, Source: netip.MustParseAddrPort("192.0.2.9:1"), Destination: netip.MustParseAddrPort("192.0.2.1:1")}.AppendTo(nil, proxyproto.V2)) + "of a connection",
		"PROXY TCP4 192.0.2.9 192.0.2.1 1 2\r\nversion 1",
	} {
		tell(t, balancer, p)
	}
	tell(t, stranger, string(datagramHeader("192.0.2.9:1"))+"of a stranger")
	for _, p := range []string{"one", "two", ""} { // a header stands before every datagram, and no answer has one
		if got := ask(t, balancer, string(datagramHeader("192.0.2.1:1000"))+p); got != p {
			t.Errorf("the balancer got %q, want %q", got, p)
		}
	}
	if got := ask(t, balancer, string(datagramHeader("192.0.2.2:1000"))+"other"); got != "other" {
		t.Errorf("the balancer got %q for another visitor", got)
	}
	if got := ask(t, stranger, "plain"); got != "plain" {
		t.Errorf("a visitor without a balancer got %q", got)
	}
	if got := counter(t, reg, "culvert_udp_dropped_total", "reason", droppedProxy); got != 7 {
		t.Errorf("%v datagrams were dropped for their header, want 7", got)
	}
	mu.Lock()
	defer mu.Unlock()
	var got []string
	for _, f := range flows {
		via := ""
		if f.Via.IsValid() {
			via = " via " + f.Via.Addr().String() + " to " + f.Destination.String()
		}
		if source := f.Source.String(); f.Via.IsValid() {
			got = append(got, source+via)
		} else {
			got = append(got, f.Source.Addr().String())
		}
	}
	want := []string{"192.0.2.1:1000 via 127.0.0.2 to 203.0.113.1:53", "192.0.2.2:1000 via 127.0.0.2 to 203.0.113.1:53", "127.0.0.1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows: want -, got +\n%s", diff)
	}
	if ports, _ := s.ports(); ports != 3 {
		t.Errorf("the service heard %d flows, want 3", ports)
	}
}

func TestProxyHeadersToMembers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first bool
		want  []bool // whether the n-th datagram has a header
	}{{"before every datagram", false, []bool{true, true, true}}, {"before the first", true, []bool{true, false, false}}} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
			member := upstream.NewStatic(upstream.StaticConfig{
				Network: "udp", Address: s.addr(),
				ProxyProtocol: proxyproto.Emission{Version: proxyproto.V2, CRC32C: true, FirstDatagram: tt.first},
			})
			_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(pool(member))})
			c := visitor(t, at)
			for i, what := range []string{"a", "", "c"} {
				p := []byte(ask(t, c, what))
				h, n, more, err := proxyproto.Parse(p)
				if got := err == nil && !more; got != tt.want[i] {
					t.Errorf("datagram %d has a header: %v, want %v (%v)", i, got, tt.want[i], err)
				}
				if got := string(p[n:]); got != what {
					t.Errorf("datagram %d is %q behind the header, want %q", i, got, what)
				}
				if !tt.want[i] {
					continue
				}
				if source := c.LocalAddr().(*net.UDPAddr).AddrPort(); h.Transport != proxyproto.UDP || h.Source != source || h.Destination != at {
					t.Errorf("header %+v, want one of UDP from %s to %s", h, source, at)
				}
			}
		})
	}
}

// A datagram that fills the network's longest has no room for a header. That is no shortage, and is counted apart.
func TestDatagramTooLongForItsHeader(t *testing.T) {
	for _, perPacket := range []bool{false, true} {
		reg := prometheus.NewRegistry()
		s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
		cfg := UDPConfig{Route: to(pool(datagramsTo(s.addr()))), Metrics: NewUDPMetrics(reg), PerPacket: perPacket}
		if !perPacket {
			cfg.Route = to(pool(upstream.NewStatic(upstream.StaticConfig{
				Network: "udp", Address: s.addr(), ProxyProtocol: proxyproto.Emission{Version: proxyproto.V2},
			})))
		}
		_, at := carryUDP(t, "[::]:0", cfg)
		c := visitor(t, netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()))
		longest := 65507 // of IPv4
		if perPacket {
			longest++ // IPv6 carries more
		}
		tell(t, c, string(make([]byte, longest)))
		await(t, func() bool { return counter(t, reg, "culvert_udp_dropped_total", "reason", droppedTooLong) == 1 })
		tell(t, c, "short")
		await(t, func() bool { _, n := s.ports(); return n == 1 })
		if got := counter(t, reg, "culvert_udp_dropped_total", "reason", droppedFull); got != 0 {
			t.Errorf("per packet %v: %v datagrams were dropped for a shortage", perPacket, got)
		}
	}
}

// counter is the value of the series of a metric that has the label, if there is one.
func counter(t testing.TB, reg *prometheus.Registry, name, label, value string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == value {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return 0
}

func TestFullTableTakesNoNewFlows(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{
		Route: to(pool(datagramsTo(s.addr()))), Metrics: NewUDPMetrics(reg), MaxFlows: 3, MaxFlowsPerSource: 2,
	})
	from := func(ip byte) *net.UDPConn {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, ip)}, net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	old := []*net.UDPConn{from(1), from(1), from(2)}
	ask(t, old[0], "x")
	ask(t, old[1], "x")
	tell(t, from(1), "one too many of this source")
	ask(t, old[2], "x") // so the one before was seen, too
	if got := counter(t, reg, "culvert_udp_dropped_total", "reason", droppedPerSource); got != 1 {
		t.Errorf("%v datagrams were dropped for their source, want 1", got)
	}
	tell(t, from(3), "one too many")
	for i, c := range old {
		if got, want := ask(t, c, fmt.Sprint(i)), fmt.Sprint(i); got != want {
			t.Errorf("an old flow got %q, want %q", got, want)
		}
	}
	if got := counter(t, reg, "culvert_udp_dropped_total", "reason", droppedTableFull); got != 1 {
		t.Errorf("%v datagrams were dropped, want 1", got)
	}
	if got := counter(t, reg, "culvert_udp_flows", "entrypoint", "test"); got != 3 || u.Flows() != 3 {
		t.Errorf("%v flows are counted, %d are there, want 3", got, u.Flows())
	}
}

func TestRateOfASource(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := serveDatagrams(t, "s", "127.0.0.1:0", func([]byte) [][]byte { return nil })
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(pool(datagramsTo(s.addr()))), Metrics: NewUDPMetrics(reg), MaxPacketsPerSource: 5})
	c := visitor(t, at)
	for range 100 {
		tell(t, c, "x")
	}
	await(t, func() bool {
		return counter(t, reg, "culvert_udp_dropped_total", "reason", droppedRate)+counter(t, reg, "culvert_udp_datagrams_total", "direction", "in") == 100
	})
	if in := counter(t, reg, "culvert_udp_datagrams_total", "direction", "in"); in < 5 || in > 10 {
		t.Errorf("%v of 100 datagrams at once went through, want 5, or a few more as time passed", in)
	}
}

// await waits until something is so.
func await(t testing.TB, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("waited in vain")
		}
	}
}

func TestReloadLeavesFlowsAlone(t *testing.T) {
	one, two := serveDatagrams(t, "one", "127.0.0.1:0", named("one")), serveDatagrams(t, "two", "127.0.0.1:0", named("two"))
	first, second := pool(datagramsTo(one.addr())), pool(datagramsTo(two.addr()))
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(first)})
	c := visitor(t, at)
	if got := ask(t, c, "a"); got != "one:a" {
		t.Fatalf("got %q", got)
	}
	u.SetRoutes(to(second))
	if got := ask(t, c, "b"); got != "one:b" {
		t.Errorf("after a reload an old flow got %q", got)
	}
	if got := ask(t, visitor(t, at), "c"); got != "two:c" {
		t.Errorf("after a reload a new flow got %q", got)
	}
	if ports, _ := one.ports(); ports != 1 {
		t.Errorf("the flow had %d ports, want 1", ports)
	}
	first.Remove(first.Members()[0])
	if got := ask(t, c, "d"); got != "two:d" {
		t.Errorf("after its member was removed a flow got %q", got)
	}
}

func TestDownMemberIsLeft(t *testing.T) {
	silent := serveDatagrams(t, "silent", "127.0.0.1:0", func([]byte) [][]byte { return nil })
	two := serveDatagrams(t, "two", "127.0.0.1:0", named("two"))
	a, b := datagramsTo(silent.addr()), datagramsTo(two.addr())
	p := pool(a, b)
	if err := p.SetDrain(b.Name(), true); err != nil {
		t.Fatal(err)
	}
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(p)})
	c := visitor(t, at)
	tell(t, c, "held")
	await(t, func() bool { _, n := silent.ports(); return n == 1 })
	if err := p.SetDrain(b.Name(), false); err != nil {
		t.Fatal(err)
	}
	p.SetHealth(a, false, errors.New("check failed"))
	u.Recheck()
	if got := hear(t, c); got != "two:held" { // what was not answered is sent again
		t.Errorf("got %q", got)
	}
}

func TestMoveTakesFlowsAlongAndBack(t *testing.T) {
	one, two := serveDatagrams(t, "one", "127.0.0.1:0", named("one")), serveDatagrams(t, "two", "127.0.0.1:0", named("two"))
	app, debug := pool(datagramsTo(one.addr())), pool(datagramsTo(two.addr()))
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: to(app)})
	moved, stays := visitor(t, at), visitor(t, at)
	ask(t, moved, "a")
	ask(t, stays, "a")
	matches := func(v netip.AddrPort) bool { return v == moved.LocalAddr().(*net.UDPAddr).AddrPort() }
	u.SetRoutes(func(source netip.Addr, roll uint32, from int) (*upstream.Upstream, int, bool, bool) {
		if from == 0 {
			return debug, 0, true, true
		}
		return app, 1, false, from == 1
	})
	u.Move(matches)
	if got := ask(t, moved, "b"); got != "two:b" {
		t.Errorf("a flow that was moved got %q", got)
	}
	if got := ask(t, stays, "b"); got != "one:b" {
		t.Errorf("a flow that was not moved got %q", got)
	}
	u.SetRoutes(to(app))
	u.Move(matches)
	if got := ask(t, moved, "c"); got != "one:c" {
		t.Errorf("a flow that was moved back got %q", got)
	}
	debug.Remove(debug.Members()[0])
	wantSilence(t, moved)
}

func TestRouteWithoutMembersFallsThrough(t *testing.T) {
	one := serveDatagrams(t, "one", "127.0.0.1:0", named("one"))
	app, empty := pool(datagramsTo(one.addr())), pool()
	_, at := carryUDP(t, "127.0.0.1:0", UDPConfig{Route: func(_ netip.Addr, _ uint32, from int) (*upstream.Upstream, int, bool, bool) {
		if from == 0 {
			return empty, 0, true, true
		}
		return app, 1, false, from == 1
	}})
	if got := ask(t, visitor(t, at), "a"); got != "one:a" {
		t.Errorf("got %q", got)
	}
}

func TestWildcardAnswersFromTheAddressThatWasAsked(t *testing.T) {
	for _, tt := range []struct{ name, listen, ask string }{
		{"IPv4", "0.0.0.0:0", "127.0.0.77"},
		{"IPv4 on a socket of both", ":0", "127.0.0.78"},
		{"IPv6", "[::]:0", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
			_, at := carryUDP(t, tt.listen, UDPConfig{Route: to(pool(datagramsTo(s.addr())))})
			c := visitor(t, netip.AddrPortFrom(netip.MustParseAddr(tt.ask), at.Port())) // connected: hears nobody else
			for _, what := range []string{"a", "", "b"} {
				if got := ask(t, c, what); got != what {
					t.Errorf("got %q, want %q", got, what)
				}
			}
		})
	}
}

func TestPerPacket(t *testing.T) {
	reg := prometheus.NewRegistry()
	one, two := serveDatagrams(t, "one", "127.0.0.1:0", named("one")), serveDatagrams(t, "two", "127.0.0.1:0", named("two"))
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{
		Route: to(pool(datagramsTo(one.addr()), datagramsTo(two.addr()))), PerPacket: true, Metrics: NewUDPMetrics(reg),
	})
	c := visitor(t, at)
	heard := func(s *datagramService) int { _, n := s.ports(); return n }
	for i := range 20 {
		tell(t, c, fmt.Sprint(i))
		await(t, func() bool { return heard(one)+heard(two) == i+1 })
	}
	if heard(one) != 10 || heard(two) != 10 {
		t.Errorf("%d and %d datagrams came, want 10 each", heard(one), heard(two))
	}
	if u.Flows() != 0 {
		t.Errorf("there are %d flows", u.Flows())
	}
	wantSilence(t, c)
	one.stop()
	before := heard(two)
	for i := range 20 { // the first ones tell of the refusal, and may be lost
		tell(t, c, "x")
		await(t, func() bool {
			return counter(t, reg, "culvert_udp_datagrams_total", "direction", "in")+counter(t, reg, "culvert_udp_dropped_total", "reason", droppedNoMember) >= float64(21+i)
		})
	}
	await(t, func() bool { return heard(two)-before >= 15 })
}

func TestSpoofedSourcesGetNothing(t *testing.T) { // T25
	reg := prometheus.NewRegistry()
	s := serveDatagrams(t, "s", "127.0.0.1:0", func([]byte) [][]byte { return nil })
	const most = 1000
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{
		Route: to(pool(datagramsTo(s.addr()))), Metrics: NewUDPMetrics(reg), MaxFlows: most, MaxFlowsPerSource: 4,
	})
	for i := range 10_000 {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}, net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		tell(t, c, "a datagram of a spoofed source")
		_ = c.Close()
		if i%100 == 99 { // no faster than it is read
			await(t, func() bool {
				return counter(t, reg, "culvert_udp_flows_total", "entrypoint", "test")+counter(t, reg, "culvert_udp_dropped_total", "reason", droppedTableFull) == float64(i+1)
			})
		}
	}
	if got := u.Flows(); got != most {
		t.Errorf("%d flows, want %d", got, most)
	}
	if out := counter(t, reg, "culvert_udp_bytes_total", "direction", "out"); out != 0 {
		t.Errorf("%v bytes were sent to sources that no member answered", out)
	}
}

func TestIdleFlowsEnd(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
	ended := make(chan UDPFlow, 1)
	p := pool(datagramsTo(s.addr()))
	u, at := carryUDP(t, "127.0.0.1:0", UDPConfig{
		Route: to(p), Metrics: NewUDPMetrics(reg), Idle: 100 * time.Millisecond, Closed: func(f UDPFlow) { ended <- f },
	})
	c := visitor(t, at)
	ask(t, c, "abc")
	f := <-ended
	if f.Reason != "idle" || f.Datagrams != [2]uint64{1, 1} || f.Bytes != [2]uint64{3, 3} || f.Member != s.addr() {
		t.Errorf("a flow ended as %+v", f)
	}
	await(t, func() bool { return u.Flows() == 0 && p.Places()[0].Open == 0 })
	if got := ask(t, c, "again"); got != "again" {
		t.Errorf("after its flow ended a visitor got %q", got)
	}
	<-ended
}

func TestDrainEndsWithTheLastFlow(t *testing.T) {
	for name, cfg := range map[string]UDPConfig{
		"idle": {Idle: 200 * time.Millisecond}, "silent, though not idle": {Idle: time.Hour, DrainIdle: 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) { drainEnds(t, cfg) })
	}
}

func drainEnds(t *testing.T, cfg UDPConfig) {
	s := serveDatagrams(t, "s", "127.0.0.1:0", echoed)
	e, err := entrypoint.ListenUDP(entrypoint.UDPConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Label, cfg.Log, cfg.Route = "test", quiet(), to(pool(datagramsTo(s.addr())))
	u := NewUDP(cfg)
	served := make(chan error, 1)
	go func() { served <- u.Serve(t.Context(), e) }()
	at := e.Addr().(*net.UDPAddr).AddrPort()
	c := visitor(t, at)
	ask(t, c, "a")
	u.Drain()
	tell(t, visitor(t, at), "too late")
	if got := ask(t, c, "b"); got != "b" {
		t.Errorf("while draining an old flow got %q", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, n := s.ports(); n != 2 {
		t.Errorf("the service heard %d datagrams, want 2", n)
	}
}
