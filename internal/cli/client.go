package cli

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"culvert/internal/cli/generate"
	"culvert/internal/config"
)

func clientPage() page {
	return page{
		mode:  config.Mixed,
		words: []string{"client"},
		short: "Tunnel client for HTTP, TCP and UDP: offers local services through a server",
		examples: []string{
			"culvert client --url wss://203.0.113.7:8123 --token-file token --upstream http://127.0.0.1:3000",
			"culvert client --url wss://tunnel.example.com:8123 --token-file token --upstream app.example.com=http://127.0.0.1:3000,2222=127.0.0.1:22,udp/53=127.0.0.1:53",
			"culvert client --url wss://tunnel.example.com --token-file token --auto-tls=false --upstream name/db=10.0.0.5:5432",
		},
	}
}

func httpClientPage() page {
	return page{
		mode:  config.HTTP,
		words: []string{"http", "client"},
		short: "HTTP tunnel client: offers local websites through a server, by host name and path",
		examples: []string{
			"culvert http client --url wss://203.0.113.7:8123 --token-file token --upstream http://127.0.0.1:3000",
			"culvert http client --url wss://203.0.113.7:8123 --token-file token --upstream app.example.com=http://127.0.0.1:3000 --upstream app.example.com/api=unix:/run/api.sock",
			"culvert http client --url wss://203.0.113.7:8123 --token-file token --upstream '*.dev.example.com=file:/srv/www'",
		},
	}
}

func tcpClientPage() page {
	return page{
		mode:  config.TCP,
		words: []string{"tcp", "client"},
		short: "TCP tunnel client: offers local TCP services through a server, by port",
		examples: []string{
			"culvert tcp client --url wss://203.0.113.7:8123 --token-file token --upstream 192.168.1.12 --ports 80,443",
			"culvert tcp client --url wss://203.0.113.7:8123 --token-file token --upstream 2222=127.0.0.1:22",
			"culvert tcp client --url wss://203.0.113.7:8123 --token-file token --upstream 5432=unix:/run/postgresql/.s.PGSQL.5432",
		},
	}
}

func udpClientPage() page {
	return page{
		mode:  config.UDP,
		words: []string{"udp", "client"},
		short: "UDP tunnel client: offers local UDP services through a server, by port",
		examples: []string{
			"culvert udp client --url wss://203.0.113.7:8123 --token-file token --upstream 192.168.1.12 --ports 53,51820",
			"culvert udp client --url wss://203.0.113.7:8123 --token-file token --upstream 5353=127.0.0.1:53",
		},
	}
}

// client is a client in one of its shapes.
func (t tree) client(p page) *cobra.Command {
	cfg := new(config.Client)
	settings := config.Describe(cfg, p.mode)
	cfg.Mode = p.mode
	return t.command(leaf{
		use: "client", short: p.short, examples: p.examples,
		settings: settings, cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, log *slog.Logger, _ []string) error {
			if cfg.Generate != "" {
				return t.printGenerated(generate.Client(*cfg, settings, t.options(p.words)))
			}
			return t.deps.RunClient(ctx, *cfg, log)
		},
	})
}
