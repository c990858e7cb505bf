package cli

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"culvert/internal/cli/generate"
	"culvert/internal/config"
)

func serverPage() page {
	return page{
		mode:  config.Mixed,
		words: []string{"server"},
		short: "Tunnel server for HTTP, TCP and UDP: clients connect to it and offer services, which visitors reach through it",
		examples: []string{
			"culvert server --token-file token",
			"culvert server --token-file token --config culvert.yaml --auto-tls-san tunnel.example.com",
			"culvert server --tokens tokens.yaml --tls-cert fullchain.pem --tls-key privkey.pem --auto-tls=false",
		},
	}
}

func httpServerPage() page {
	return page{
		mode:  config.HTTP,
		words: []string{"http", "server"},
		short: "HTTP tunnel server: routes visitors to clients by host name and path",
		examples: []string{
			"culvert http server --token-file token --auto-tls-san 203.0.113.7",
			"culvert http server --token-file token --port 80 --control-port 443",
			"culvert http server --token-file token --generate systemd > culvert.service",
		},
	}
}

func tcpServerPage() page {
	return page{
		mode:  config.TCP,
		words: []string{"tcp", "server"},
		short: "TCP and UDP tunnel server: opens the ports that clients offer, and shares each among the clients that offer it",
		examples: []string{
			"culvert tcp server --token-file token --auto-tls-san 203.0.113.7",
			"culvert tcp server --token-file token --allow-ports 2222,5432 --allow-ips 198.51.100.0/24",
			"culvert tcp server --token-file token --data-addr 127.0.0.1:",
		},
	}
}

// server is a server in one of its shapes.
func (t tree) server(p page) *cobra.Command {
	cfg := new(config.Server)
	settings := config.Describe(cfg, p.mode)
	cfg.Mode = p.mode
	return t.command(leaf{
		use: p.words[len(p.words)-1], short: p.short, examples: p.examples,
		settings: settings, cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, log *slog.Logger, _ []string) error {
			if cfg.PrintConfig {
				return t.printConfig(cfg, settings)
			}
			if cfg.Generate != "" {
				return t.printGenerated(generate.Server(*cfg, settings, t.options(p.words)))
			}
			for _, w := range cfg.Warnings {
				log.Warn("the configuration has a part without effect", "where", w.Place(), "why", w.Fault, "remedy", w.Remedy)
			}
			return t.deps.RunServer(ctx, *cfg, log)
		},
	})
}

func (t tree) printConfig(cfg *config.Server, settings *config.Settings) error {
	text, err := cfg.Print(settings)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(t.deps.Stdout, text)
	return err
}
