package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"culvert/internal/entrypoint"
	"culvert/internal/proxy"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// far opens flows in a client's session, as the server's members do.
type far struct {
	session *tunnel.Session
	tunnel  tunnel.Name
	wish    proxyproto.Emission
}

func (m *far) Name() string                { return "client" }
func (m *far) Protocol() upstream.Protocol { return upstream.Raw }

func (m *far) Dial(ctx context.Context, v *upstream.Visit) (upstream.Dialed, error) {
	st, err := m.session.Open(ctx, tunnel.Open{
		Tunnel: m.tunnel, ID: v.ID, Source: v.Source, Destination: v.Destination, ProxyProtocol: m.wish, Datagrams: v.Datagrams,
	})
	if err != nil {
		return upstream.Dialed{}, err
	}
	if err := st.Result(ctx); err != nil {
		return upstream.Dialed{}, err
	}
	return upstream.Dialed{Conn: udp.NewFramed(st)}, nil
}

// datagrams answers each datagram with a name, a colon and the datagram, until the end of the test or stop.
func datagrams(t testing.TB, name string) (addr string, stop func()) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, udp.MaxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo([]byte(name+":"+string(buf[:n])), from)
			}
		}
	}()
	stop = func() {
		c.Close()
		<-done
	}
	t.Cleanup(stop)
	return c.LocalAddr().String(), stop
}

// udpThrough has visitors' datagrams go to members, and says where.
func udpThrough(t testing.TB, members ...upstream.Member) netip.AddrPort {
	t.Helper()
	e, err := entrypoint.ListenUDP(entrypoint.UDPConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	up := upstream.New(upstream.Config{Name: "test", Retries: -1})
	for _, m := range members {
		up.Add(upstream.Placed{Member: m})
	}
	relay := proxy.NewUDP(proxy.UDPConfig{Label: "test", Log: quiet, Route: func(_ netip.Addr, _ uint32, from int) (*upstream.Upstream, int, bool, bool) {
		return up, 0, false, from == 0
	}})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- relay.Serve(ctx, e) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return e.Addr().(*net.UDPAddr).AddrPort()
}

func askDatagram(t testing.TB, c net.Conn, what string) string {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, udp.MaxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("no answer to a datagram of %d bytes: %v", len(what), err)
	}
	return string(buf[:n])
}

func dialDatagrams(t testing.TB, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDatagramsThroughATunnel(t *testing.T) {
	addr, _ := datagrams(t, "s")
	for _, tt := range []struct {
		name   string
		scheme Scheme
		tunnel tunnel.Name
	}{
		{"of UDP", SchemeUDP, tunnel.UDPName(5353)},
		{"of bytes, asked for datagrams", SchemeTCP, tunnel.PrivateName("dns")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serverOf(t, Upstream{Tunnel: tt.tunnel, Scheme: tt.scheme, Network: string(tt.scheme), Address: addr, Spec: addr})
			at := udpThrough(t, &far{session: s, tunnel: tt.tunnel})
			c := dialDatagrams(t, at)
			for i, size := range []int{3, 0, 1472, 60000, 0, 1} {
				what := string(make([]byte, size))
				if got, want := askDatagram(t, c, what), "s:"+what; got != want {
					t.Errorf("answer %d has %d bytes, want %d", i, len(got), len(want))
				}
			}
			for i := range 50 { // each flow has its own socket and gets its own answers
				if got, want := askDatagram(t, dialDatagrams(t, at), fmt.Sprint(i)), fmt.Sprintf("s:%d", i); got != want {
					t.Errorf("flow %d got %q", i, got)
				}
			}
		})
	}
}

func TestServiceThatRefusesHasTheFlowMove(t *testing.T) {
	name := tunnel.UDPName(5353)
	var members []upstream.Member
	stops := map[string]func(){}
	for _, n := range []string{"one", "two"} {
		addr, stop := datagrams(t, n)
		stops[n] = stop
		members = append(members, &far{session: serverOf(t, Upstream{Tunnel: name, Scheme: SchemeUDP, Network: "udp", Address: addr, Spec: addr}), tunnel: name})
	}
	c := dialDatagrams(t, udpThrough(t, members...))
	first := askDatagram(t, c, "a")[:3]
	stops[first]()
	other := map[string]string{"one": "two", "two": "one"}[first]
	for _, what := range []string{"b", "c"} {
		if got, want := askDatagram(t, c, what), other+":"+what; got != want {
			t.Errorf("after the service was killed a visitor got %q, want %q", got, want)
		}
	}
}

func TestServiceOfHTTPTakesNoDatagrams(t *testing.T) {
	name := tunnel.PrivateName("web")
	s := serverOf(t, Upstream{Tunnel: name, Scheme: SchemeHTTP, Network: "tcp", Address: "127.0.0.1:80", Spec: "name/web"})
	_, err := (&far{session: s, tunnel: name}).Dial(t.Context(), &upstream.Visit{Datagrams: true})
	if err == nil || err.Error() != "name/web takes no datagrams: its target is not HOST:PORT" {
		t.Errorf("got %v", err)
	}
}

func TestProxyHeaderOfDatagramsBesideTheService(t *testing.T) {
	addr, _ := datagrams(t, "s")
	name := tunnel.UDPName(5353)
	s := serverOf(t, Upstream{Tunnel: name, Scheme: SchemeUDP, Network: "udp", Address: addr, Spec: addr})
	c := dialDatagrams(t, udpThrough(t, &far{s, name, proxyproto.Emission{Version: proxyproto.V2, FirstDatagram: true}}))
	for i, want := range []bool{true, false} {
		p := []byte(askDatagram(t, c, "x"))[2:]
		h, n, _, err := proxyproto.Parse(p)
		if got := err == nil; got != want || string(p[n:]) != "x" {
			t.Errorf("datagram %d: a header %v, want %v; %q", i, got, want, p)
		}
		if want && h.Source.String() != c.LocalAddr().String() {
			t.Errorf("the header says %s, want %s", h.Source, c.LocalAddr())
		}
	}
}
