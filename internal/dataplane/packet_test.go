package dataplane

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/internal/control"
	"culvert/internal/upstream"
)

// echoes is a service of datagrams that answers with its name, the datagram and the address of the sender.
func echoes(t testing.TB, name string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		p := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(p)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s %s", name, p[:n], from), from)
		}
	})
	t.Cleanup(func() { _ = c.Close(); serving.Wait() })
	return c.LocalAddr().String()
}

// flow is a socket that asks, with what is answered to each question.
func flow(t testing.TB, from, to string) func(string) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return func(word string) string {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, word)
		p := make([]byte, 2048)
		n, err := c.Read(p)
		if err != nil {
			return err.Error()
		}
		return string(p[:n])
	}
}

func TestFlowsStayThroughReloadsAndFollowDiverts(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "udp"), "one": echoes(t, "one"), "two": echoes(t, "two")}
	text := `
entrypoints: [{name: vpn, protocol: udp, addr: "$addr", routes: [{upstream: pool}]}]
upstreams: [{name: pool, members: [{address: "$one"}, {address: "$two"}]}]
`
	apply(t, d, read(t, text, vars))
	a, b := flow(t, "127.0.0.3", vars["addr"]), flow(t, "127.0.0.2", vars["addr"])
	first, other := a("x"), b("x")
	if first[:3] == other[:3] {
		t.Errorf("got %q and %q, want two members", first, other)
	}
	apply(t, d, read(t, strings.Replace(text, "{name: pool,", "{name: pool, balance: source_hash,", 1), vars))
	for range 20 {
		if got := a("x"); got != first {
			t.Fatalf("after a reload: got %q, want %q", got, first)
		}
	}
	laptop := &client{Static: upstream.NewStatic(upstream.StaticConfig{Name: "laptop", Network: "udp", Address: echoes(t, "laptop")})}
	p, err := divertOf(t, d, laptop, control.Divert{Entrypoint: "vpn", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the flow to move", func() bool { return strings.HasPrefix(a("x"), "laptop") })
	if got := b("x"); got != other {
		t.Errorf("another flow: got %q, want %q", got, other)
	}
	p.Withdraw()
	await(t, "the flow to move back", func() bool { return !strings.HasPrefix(a("x"), "laptop") })
	if s := d.State().Entrypoints[0]; s.Open != 2 || s.Protocol != "udp" {
		t.Errorf("got %+v, want two flows", s)
	}
}
