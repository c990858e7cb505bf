package dataplane

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// A source that sends nothing holds no place: a balancer's connections whose header comes with the first bytes, and visitors of
// TLS who never say hello, would keep everybody out.
func TestWhoIsSilentHoldsNoPlace(t *testing.T) {
	d := start(t)
	vars := map[string]string{"addr": free(t, "tcp"), "one": named(t, "one")}
	apply(t, d, read(t, `
entrypoints:
  - name: in
    addr: $addr
    max_conns: 2
    proxy_protocol: {accept: auto, trusted: [127.0.0.50]}
    routes: [{upstream: one}]
upstreams: [{name: one, members: [{address: $one}]}]
`, vars))
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 50)}}
	var balancer []net.Conn
	for range 5 {
		c, err := from.Dial("tcp", vars["addr"])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		balancer = append(balancer, c)
	}
	one, two := visit(t, "127.0.0.1", vars["addr"]), visit(t, "127.0.0.1", vars["addr"])
	if !one.hears("one") || !two.hears("two") {
		t.Error("a visitor was turned away while there was room")
	}
	if _, err := tryVisit(t, "127.0.0.1", vars["addr"]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the third of two: got %v, want a reset", err)
	}
	if _, err := balancer[0].Write([]byte("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := balancer[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a header while all places are taken: got %v, want a reset", err)
	}
	one.Close()
	await(t, "the place to be free", func() bool {
		v, err := tryVisit(t, "127.0.0.1", vars["addr"])
		return err == nil && v.hears("free")
	})
}
