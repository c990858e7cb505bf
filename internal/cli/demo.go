package cli

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"culvert/internal/config"
)

// demo is the two-minute tour.
func (t tree) demo() *cobra.Command {
	cfg := new(config.Demo)
	return t.command(leaf{
		use: "demo", short: "Two-minute tour: a server, two clients and a site on this machine, with traffic through them",
		examples: []string{"culvert demo", "culvert demo --for 10s", "culvert demo --for 10s --output json"},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, log *slog.Logger, _ []string) error {
			return t.deps.RunDemo(ctx, *cfg, t.deps.Stdout, log)
		},
	})
}
