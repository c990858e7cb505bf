package cli

import (
	"context"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"culvert/internal/cli/generate"
	"culvert/internal/config"
)

// fileserver is the file server, which stands at two places of the tree.
func (t tree) fileserver(words ...string) *cobra.Command {
	cfg := new(config.Fileserver)
	settings := config.Describe(cfg, "")
	path := "culvert " + strings.Join(words, " ")
	return t.command(leaf{
		use: "fileserver", short: "File server: serves a folder over HTTP, on this machine alone unless told otherwise",
		examples: []string{
			path + " --webroot ./public",
			path + " -w /srv/www --allow-browsing --port 3000",
			path + " -w /srv/www --data-addr 0.0.0.0 --basic-auth-password-file password",
		},
		settings: settings, cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, log *slog.Logger, _ []string) error {
			if cfg.Generate != "" {
				return t.printGenerated(generate.Fileserver(*cfg, settings, t.options(words)))
			}
			return t.deps.RunFileserver(ctx, *cfg, log)
		},
	})
}
