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

	"culvert/internal/entrypoint"
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
	e, err := entrypoint.ListenUDP(entrypoint.UDPConfig{Addr: addr, Log: quiet()})
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
