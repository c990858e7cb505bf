package config

import (
	"net/netip"

	"culvert/internal/config/plan"
	"culvert/internal/proxyproto"
)

// Balancer is what a load balancer in front says of visitors, and what services are told of them.
type Balancer struct {
	// LBProxyProtocol is "" if no header is expected. Both versions are taken in any case: the word is for those who know
	// which one their balancer sends.
	LBProxyProtocol string         `flag:"lb-proxy-protocol" values:"v1 v2 auto" blank:"off" shown:"off" unit:"VERSION" group:"Data plane" help:"expect the PROXY header of a load balancer in front on every connection of visitors: v1, v2 or auto, which all take both; entrypoints of a file have a setting of their own"`
	LBTrusted       []netip.Prefix `flag:"lb-trusted" shown:"private addresses, with a warning" unit:"CIDR" group:"Security" help:"addresses of that load balancer; a PROXY header of anyone else is refused; repeatable"`
	ProxyProtocol   string         `flag:"proxy-protocol" modes:"tcp mixed lb" values:"v1 v2" blank:"off" shown:"off" unit:"VERSION" group:"Data plane" help:"send a PROXY header to the services behind TCP tunnels: v1 or v2, unless the client says otherwise"`
}

// ExpectsProxy says whether a load balancer in front sends PROXY headers.
func (b *Balancer) ExpectsProxy() bool { return b.LBProxyProtocol != "" }

// Accept is what is expected of it at the entrypoints that no file describes.
func (b *Balancer) Accept() plan.ProxyAccept {
	if !b.ExpectsProxy() {
		return plan.ProxyAccept{Accept: plan.AcceptOff}
	}
	trusted, _ := b.Trusted()
	return plan.ProxyAccept{Accept: plan.AcceptAuto, Trusted: trusted}
}

// Trusted are the addresses whose PROXY headers count. assumed means that nobody has named them.
func (b *Balancer) Trusted() (trusted []netip.Prefix, assumed bool) {
	if len(b.LBTrusted) > 0 {
		return b.LBTrusted, false
	}
	return privateAddresses(), true
}

// Emission is the PROXY header that services behind TCP tunnels are to get.
func (b *Balancer) Emission() proxyproto.Emission {
	v, _ := proxyproto.ParseVersion(b.ProxyProtocol) // one of the values that there are
	return proxyproto.Emission{Version: v}
}

// privateAddresses are those that are not routed in the Internet: where the load balancers of clouds have theirs.
func privateAddresses() []netip.Prefix {
	var list []netip.Prefix
	for _, p := range []string{
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "fc00::/7", "fe80::/10", "::1/128",
	} {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func (b *Balancer) validate(health bool) (found Problems) {
	if len(b.LBTrusted) > 0 && !b.ExpectsProxy() && !health { // the health port takes their headers in any case
		found.add("lb-trusted", "give --lb-proxy-protocol auto too", "not used without --lb-proxy-protocol")
	}
	return found
}
