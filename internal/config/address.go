package config

import (
	"fmt"
	"net/netip"
	"strings"

	"culvert/internal/hostname"
)

// bindHost puts an address to listen on into canonical form: a host without port. One trailing colon is dropped, because
// other tunnels want it ("127.0.0.1:").
func bindHost(flag, portFlag string, addr *string) (found Problems) {
	host, err := canonicalBind(strings.TrimSuffix(*addr, ":"))
	if *addr == "::" {
		host, err = "::", nil
	}
	if err != nil {
		found.add(flag, "give an address such as 127.0.0.1, 0.0.0.0 or ::1", "%s", err)
		return found
	}
	if _, port, cut := cutPort(*addr); cut {
		found.add(flag, "leave the port out: it is "+portFlag, "takes a host alone, not port %s", port)
		return found
	}
	*addr = host
	return found
}

// canonicalBind is hostname.Canonical, but an address may have a zone: a link-local one to listen on needs it.
func canonicalBind(host string) (string, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		return addr.String(), nil
	}
	return hostname.Canonical(host)
}

// cutPort says whether s is a host with a port, which bare IPv6 addresses resemble.
func cutPort(s string) (host, port string, ok bool) {
	if _, err := netip.ParseAddr(s); err == nil {
		return s, "", false
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i == len(s)-1 || strings.HasSuffix(s, "]") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// canonicalSAN is a name for a certificate: a host, or a wildcard of one label as X.509 knows it.
func canonicalSAN(s string) (string, error) {
	if strings.Contains(s, "://") {
		return "", fmt.Errorf("%q has a scheme", shorten(s))
	}
	if _, port, ok := cutPort(s); ok {
		return "", fmt.Errorf("%q has port %s", shorten(s), shorten(port))
	}
	if rest, wild := strings.CutPrefix(s, "*."); wild {
		host, err := hostname.Canonical(rest)
		return "*." + host, err
	}
	return hostname.Canonical(s)
}
