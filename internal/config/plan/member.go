package plan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// unixScheme is what the address of a Unix socket begins with.
const unixScheme = "unix:"

// Network is how the member's address is dialled: "tcp", or "unix" with the path alone; "" for a tunnel.
func (m Member) Network() (network, address string) {
	switch path, unix := strings.CutPrefix(m.Address, unixScheme); {
	case m.Address == "":
		return "", ""
	case unix:
		return "unix", path
	}
	return "tcp", m.Address
}

// members checks and completes the members of an upstream.
func (c *checker) members(u *Upstream, path string) {
	places, names := map[string]int{}, map[string]int{}
	for i := range u.Members {
		m := &u.Members[i]
		at := file.Item(path+".members", i)
		place, ok := c.member(m, at)
		if !ok {
			continue
		}
		if first, twice := places[place]; twice {
			c.fault(at, "leave it out; weight gives a member a larger share", "%s is a member already, in line %d",
				place, c.line(file.Item(path+".members", first)))
			continue
		}
		places[place] = i
		if m.Name == "" {
			m.Name = place
		} else if m.Name != place && !c.name(at, m.Name) {
			continue
		}
		if first, twice := names[m.Name]; twice {
			c.fault(at+".name", "give another", "%q is the name of another member, in line %d",
				m.Name, c.line(file.Item(path+".members", first)))
		}
		names[m.Name] = i
		for _, use := range c.used[u.Name] {
			c.carries(m, at+".address", at+".tunnel", use)
			if use.mode == PerPacket && m.MaxConns > 0 {
				c.fault(at+".max_conns", "leave it out, or send there with mode: session",
					"does not bind what %s sends with mode: per_packet, which has no connections to count", use.path)
			}
		}
	}
}

// member checks one member by itself and says what place it is.
func (c *checker) member(m *Member, at string) (place string, ok bool) {
	isTunnel := m.Tunnel != tunnel.Name{}
	switch {
	case m.Address == "" && !isTunnel:
		c.fault(at, "add address: HOST:PORT or tunnel: NAME", "is neither an address nor a tunnel")
		return "", false
	case m.Address != "" && isTunnel:
		c.fault(at, "make two members of it", "is an address and a tunnel at once")
		return "", false
	case isTunnel:
		return m.Tunnel.String(), true
	}
	address, err := dialAddress(m.Address)
	if err != nil {
		c.fault(at+".address", "write HOST:PORT, as in 10.0.0.5:8080, or unix:/run/app.sock", "%s", err)
		return "", false
	}
	m.Address = address
	return address, true
}

// carries checks that a member can carry what a route sends to it. The paths are those of its address and its tunnel.
func (c *checker) carries(m *Member, address, name string, u use) {
	network, _ := m.Network()
	kind := m.Tunnel.Kind()
	switch {
	case u.protocol == UDP && network == "unix":
		c.fault(address, "give HOST:PORT", "a Unix socket takes no datagrams, and %s sends some", u.path)
	case u.protocol == UDP && (kind == tunnel.TCP || kind == tunnel.TLS):
		c.fault(name, "use udp/PORT or name/NAME", "the tunnel %s carries no datagrams, and %s sends some", m.Tunnel, u.path)
	case u.protocol != UDP && kind == tunnel.UDP:
		c.fault(name, "use tcp/PORT or name/NAME", "the tunnel %s carries datagrams only, and %s sends connections", m.Tunnel, u.path)
	}
}

var errNoPort = errors.New("has no port")

// bindAddress is the canonical form of an address to listen on.
func bindAddress(s string) (string, error) {
	host, port, err := splitAddress(s)
	if err != nil {
		return "", err
	}
	if host != "" {
		if host, err = canonicalHost(host); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, port), nil
}

// dialAddress is the canonical form of the address of a member.
func dialAddress(s string) (string, error) {
	if socket, ok := strings.CutPrefix(s, unixScheme); ok {
		if !path.IsAbs(socket) {
			return "", fmt.Errorf("%.80q is not a whole path", socket)
		}
		return unixScheme + path.Clean(socket), nil
	}
	if _, _, ok := strings.Cut(s, "://"); ok {
		return "", fmt.Errorf("%.80q is a URL", s)
	}
	host, port, err := splitAddress(s)
	switch {
	case err != nil:
		return "", err
	case host == "":
		return "", fmt.Errorf("%.80q has no host", s)
	case port == "0":
		return "", fmt.Errorf("%.80q has no port that could be connected to", s)
	}
	if host, err = canonicalHost(host); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, port), nil
}

func splitAddress(s string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		if addr, bare := netip.ParseAddr(s); bare == nil && addr.Is6() {
			return "", "", fmt.Errorf("%.80q has no port, or its address no brackets: [%s]:PORT", s, addr)
		}
		return "", "", fmt.Errorf("%.80q %w", s, errNoPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case port == "":
		return "", "", fmt.Errorf("%.80q %w after the colon", s, errNoPort)
	case err != nil:
		return "", "", fmt.Errorf("%.20q is not a port from 1 to 65535", port)
	}
	return host, strconv.FormatUint(n, 10), nil
}

// canonicalHost is a host name or an address, which may have a zone: both are of this machine's own network.
func canonicalHost(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap().String(), nil
	}
	return hostname.Canonical(s)
}
