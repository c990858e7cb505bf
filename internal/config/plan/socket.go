package plan

import (
	"net"
	"net/netip"

	"culvert/internal/config/file"
)

// Socket is an address that something listens on.
type Socket struct {
	Network string // "tcp" or "udp"
	Addr    string // host:port; the host may be empty
	What    string // "the control port (control_port)"
}

// Collides says whether two sockets cannot both be there. Port 0 is any free one.
func (s Socket) Collides(t Socket) bool {
	host, port, err := net.SplitHostPort(s.Addr)
	otherHost, otherPort, err2 := net.SplitHostPort(t.Addr)
	if err != nil || err2 != nil || s.Network != t.Network || port != otherPort || port == "0" {
		return false
	}
	return host == otherHost || every(host, otherHost) || every(otherHost, host)
}

// every says whether a host stands for every address of its family and host's is one. "0.0.0.0" and "[::1]" do not collide,
// "[::]" and "127.0.0.1" do: the former takes IPv4 too.
func every(wild, host string) bool {
	if wild == "" {
		return true
	}
	addr, err := netip.ParseAddr(wild)
	if err != nil || !addr.IsUnspecified() {
		return false
	}
	other, err := netip.ParseAddr(host)
	return addr.Is6() || err != nil || other.Is4()
}

func (e Entrypoint) socket() Socket {
	return Socket{Network: e.Protocol.Network(), Addr: e.Addr, What: "the entrypoint " + e.Name}
}

// sockets finds entrypoints that want the same address, and members that are an entrypoint which sends to them.
func (c *checker) sockets() {
	byPort := map[string][]int{}
	for i, e := range c.plan.Entrypoints {
		_, port, err := net.SplitHostPort(e.Addr)
		if err != nil {
			continue
		}
		key := e.Protocol.Network() + " " + port
		for _, j := range byPort[key] {
			f := c.plan.Entrypoints[j]
			if e.socket().Collides(f.socket()) {
				c.fault(file.Item("entrypoints", i)+".addr", "give one of them another port or address",
					"%s collides with %s of the entrypoint %q, in line %d", e.Addr, f.Addr, f.Name, c.line(file.Item("entrypoints", j)+".addr"))
				break
			}
		}
		byPort[key] = append(byPort[key], i)
	}
	for _, e := range c.plan.Entrypoints {
		for _, r := range e.Routes {
			c.loop(e, r)
		}
	}
}

// loop finds a member that is the entrypoint itself.
func (c *checker) loop(e Entrypoint, r Route) {
	i, ok := c.upstreams[r.Upstream]
	if !ok {
		return
	}
	host, port, err := net.SplitHostPort(e.Addr)
	if err != nil {
		return
	}
	for j, m := range c.plan.Upstreams[i].Members {
		memberHost, memberPort, err := net.SplitHostPort(m.Address)
		if err != nil || memberPort != port {
			continue
		}
		addr, err := netip.ParseAddr(memberHost)
		local := err == nil && addr.IsLoopback() || memberHost == "localhost"
		if memberHost == host || local && every(host, memberHost) {
			c.fault(file.Item(file.Item("upstreams", i)+".members", j)+".address", "give the address of the service",
				"is the address of the entrypoint %q, which sends to it: connections would go round for ever", e.Name)
			return
		}
	}
}

// Conflicts finds the entrypoints that want the address of another socket.
func (p Plan) Conflicts(doc *file.Doc, others []Socket) (faults file.Faults) {
	for i, e := range p.Entrypoints {
		for _, other := range others {
			if e.socket().Collides(other) {
				faults = append(faults, doc.Fault(file.Item("entrypoints", i)+".addr", "give one of them another port or address",
					"%s collides with %s, %s", e.Addr, other.Addr, other.What))
				break
			}
		}
	}
	return faults
}
