package plan

import (
	"cmp"
	"crypto/tls"
	"net"
	"slices"

	"culvert/internal/proxyproto"
	"culvert/internal/upstream/health"
)

// Check is the upstream's active check; false if it has none.
func (u Upstream) Check() (health.Check, bool) {
	h := u.Health
	if h == nil {
		return health.Check{}, false
	}
	c := health.Check{Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall, Port: h.Port}
	switch {
	case h.HTTP != nil:
		c.Kind, c.Method, c.Path, c.Host, c.Expect = health.HTTP, h.HTTP.Method, h.HTTP.Path, h.HTTP.Host, h.HTTP.Expect
		for _, r := range h.HTTP.Status {
			c.Status = append(c.Status, health.StatusRange(r))
		}
	case h.Expect != nil:
		c.Kind, c.Send, c.Expect = health.Expect, h.Expect.Send, h.Expect.Expect
	case h.UDP != nil:
		c.Kind, c.Send, c.Expect = health.UDP, h.UDP.Send, h.UDP.Expect
	default:
		c.Kind = health.TCP
	}
	switch u.ProxyProtocol.Version {
	case SendV1:
		c.Proxy = 1
	case SendV2:
		c.Proxy = 2
	}
	return c, true
}

// CheckTLS is how the upstream's check speaks TLS to a member; nil if it does not.
func (u Upstream) CheckTLS(m Member) *tls.Config {
	if u.Health == nil || u.Health.TLS == nil {
		return nil
	}
	asked := ""
	if u.Health.HTTP != nil {
		asked = u.Health.HTTP.Host
	}
	network, address := m.Network()
	if network == "unix" {
		address = "localhost"
	}
	name := cmp.Or(asked, address)
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	return &tls.Config{
		ServerName:         cmp.Or(u.Health.TLS.ServerName, name),
		InsecureSkipVerify: u.Health.TLS.Insecure, //nolint:gosec // as the operator has it, for a check alone
	}
}

// Emission is the header as package proxyproto has it.
func (s ProxySend) Emission() proxyproto.Emission {
	e := proxyproto.Emission{
		Authority: slices.Contains(s.TLVs, TLVAuthority), UniqueID: slices.Contains(s.TLVs, TLVUniqueID),
		CRC32C: slices.Contains(s.TLVs, TLVChecksum), FirstDatagram: s.UDPHeader == FirstDatagram,
	}
	switch s.Version {
	case SendV1:
		e.Version = proxyproto.V1
	case SendV2:
		e.Version = proxyproto.V2
	}
	return e
}
