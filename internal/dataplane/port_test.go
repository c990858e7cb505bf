package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"culvert/internal/control"
)

// The port of a tunnel keeps its diverts while the client of the tunnel is away, and is gone with the last of both.
func TestADivertOfAPortOutlivesTheClientOfThePort(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	name := "tcp/" + port
	p := offer(t, d, name, newClient("a", named(t, "a")))
	divert, err := divertOf(t, d, newClient("laptop", named(t, "laptop")), control.Divert{
		Entrypoint: name, Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}, Percent: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.(control.HealthPublication).Health(false, errors.New("down"))
	d.follow() // so that the withdrawal is no news of the upstream
	p.Withdraw()
	awaitExpiry(t, d, name)
	if v, err := tryVisit(t, "127.0.0.3", addr); err != nil || v.name != "laptop" {
		t.Errorf("while the port's client is away: got %+v, %v, want the laptop", v, err)
	}
	back := offer(t, d, name, newClient("a", named(t, "a again")))
	if got := visit(t, "127.0.0.3", addr).name; got != "laptop" {
		t.Errorf("after the port's client came back: got %s, want the laptop", got)
	}
	if got := visit(t, "127.0.0.2", addr).name; got != "a again" {
		t.Errorf("another source: got %s", got)
	}
	divert.Withdraw()
	if got := visit(t, "127.0.0.3", addr).name; got != "a again" {
		t.Errorf("after the divert: got %s", got)
	}
	back.Withdraw()
	await(t, "the port to close for good", func() bool { return refuses(addr) && len(d.State().Entrypoints) == 0 })
	if got := d.State().Upstreams; len(got) != 0 {
		t.Errorf("got %+v, want nothing left", got)
	}
}

// awaitExpiry waits until the port of a tunnel has been looked at that its client has left.
func awaitExpiry(t testing.TB, d *DataPlane, name string) {
	t.Helper()
	await(t, "the look at the port", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		e := d.entries[name]
		return e == nil || e.timer == nil
	})
}

// The last of the two may be the divert.
func TestAPortGoesWithItsLastDivert(t *testing.T) {
	d := start(t)
	addr := free(t, "tcp")
	_, port, _ := net.SplitHostPort(addr)
	name := "tcp/" + port
	p := offer(t, d, name, newClient("a", named(t, "a")))
	divert, err := divertOf(t, d, newClient("laptop", named(t, "laptop")), control.Divert{Entrypoint: name, Percent: 100})
	if err != nil {
		t.Fatal(err)
	}
	p.Withdraw()
	awaitExpiry(t, d, name)
	divert.Withdraw()
	await(t, "the port to close for good", func() bool { return refuses(addr) && len(d.State().Entrypoints) == 0 })
	if got := d.State().Upstreams; len(got) != 0 {
		t.Errorf("got %+v, want nothing left", got)
	}
}

// Datagrams of sources that are not heard are counted while the configuration changes.
func TestARefusedDatagramDuringAReload(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "udp"), "one": echoes(t, "one")}
	text := `
entrypoints: [{name: vpn, protocol: udp, addr: "$addr", allow: [192.0.2.0/24], routes: [{upstream: pool}]}]
upstreams: [{name: pool, members: [{address: "$one"}]}]
`
	apply(t, d, read(t, text, vars))
	c, err := net.Dial("udp", vars["addr"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 50 {
		for range 20 {
			_, _ = c.Write([]byte("x"))
		}
		change := strings.Replace(text, "{name: pool,", "{name: pool, balance: "+[]string{"first", "random_two"}[i%2]+",", 1)
		apply(t, d, read(t, change, vars))
	}
}
