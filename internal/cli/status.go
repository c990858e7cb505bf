package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/config"
)

// status prints what a server is doing.
func (t tree) status() *cobra.Command {
	cfg := new(config.Status)
	return t.command(leaf{
		use: "status", short: "Status: what a server is doing, with its clients, entrypoints, members and diverts",
		examples: []string{
			"culvert status --url wss://203.0.113.7:8123 --token-file token",
			"culvert status --url wss://tunnel.example.com --token-file token --auto-tls=false --watch",
			"culvert status --url wss://203.0.113.7:8123 --token-file token --output json",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, _ *slog.Logger, _ []string) error {
			page, err := t.statusPage(ctx, cfg)
			if err != nil {
				return err
			}
			if !cfg.Watch {
				_, err = t.deps.Stdout.Write(page)
				return err
			}
			return t.watch(ctx, cfg, page)
		},
	})
}

// statusPage asks for the status and makes of it what is to be printed.
func (t tree) statusPage(ctx context.Context, cfg *config.Status) ([]byte, error) {
	body, err := ask(ctx, cfg.Control, question{path: "/status", may: "read"})
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	switch {
	case cfg.JSON() && cfg.Watch:
		if err = json.Compact(&page, body); err == nil {
			page.WriteByte('\n')
		}
	case cfg.JSON():
		err = printIndented(&page, body)
	default:
		err = t.printStatus(&page, body)
	}
	return page.Bytes(), err
}

func (t tree) printStatus(w io.Writer, body []byte) error {
	var status admin.Status
	if err := json.Unmarshal(body, &status); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	b := t.deps.Build
	fmt.Fprintf(w, "Querying server status. Version %s - %s\n", b.Version, b.Revision)
	return admin.Print(w, status, t.deps.Now())
}

// watch prints a page and those that follow it until the context ends. A server that answers no more may come back: that it
// does not answer is told, and it is asked again.
func (t tree) watch(ctx context.Context, cfg *config.Status, page []byte) error {
	inPlace := !cfg.JSON() && isTerminal(t.deps.Stdout)
	tick := time.NewTicker(cfg.Interval)
	defer tick.Stop()
	for first := true; ; first = false {
		if inPlace {
			page = overwriting(page)
		} else if !first && !cfg.JSON() && len(page) > 0 {
			page = append([]byte("\n"), page...)
		}
		if _, err := t.deps.Stdout.Write(page); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var err error
		page, err = t.statusPage(ctx, cfg)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && inPlace:
			page = []byte("culvert: " + err.Error() + "\n")
		case err != nil:
			fmt.Fprintln(t.deps.Stderr, "culvert:", err)
		}
	}
}

// overwriting is a page in the place of what is on a terminal, without a moment at which it is empty.
func overwriting(page []byte) []byte {
	const home, clearLine, clearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	return []byte(home + strings.ReplaceAll(string(page), "\n", clearLine+"\n") + clearBelow)
}
