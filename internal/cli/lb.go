package cli

import "culvert/internal/config"

// lbPage is a server of fixed members: it opens the control port only for clients that it can tell apart.
func lbPage() page {
	return page{
		mode:  config.LB,
		words: []string{"lb"},
		short: "Load balancer for TCP, UDP and TLS between the addresses of a file; with a token, for tunnels too",
		examples: []string{
			"culvert lb --config culvert.yaml",
			"culvert lb --config culvert.yaml --health-addr 127.0.0.1:8081",
			"culvert lb --config culvert.yaml --print-config",
		},
	}
}
