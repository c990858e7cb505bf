package arch

// A row says what a package is allowed to import of this module. It may name only rows above it; what it does not use
// it may not name. Change a row in the commit that needs the new edge, and say why in the commit's message.
type row struct {
	pkg  string // below culvert/internal, but for the command
	uses []string
}

// The table, from the bottom up.
func table() []row {
	return []row{
		// Level 0: knows nothing of the rest.
		{"nowait", nil},
		{"epoll", nil},
		{"mux", []string{"nowait"}},
		{"cork", []string{"nowait"}},
		{"hostname", nil},
		{"cidr", nil},
		{"handover", nil},
		{"systemd", nil},
		{"nearest", nil},
		{"auth", []string{"hostname"}},
		{"forwardproxy", []string{"cork"}},
		{"pki", []string{"forwardproxy"}},
		{"balancer", nil},
		{"udp", []string{"cidr", "epoll"}},
		{"accesslog", nil},
		{"router", []string{"cidr", "hostname"}},
		{"proxyproto", nil},
		{"peek", []string{"hostname"}},

		// Level 1: the protocol, places to send to, places that accept.
		{"tunnel", []string{"mux", "hostname", "proxyproto"}},
		{"tunnel/ws", []string{"cork", "forwardproxy"}},
		{"tunnel/tls", []string{"cork", "forwardproxy"}},
		{"upstream", []string{"balancer", "nowait", "proxyproto", "udp"}},
		{"upstream/health", []string{"proxyproto"}},
		{"upstream/fileserver", nil},
		{"entrypoint", []string{"cidr", "peek", "proxyproto", "udp"}},
		{"admin", []string{"accesslog", "auth", "cidr"}},

		// Level 2: the data path.
		{"proxy", []string{"accesslog", "cidr", "epoll", "hostname", "nowait", "proxyproto", "router", "udp", "upstream"}},

		// Level 3: the two ends of a session. Each makes a mux session of a carrier's connection, for tunnel to speak in.
		{"control", []string{"auth", "cidr", "hostname", "mux", "proxyproto", "tunnel", "tunnel/tls", "tunnel/ws", "udp", "upstream"}},
		{"client", []string{"auth", "mux", "pki", "proxy", "proxyproto", "tunnel", "tunnel/tls", "tunnel/ws", "udp", "upstream", "upstream/fileserver", "upstream/health"}},

		// The file of the data plane.
		{"config/file", []string{"cidr", "nearest"}},
		{"config/plan", []string{"config/file", "hostname", "nearest", "proxyproto", "tunnel", "upstream/health"}},

		// Level 4 to 6: settings, assembly, commands.
		// The data plane, of what a file says and clients offer.
		{"dataplane", []string{"accesslog", "admin", "balancer", "cidr", "config/plan", "control", "entrypoint", "hostname", "proxy", "proxyproto", "router", "tunnel", "udp", "upstream", "upstream/health"}},
		{"config", []string{"auth", "cidr", "client", "config/file", "config/plan", "hostname", "pki", "proxyproto", "tunnel", "upstream/health"}},
		{"app", []string{
			"accesslog", "admin", "auth", "client", "config", "config/plan", "control", "cork", "dataplane", "entrypoint", "handover", "mux", "pki",
			"proxy", "systemd", "tunnel/tls", "tunnel/ws", "upstream/fileserver",
		}},
		{"demo", []string{"app", "auth", "config"}},
		{"cli/generate", []string{"config", "config/plan"}},
		{"cli", []string{
			"admin", "app", "auth", "client", "cli/generate", "config", "config/file", "demo", "handover", "nearest", "pki", "systemd",
		}},
		{"cmd/culvert", []string{"cli"}},

		// Tests only.
		{"arch", nil},
		{"forwardproxy/proxytest", nil},
		{"e2e", nil},
	}
}
