package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/config"
)

// explain says why connections went where they went.
func (t tree) explain() *cobra.Command {
	cfg := new(config.Explain)
	return t.command(leaf{
		use: "explain [CONNECTION]", short: "Explain: why a connection went where it went, by its id, its source or the newest ones",
		examples: []string{
			"culvert explain 4fd2a6e1 --url wss://203.0.113.7:8123 --token-file token",
			"culvert explain --source 203.0.113.7 --url wss://203.0.113.7:8123 --token-file token",
			"culvert explain --last 5 --entrypoint devices --url wss://203.0.113.7:8123 --token-file token --output json",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !hexadecimal(args[0]) {
				return errors.New("give the id of one connection, or its beginning, as logs and culvert explain --last show it")
			}
			return nil
		},
		run: func(ctx context.Context, _ *slog.Logger, args []string) error {
			return t.runExplain(ctx, cfg, args)
		},
	})
}

func hexadecimal(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (t tree) runExplain(ctx context.Context, cfg *config.Explain, args []string) error {
	q := url.Values{"limit": {strconv.Itoa(cfg.Last)}}
	what := "no connection is kept"
	for _, part := range []struct{ key, value, what string }{
		{"entrypoint", cfg.Entrypoint, " of entrypoint " + printableName(cfg.Entrypoint)},
		{"source", cfg.Source, " from " + printableName(cfg.Source)},
	} {
		if part.value != "" {
			q.Set(part.key, part.value)
			what += part.what
		}
	}
	if len(args) == 1 {
		q.Set("id", args[0])
		what += " whose id begins with " + args[0]
	}
	body, err := ask(ctx, cfg.Control, question{path: "/api/connections", query: q, may: "read"})
	if err != nil {
		return err
	}
	var found admin.Connections
	if err := json.Unmarshal(body, &found); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(found.Connections) == 0 && len(args) == 1 {
		return fmt.Errorf("%s: the server keeps the newest ones, see its --connection-records", what)
	}
	switch {
	case cfg.JSON():
		return printIndented(t.deps.Stdout, body)
	case len(found.Connections) == 0:
		_, err = fmt.Fprintln(t.deps.Stderr, what)
		return err
	case len(found.Connections) == 1:
		return admin.Explain(t.deps.Stdout, found.Connections[0], t.deps.Now())
	default:
		return admin.PrintConnections(t.deps.Stdout, found.Connections, t.deps.Now())
	}
}
