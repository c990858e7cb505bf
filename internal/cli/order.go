package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/config"
)

// reload has a server read its configuration file again.
func (t tree) reload() *cobra.Command {
	return t.order("reload", "Reload: a running server reads its configuration file again, with nothing dropped",
		question{method: http.MethodPost, path: "/api/reload", may: "admin", refused: "the server goes on with the configuration that it has"}, "The server has read its configuration file again.")
}

// drain has a server go down in order.
func (t tree) drain() *cobra.Command {
	return t.order("drain", "Drain: a running server takes nothing new, lets open connections finish and ends, as at SIGTERM",
		question{method: http.MethodPost, path: "/api/drain", may: "admin"}, "The server drains, and ends when its connections have finished or --drain-timeout is over.")
}

// order is a command that has a server do something.
func (t tree) order(use, short string, q question, done string) *cobra.Command {
	cfg := new(config.Order)
	return t.command(leaf{
		use: use, short: short,
		examples: []string{
			"culvert " + use + " --url wss://203.0.113.7:8123 --token-file token",
			"culvert " + use + " --url wss://tunnel.example.com --token-file token --auto-tls=false",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, _ *slog.Logger, _ []string) error {
			body, err := ask(ctx, cfg.Control, q)
			if err != nil {
				return err
			}
			var told admin.Reloaded // what else a server says has no warnings
			if err := json.Unmarshal(body, &told); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			for _, w := range told.Warnings {
				fmt.Fprintln(t.deps.Stderr, "culvert: warning:", w)
			}
			_, err = fmt.Fprintln(t.deps.Stderr, done)
			return err
		},
	})
}
