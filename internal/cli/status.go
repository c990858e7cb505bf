package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/config"
)

// status prints what a server is doing.
func (t tree) status() *cobra.Command {
	cfg := new(config.Status)
	return t.command(leaf{
		use: "status", short: "Status: what a server is, and which clients are connected to it",
		examples: []string{
			"culvert status --url wss://203.0.113.7:8123 --token-file token",
			"culvert status --url wss://tunnel.example.com --token-file token --auto-tls=false",
			"culvert status --url wss://203.0.113.7:8123 --token-file token --output json",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, _ *slog.Logger, _ []string) error {
			body, err := ask(ctx, cfg.Control, question{path: "/status", may: "read"})
			if err != nil {
				return err
			}
			if cfg.JSON() {
				return printIndented(t.deps.Stdout, body)
			}
			return t.printStatus(body)
		},
	})
}

func (t tree) printStatus(body []byte) error {
	var status admin.Status
	if err := json.Unmarshal(body, &status); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	b := t.deps.Build
	fmt.Fprintf(t.deps.Stdout, "Querying server status. Version %s - %s\n", b.Version, b.Revision)
	return admin.Print(t.deps.Stdout, status, t.deps.Now())
}
