package systems

import (
	"context"
	"fmt"
)

// System is something that is measured.
type System struct {
	Name string
	// Needs are commands, and files by their whole path, that it needs besides what is built here.
	Needs []string
	// Prepare makes its files; may be nil.
	Prepare func(ctx context.Context, p Place) error
	// Server is the command that visitors reach, and Client that of the tunnel's private end number n; nil if it is one hop.
	Server func(p Place) []string
	Client func(p Place, n int) []string
}

// Tunnel says whether it has two ends.
func (s System) Tunnel() bool { return s.Client != nil }

// Missing names what the system needs and this machine has not; empty if it can run.
func (s System) Missing() string {
	for _, n := range s.Needs {
		if find(n) == "" {
			return n
		}
	}
	return ""
}

// The systems' names.
const (
	Culvert    = "culvert"
	CulvertTLS = "culvert tls://"
	SSH        = "ssh -R"
	Reference  = "reference"
	HAProxy    = "HAProxy"
	HAProxyOne = "HAProxy, 1 thread"
	Nginx      = "nginx"
)

// Tunnels are what the benchmark of tunnels compares, in the order of its tables.
func Tunnels() []System {
	return []System{culvert(Culvert, "wss"), culvert(CulvertTLS, "tls"), ssh(), reference(), haproxy(HAProxy), nginx()}
}

// Balancers are what the benchmark of the balancer compares, in the order of its tables.
func Balancers() []System {
	return []System{balancer(), haproxy(HAProxy), haproxy(HAProxyOne, " nbthread 1"), nginx()}
}

// token is the secret of all benchmarks.
const token = "benchmark-0123456789"

func culvert(name, scheme string) System { return CulvertWith(name, scheme) }

// CulvertWith is culvert over a carrier (wss or tls), whose clients get more flags.
func CulvertWith(name, scheme string, flags ...string) System {
	return System{
		Name: name,
		Server: func(p Place) []string {
			return []string{
				p.Binary, "tcp", "server", "--control-addr", p.Host, "--control-port", p.Tunnel, "--data-addr", p.Host,
				"--auto-tls=false", "--tls-cert", p.Keys.Cert, "--tls-key", p.Keys.Key, "--token", token, "--log-level", "warn",
			}
		},
		Client: func(p Place, n int) []string {
			return append([]string{
				p.Binary, "tcp", "client", "--url", scheme + "://" + p.Dial, "--auto-tls=false", "--tls-ca", p.Keys.CA,
				"--token", token, "--upstream", p.Public + "=" + p.Service, "--id", fmt.Sprintf("client-%d", n),
				"--state-dir", p.Path(fmt.Sprintf("state-%d", n)), "--log-level", "warn",
			}, flags...)
		},
	}
}

func reference() System {
	return System{
		Name: Reference,
		Server: func(p Place) []string {
			return []string{p.Self, "reference-server", "-tunnel", p.TunnelAt(), "-public", p.PublicAt(), "-cert", p.Keys.Cert, "-key", p.Keys.Key}
		},
		Client: func(p Place, _ int) []string {
			return []string{p.Self, "reference-client", "-server", p.Dial, "-ca", p.Keys.CA, "-service", p.Service}
		},
	}
}

// balancer is culvert with a fixed member.
func balancer() System {
	return System{
		Name: Culvert,
		Prepare: func(_ context.Context, p Place) error {
			_, err := p.write("culvert.yaml", lines(
				"entrypoints:",
				"- {name: bench, addr: '"+p.PublicAt()+"', routes: [{upstream: service}]}",
				"- {name: packets, protocol: udp, addr: '"+p.PublicAt()+"', routes: [{upstream: service}]}",
				"- {name: names, protocol: udp, addr: '"+p.TunnelAt()+"', routes: [{upstream: names}]}",
				"upstreams:", "- {name: service, members: [{address: '"+p.Service+"'}]}",
				"- {name: names, members: [{address: '"+p.Names+"'}]}",
			))
			return err
		},
		Server: func(p Place) []string {
			return []string{p.Binary, "lb", "--config", p.Path("culvert.yaml"), "--log-level", "warn"}
		},
	}
}
