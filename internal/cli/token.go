package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"culvert/internal/auth"
	"culvert/internal/config"
)

// tokenNew makes a token and adds its hash to a token file.
func (t tree) tokenNew() *cobra.Command {
	cfg := new(config.TokenNew)
	return t.command(leaf{
		use: "new", short: "New token: prints it once, and adds its hash and grant to the token file",
		examples: []string{
			"culvert token new --tokens tokens.yaml --name laptop --hosts app.example.com --ports 2222 --expires 90d",
			"culvert token new --tokens tokens.yaml --name prometheus --read",
			"culvert token new --tokens tokens.yaml --name ops --everything > token",
		},
		settings: config.Describe(cfg, ""), cfg: cfg,
		run: func(context.Context, *slog.Logger, []string) error {
			now := t.deps.Now().UTC().Truncate(time.Second)
			entry := auth.TokenEntry{Name: cfg.Name, Created: now, Grant: cfg.Grant()}
			if cfg.Expires > 0 {
				entry.Expires = now.Add(cfg.Expires)
			}
			secret, entry, err := auth.NewToken(entry)
			if err != nil {
				return err
			}
			if err := auth.AppendToken(cfg.Tokens, entry); err != nil {
				return err
			}
			return t.printNewToken(secret, entry, cfg)
		},
	})
}

// printNewToken prints the token alone on standard output, so that it can go into a file.
func (t tree) printNewToken(secret auth.Secret, entry auth.TokenEntry, cfg *config.TokenNew) error {
	if cfg.JSON() {
		r := tokenRecord(entry)
		r.Token = secret.Reveal()
		return writeJSON(t.deps.Stdout, r)
	}
	if _, err := fmt.Fprintln(t.deps.Stdout, secret.Reveal()); err != nil {
		return err
	}
	fmt.Fprintf(t.deps.Stderr, "Added token %s (%s) to %s, which is as secret as a key. The token is shown this once.\n",
		entry.ID, entry.Name, cfg.Tokens)
	return nil
}

// tokenList lists the tokens of a file, which knows their hashes only.
func (t tree) tokenList() *cobra.Command {
	cfg := new(config.TokenList)
	return t.command(leaf{
		use: "list", short: "List tokens: their ids, names, expiry and grants",
		examples: []string{"culvert token list --tokens tokens.yaml", "culvert token list --tokens tokens.yaml --output json"},
		settings: config.Describe(cfg, ""), cfg: cfg,
		run: func(context.Context, *slog.Logger, []string) error {
			entries, err := auth.ReadTokens(cfg.Tokens)
			if err != nil {
				return err
			}
			records := make([]record, 0, len(entries))
			for _, e := range entries {
				records = append(records, tokenRecord(e))
			}
			if cfg.JSON() {
				return writeJSON(t.deps.Stdout, records)
			}
			return t.printTokens(records)
		},
	})
}

func (t tree) printTokens(records []record) error {
	w := tabwriter.NewWriter(t.deps.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tName\tExpires\tMay")
	for _, r := range records {
		expires := "never"
		if r.Expires != nil {
			expires = r.Expires.Format(time.DateOnly)
			if r.Expires.Before(t.deps.Now()) {
				expires += " (expired)"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.ID, printableName(r.Name), expires, strings.Join(r.may(), "; "))
	}
	return w.Flush()
}

// printableName keeps what someone else wrote into the file from steering the terminal.
func printableName(s string) string {
	if s == "" {
		return "-"
	}
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}

// tokenRevoke takes a token out of a file.
func (t tree) tokenRevoke() *cobra.Command {
	cfg := new(config.TokenRevoke)
	return t.command(leaf{
		use: "revoke ID|NAME", short: "Revoke a token: takes it out of the token file, and servers then end its sessions",
		examples: []string{"culvert token revoke --tokens tokens.yaml laptop", "culvert token revoke --tokens tokens.yaml 0c5f2a1c"},
		settings: config.Describe(cfg, ""), cfg: cfg,
		args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return errors.New("give the id or the name of one token, as culvert token list shows it")
			}
			return nil
		},
		run: func(_ context.Context, _ *slog.Logger, args []string) error {
			if err := auth.RevokeToken(cfg.Tokens, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(t.deps.Stderr, "Revoked token %s in %s. Servers notice within seconds.\n", args[0], cfg.Tokens)
			return nil
		},
	})
}

// record is a token as it is printed.
type record struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Token   string     `json:"token,omitempty"` // of a new one
	Created *time.Time `json:"created,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Hosts   []string   `json:"hosts,omitempty"`
	Ports   string     `json:"ports,omitempty"`
	Names   []string   `json:"names,omitempty"`
	Visit   []string   `json:"visit,omitempty"`
	Forward []string   `json:"forward,omitempty"`
	Divert  []string   `json:"divert,omitempty"`
	Read    bool       `json:"read"`
	Admin   bool       `json:"admin"`
}

func tokenRecord(e auth.TokenEntry) record {
	r := record{
		ID: e.ID, Name: e.Name, Ports: e.Grant.Ports.String(), Names: slices.Clone(e.Grant.Names), Visit: e.Grant.Visit,
		Forward: e.Grant.Forward, Divert: e.Grant.Divert, Read: e.Grant.Read, Admin: e.Grant.Administer,
	}
	for _, h := range e.Grant.Hosts {
		r.Hosts = append(r.Hosts, h.String())
	}
	if !e.Created.IsZero() {
		r.Created = &e.Created
	}
	if !e.Expires.IsZero() {
		r.Expires = &e.Expires
	}
	return r
}

// may is the grant in words.
func (r record) may() []string {
	var may []string
	for _, part := range []struct {
		what string
		list []string
	}{
		{"offer hosts", r.Hosts},
		{"offer names", r.Names},
		{"visit", r.Visit},
		{"forward to", r.Forward},
		{"divert", r.Divert},
	} {
		if len(part.list) > 0 {
			may = append(may, part.what+" "+strings.Join(part.list, ","))
		}
	}
	if r.Ports != "" {
		may = append(may, "offer ports "+r.Ports)
	}
	if r.Read {
		may = append(may, "read")
	}
	if r.Admin {
		may = append(may, "administer")
	}
	return may
}
