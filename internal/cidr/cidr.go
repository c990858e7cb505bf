// Package cidr reads and asks networks as operators write them: as a CIDR, or as an address, which is the network of itself
// alone; and says which addresses count as one source.
//
// IPv4 in the form of IPv6 is IPv4, in networks and in addresses, and bits behind a prefix count for nothing, as in a firewall:
// what somebody has written covers the address that he means, however the kernel tells it.
package cidr

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxQuoted is how much of what was typed an error quotes.
const maxQuoted = 60

// Parse reads an address without a zone, or a CIDR. The error quotes it and says, behind a semicolon, what to write.
func Parse(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return Of(addr), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s is neither an address nor a CIDR; write it as in 10.0.0.0/8 or 2001:db8::/32", quote(text))
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

func quote(text string) string {
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Of is the network of an address alone.
func Of(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen())
}

// Source is the first of the addresses that one stranger is likely to have, which count as one: an address of IPv4, or the /64
// of one of IPv6, of which everybody has many.
func Source(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() { // the zero Addr too
		return addr
	}
	p, _ := addr.Prefix(64) // of a valid address
	return p.Addr()
}

// Text is the shortest form that Parse reads.
func Text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Contain says whether one of the networks has the address. An empty list has none.
func Contain(networks []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
