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
		{"mux", nil},
		{"hostname", nil},
		{"auth", []string{"hostname"}},
		{"pki", nil},
		{"balancer", nil},
		{"router", []string{"hostname"}},

		// Level 1: the protocol, places to send to, places that accept.
		{"tunnel", []string{"mux", "hostname"}},
		{"tunnel/ws", nil},
		{"upstream", []string{"balancer"}},
		{"upstream/fileserver", nil},
		{"entrypoint", []string{"hostname"}},
		{"admin", []string{"auth"}},

		// Level 2: the data path.
		{"proxy", []string{"hostname", "router", "upstream"}},

		// Level 3: the two ends of a session.
		{"control", []string{"auth", "hostname", "tunnel", "upstream"}},
		{"client", []string{"auth", "pki", "proxy", "tunnel", "upstream", "upstream/fileserver"}},

		// Level 4 to 6: settings, assembly, commands.
		{"config", []string{"auth", "hostname", "tunnel", "client"}},
		{"app", []string{
			"admin", "auth", "client", "config", "control", "entrypoint", "hostname", "pki", "proxy", "router",
			"tunnel", "tunnel/ws", "upstream", "upstream/fileserver",
		}},
		{"cli/generate", []string{"config"}},
		{"cli", []string{"admin", "app", "auth", "cli/generate", "config"}},
		{"cmd/culvert", []string{"cli"}},

		// Tests only.
		{"arch", nil},
		{"e2e", nil},
	}
}
