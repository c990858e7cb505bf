package auth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"

	"culvert/internal/hostname"
)

// target is what an item of Grant.Forward permits: exactly one of prefix and glob is set.
type target struct {
	prefix netip.Prefix
	glob   string // of canonical hosts; "*" is of addresses too
	ports  Ports
}

func parseTarget(s string) (target, error) {
	t, err := splitTarget(s)
	if err != nil {
		return target{}, fmt.Errorf("forward %.80q: %w", s, err)
	}
	return t, nil
}

func splitTarget(s string) (t target, err error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return t, errors.New("want HOST:PORT, CIDR:PORT or HOST:*")
	}
	host, port := s[:colon], s[colon+1:]
	r, err := parseRange(port)
	if err != nil {
		return t, err
	}
	t.ports = Ports{[]portRange{r}}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		if !closed || !strings.Contains(inner, ":") {
			return t, errors.New("brackets hold anything but an IPv6 address or CIDR")
		}
		host = inner
	} else if strings.Contains(host, ":") {
		return t, errors.New("an IPv6 address or CIDR wants brackets")
	}
	if strings.Contains(host, "/") {
		t.prefix, err = netip.ParsePrefix(host)
		if err == nil && t.prefix.Addr().Is4In6() {
			err = errors.New("write the range as IPv4")
		}
		return t, err
	}
	if !strings.ContainsAny(host, `*?[\`) {
		t.glob, err = hostname.Canonical(host)
		return t, err
	}
	t.glob = strings.ToLower(host)
	return t, checkHostGlob(t.glob)
}

func checkHostGlob(glob string) error {
	if glob == "*" {
		return nil
	}
	if _, err := path.Match(glob, ""); err != nil {
		return errors.New("malformed pattern")
	}
	if !strings.ContainsFunc(glob, func(r rune) bool { return 'a' <= r && r <= 'z' }) {
		// "10.0.*" looks like a network, yet a name such as 10.0.evil.test would be of it.
		return errors.New("a pattern without letters: write addresses as a CIDR such as 10.0.0.0/16")
	}
	return nil
}

// permits takes a canonical host.
func (t target) permits(host string, port uint16) bool {
	if !t.ports.Contains(port) {
		return false
	}
	addr, err := netip.ParseAddr(host)
	isAddr := err == nil
	if t.prefix.IsValid() {
		return isAddr && t.prefix.Contains(addr)
	}
	if isAddr {
		// Of globs only "*" is of addresses, lest "*:1" be one of a name.
		return t.glob == "*" || t.glob == host
	}
	ok, err := path.Match(t.glob, host)
	return ok && err == nil
}

// anyTarget says whether one of the patterns permits the address, after it was made canonical: a v4-mapped IPv6 address is
// its IPv4 address, and what is no host and port is permitted by none.
func anyTarget(patterns []string, hostport string) bool {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	port, err := parsePort(portText)
	if err != nil {
		return false
	}
	if strings.Contains(host, ":") != strings.HasPrefix(hostport, "[") {
		return false // brackets are for IPv6 alone, as in hostname.Canonical
	}
	if strings.Contains(host, ":") {
		// Out of its brackets "a:80" would lose its port below: what is dialed must be what is permitted.
		if _, err := netip.ParseAddr(host); err != nil {
			return false
		}
	}
	if host, err = hostname.Canonical(host); err != nil {
		return false
	}
	for _, p := range patterns {
		if t, err := parseTarget(p); err == nil && t.permits(host, port) {
			return true
		}
	}
	return false
}
