package entrypoint

import (
	"net/netip"
	"testing"
)

// The zone of a link-local address is none of a list's business.
func TestNeighboursOnTheLinkAreKnownByTheirAddress(t *testing.T) {
	neighbour := netip.MustParseAddrPort("[fe80::7%1]:1000")
	link := netip.MustParsePrefix("fe80::/10")
	r := &Reception{Proxy: &ProxyPolicy{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Allow: []netip.Prefix{link}}
	if v, err := r.receive(nil, Visitor{Source: neighbour, Destination: ours}); err != nil || v.Source != neighbour {
		t.Errorf("got %+v, %v, want the neighbour let in", v, err)
	}
	r = &Reception{Proxy: trusting(link.String())}
	v, _, err := received(t, r, neighbour, behaviour{send: []string{line + "hello"}})
	if err != nil || v.Source != visitor || string(v.First) != "hello" {
		t.Errorf("got %+v, %v, want the visitor whom the neighbour tells of", v, err)
	}
}

// What a balancer's probe might have been, and was read for that, is the beginning of a request.
func TestHTTPOfASourceThatProbes(t *testing.T) {
	addr, _ := behindBalancer(t, &Reception{
		Proxy: trusting("192.0.2.0/24"), ProbeSources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	if got, err := askRaw(t, addr, post); err != nil || got[:4] != "200 " {
		t.Errorf("got %.200q, %v", got, err)
	}
}
