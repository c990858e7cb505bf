package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/client"
	"culvert/internal/config"
)

// divert sends live traffic of a server to this machine for a time.
func (t tree) divert() *cobra.Command {
	cfg := new(config.Divert)
	settings := config.Describe(cfg, "")
	cmd := t.command(leaf{
		use: "divert", short: "Divert: chosen live traffic of a server comes to this machine for a time, and then goes its way again",
		examples: []string{
			"culvert divert --url wss://203.0.113.7:8123 --token-file token --entrypoint devices --source 192.0.2.7 --to 127.0.0.1:9000 --for 30m",
			"culvert divert --url wss://203.0.113.7:8123 --token-file token --entrypoint web --sni api.example.com --percent 10 --to 127.0.0.1:8443",
			"culvert divert --url wss://203.0.113.7:8123 --token-file token --entrypoint vpn --source 2001:db8::/64 --to localhost:51820 --on-down fail",
		},
		settings: settings, cfg: cfg, log: &cfg.Log,
		args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		run: func(ctx context.Context, log *slog.Logger, _ []string) error {
			if settings.Lookup("log-level").Source() == config.FromDefault { // what is news is printed
				log = newLogger(t.deps.Stderr, quiet(cfg.Log), t.deps.Terminal)
			}
			p := &divertPrinter{
				cfg: cfg, out: t.deps.Stdout, now: t.deps.Now, terminal: isTerminal(t.deps.Stdout), json: json.NewEncoder(t.deps.Stdout),
			}
			stop := context.AfterFunc(ctx, p.waits)
			err := t.deps.RunDivert(ctx, *cfg, p.event, log)
			stop()
			p.ended(err)
			if errors.Is(err, client.ErrTimeOver) {
				return nil
			}
			return err
		},
	})
	cmd.Annotations = map[string]string{leafKey: "true"}
	cmd.AddCommand(t.divertList(), t.divertEnd())
	return cmd
}

// quiet is the log's settings, with what goes wrong alone.
func quiet(cfg config.Log) config.Log {
	cfg.LogLevel = config.Warnings()
	return cfg
}

// divertPrinter tells a person, or a program, what a divert does.
type divertPrinter struct {
	cfg      *config.Divert
	out      io.Writer
	now      func() time.Time
	terminal bool
	json     *json.Encoder

	mu          sync.Mutex
	begun       bool
	connections int
	unserved    string // what was said of the target, at
	said        time.Time
	counting    bool // the cursor is behind the count
	over        bool
}

// divertLine is an event for programs.
type divertLine struct {
	Event       string    `json:"event"` // begun, connection, unserved, lost, back, waits or ended
	ID          string    `json:"id,omitempty"`
	Until       time.Time `json:"until,omitzero"`
	Connection  string    `json:"connection,omitempty"`
	Source      string    `json:"source,omitempty"`
	Connections int       `json:"connections,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}

func (p *divertPrinter) event(e client.DivertEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.Begun != nil:
		p.begun = true
		p.say(divertLine{Event: "begun", ID: e.Begun.ID, Until: e.Begun.Until}, "%s goes to %s until %s (%s). Ctrl-C ends it. Its id is %s.",
			p.what(), p.cfg.Target.Spec, e.Begun.Until.Format(time.TimeOnly), p.cfg.For, e.Begun.ID)
	case e.Opened != nil:
		p.connections++
		if p.cfg.JSON() {
			_ = p.json.Encode(divertLine{Event: "connection", Connection: e.Opened.ID, Source: e.Opened.Source.String(), Connections: p.connections})
			return
		}
		if p.terminal {
			fmt.Fprintf(p.out, "\r%s, the last from %s\x1b[K", counted(p.connections), e.Opened.Source)
			p.counting = true
		}
	case e.Unserved != "":
		p.missed(e.Unserved)
	case e.Lost != nil:
		p.say(divertLine{Event: "lost", Reason: e.Lost.Error()}, "The server is out of reach, and visitors go the other ways: %s", e.Lost)
	case e.Back:
		p.say(divertLine{Event: "back"}, "The server is back, and so is the divert.")
	}
}

// sayAgain is when the same failure of the target is told again.
const sayAgain = time.Minute

// missed tells of a connection that the target did not take, if that is news.
func (p *divertPrinter) missed(why string) {
	p.connections--
	if now := p.now(); why != p.unserved || now.Sub(p.said) >= sayAgain {
		p.unserved, p.said = why, now
	} else if !p.cfg.JSON() {
		return
	}
	then := "visitors go on to the entrypoint's own routes"
	if p.cfg.OnDown == "fail" {
		then = "visitors are sent away"
	}
	p.say(divertLine{Event: "unserved", Reason: why, Connections: p.connections}, "%s %s: %s.", p.cfg.Target.Spec, why, then)
}

// say prints a line of its own.
func (p *divertPrinter) say(line divertLine, format string, args ...any) {
	if p.cfg.JSON() {
		_ = p.json.Encode(line)
		return
	}
	if p.counting {
		fmt.Fprintln(p.out)
		p.counting = false
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// endPause is how long an end may take without a word.
const endPause = 300 * time.Millisecond

// waits says, after an interruption, what the command still waits for.
func (p *divertPrinter) waits() {
	time.AfterFunc(endPause, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.begun && !p.over {
			p.say(divertLine{Event: "waits", Connections: p.connections},
				"No new traffic comes. Connections that are open may finish for %s; Ctrl-C again ends them now.", p.cfg.DrainTimeout)
		}
	})
}

// ended prints the end of a divert that had begun; an error is printed as those of all commands.
func (p *divertPrinter) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	reason := "interrupted"
	if err != nil {
		reason = err.Error()
	}
	if p.begun || p.cfg.JSON() {
		p.say(divertLine{Event: "ended", Reason: reason, Connections: p.connections}, "The divert has ended: %s. %s came here.", strings.TrimPrefix(reason, "the server has ended the divert: "), counted(p.connections))
	}
}

func counted(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

// what is the traffic in words.
func (p *divertPrinter) what() string {
	var b strings.Builder
	if p.cfg.Percent < 100 {
		fmt.Fprintf(&b, "%v %% of the new traffic", p.cfg.Percent)
	} else {
		b.WriteString("New traffic")
	}
	fmt.Fprintf(&b, " of entrypoint %s", p.cfg.Entrypoint)
	if len(p.cfg.SNI) > 0 {
		fmt.Fprintf(&b, " for %s", strings.Join(p.cfg.SNI, ", "))
	}
	if len(p.cfg.Source) > 0 {
		fmt.Fprintf(&b, " from %s", strings.Join(p.cfg.Source, ", "))
	}
	return b.String()
}

// divertList lists the diverts of a server.
func (t tree) divertList() *cobra.Command {
	cfg := new(config.DivertList)
	return t.command(leaf{
		use: "list", short: "List diverts: what is diverted on a server, by whom and until when",
		examples: []string{
			"culvert divert list --url wss://203.0.113.7:8123 --token-file token",
			"culvert divert list --url wss://203.0.113.7:8123 --token-file token --output json",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		run: func(ctx context.Context, _ *slog.Logger, _ []string) error {
			body, err := ask(ctx, cfg.Control, question{path: "/api/dataplane", may: "read"})
			if err != nil {
				return err
			}
			var state admin.State
			if err := json.Unmarshal(body, &state); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if cfg.JSON() {
				return writeJSON(t.deps.Stdout, state.Diverts)
			}
			if len(state.Diverts) == 0 {
				_, err = fmt.Fprintln(t.deps.Stderr, "Nothing is diverted.")
				return err
			}
			return admin.PrintDiverts(t.deps.Stdout, state.Diverts, t.deps.Now())
		},
	})
}

// divertEnd ends a divert, whoever runs it.
func (t tree) divertEnd() *cobra.Command {
	cfg := new(config.DivertEnd)
	return t.command(leaf{
		use: "end ID", short: "End a divert: its traffic goes its way again, and who runs it is told",
		examples: []string{
			"culvert divert end 3f9a1c2b --url wss://203.0.113.7:8123 --token-file token",
			"culvert divert end 3f9a1c2b --url wss://tunnel.example.com --token-file token --auto-tls=false",
		},
		settings: config.Describe(cfg, ""), cfg: cfg, log: &cfg.Log,
		args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return errors.New("give the id of one divert, as culvert divert list shows it")
			}
			return nil
		},
		run: func(ctx context.Context, _ *slog.Logger, args []string) error {
			q := question{method: http.MethodDelete, path: "/api/diverts/" + url.PathEscape(args[0]), may: "admin"}
			if _, err := ask(ctx, cfg.Control, q); err != nil {
				return err
			}
			_, err := fmt.Fprintf(t.deps.Stderr, "Ended the divert %s.\n", args[0])
			return err
		},
	})
}
