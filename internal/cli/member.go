package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"culvert/internal/admin"
	"culvert/internal/config"
)

// memberDrain has a member get nothing new, and may see to it that it has nothing left.
func (t tree) memberDrain() *cobra.Command {
	cfg := new(config.MemberDrain)
	settings := config.Describe(cfg, "")
	return t.command(leaf{
		use: "drain UPSTREAM/MEMBER", short: "Drain a member: it gets no new connections, and those that are open go on",
		examples: []string{
			"culvert member drain app/web1 --url wss://203.0.113.7:8123 --token-file token",
			"culvert member drain app/10.0.1.1:23 --wait 5m --close --url wss://203.0.113.7:8123 --token-file token",
		},
		settings: settings, cfg: cfg, log: &cfg.Log,
		args: func(_ *cobra.Command, args []string) error {
			_, err := parseMember(args)
			return err
		},
		complete: t.completeFrom(cfg, &cfg.Control, settings, memberNames),
		run: func(ctx context.Context, _ *slog.Logger, args []string) error {
			m, err := parseMember(args)
			if err != nil {
				return err
			}
			return t.drainMember(ctx, cfg, m)
		},
	})
}

func (t tree) drainMember(ctx context.Context, cfg *config.MemberDrain, m memberName) error {
	if cfg.Wait > 0 { // a token that may not look fails before anything is changed
		if _, err := askUpstreams(ctx, cfg.Control); err != nil {
			return err
		}
	}
	drain := admin.MemberChange{Drain: new(true), Close: cfg.Close && cfg.Wait == 0}
	if err := m.change(ctx, cfg.Control, drain); err != nil {
		return err
	}
	fmt.Fprintf(t.deps.Stderr, "%s gets no new connections.\n", m)
	open, err := m.awaitEmpty(ctx, cfg.Control, cfg.Wait)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("interrupted: %s still gets no new connections, until culvert member ready takes it back", m)
	case err != nil:
		return err
	case cfg.Close && open > 0:
		drain.Close = true
		if err := m.change(ctx, cfg.Control, drain); err != nil {
			return err
		}
		fallthrough
	case cfg.Close && cfg.Wait == 0:
		_, err = fmt.Fprintln(t.deps.Stderr, "Its open connections are ended.")
	case open > 0:
		return fmt.Errorf("%s has %s open after %s: --close would end them", m, counted(open), cfg.Wait)
	case cfg.Wait > 0:
		_, err = fmt.Fprintln(t.deps.Stderr, "It has no open connections.")
	default:
		_, err = fmt.Fprintln(t.deps.Stderr, "Those that are open go on: culvert member list counts them, culvert member ready takes it back.")
	}
	return err
}

// awaitPause is the time between two looks at how many connections a member has.
const awaitPause = 500 * time.Millisecond

// awaitEmpty waits until the member has no open connections, or for so long, and says how many it has; 0 if it does not wait.
func (m memberName) awaitEmpty(ctx context.Context, cfg config.Control, within time.Duration) (open int, err error) {
	if within <= 0 {
		return 0, nil
	}
	over := time.NewTimer(within)
	defer over.Stop()
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	for {
		upstreams, err := askUpstreams(ctx, cfg)
		if err != nil {
			return 0, err
		}
		open = 0
		for _, u := range upstreams {
			for _, one := range u.Members {
				if u.Name == m.upstream && admin.Called(one.Name, m.member) {
					open += one.Open
				}
			}
		}
		if open == 0 {
			return 0, nil
		}
		select {
		case <-tick.C:
		case <-over.C:
			return open, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// memberReady takes a member back that was drained.
func (t tree) memberReady() *cobra.Command {
	return t.memberChange(memberOrder{
		use: "ready UPSTREAM/MEMBER", short: "Take a member back: one that was drained gets new connections again",
		examples: []string{
			"culvert member ready app/web1 --url wss://203.0.113.7:8123 --token-file token",
			"culvert member ready app/10.0.1.1:23 --url wss://tunnel.example.com --token-file token --auto-tls=false",
		},
		parse: func(string) (admin.MemberChange, string, error) {
			return admin.MemberChange{Drain: new(false)}, "%s gets new connections again, as far as its check and its weight let it.", nil
		},
	})
}

// memberWeight gives a member another share.
func (t tree) memberWeight() *cobra.Command {
	return t.memberChange(memberOrder{
		use: "weight UPSTREAM/MEMBER WEIGHT", short: "Give a member another weight: its share relative to the others', 0 for nothing new",
		examples: []string{
			"culvert member weight app/web1 50 --url wss://203.0.113.7:8123 --token-file token",
			"culvert member weight app/web1 0 --url wss://203.0.113.7:8123 --token-file token",
		},
		hasValue: true,
		parse: func(value string) (admin.MemberChange, string, error) {
			weight, err := strconv.Atoi(value)
			if err != nil || weight < 0 || weight > admin.MaxWeight {
				return admin.MemberChange{}, "", fmt.Errorf("%.40q is not a weight: give a number from 0, for no new connections, to %d", value, admin.MaxWeight)
			}
			done := "%s has the weight " + value + "."
			if weight == 0 {
				done += "\nIt gets no new connections, and member list shows it as draining, until it is given another weight."
			}
			return admin.MemberChange{Weight: &weight}, done, nil
		},
	})
}

// memberOrder is a command that changes a member.
type memberOrder struct {
	use, short string
	examples   []string
	hasValue   bool // a word behind the member
	// parse makes a change of the value, and what is said when it is done, of the member.
	parse func(value string) (change admin.MemberChange, done string, err error)
}

func (t tree) memberChange(o memberOrder) *cobra.Command {
	cfg := new(config.Order)
	settings := config.Describe(cfg, "")
	parse := func(args []string) (m memberName, change admin.MemberChange, done string, err error) {
		names, value := args, ""
		if o.hasValue {
			names = args[:max(len(args)-1, 0)]
			value = strings.Join(args[len(names):], "")
		}
		if m, err = parseMember(names); err != nil {
			return m, change, "", err
		}
		change, done, err = o.parse(value)
		return m, change, done, err
	}
	return t.command(leaf{
		use: o.use, short: o.short, examples: o.examples, settings: settings, cfg: cfg, log: &cfg.Log,
		args: func(_ *cobra.Command, args []string) error {
			_, _, _, err := parse(args)
			return err
		},
		complete: t.completeFrom(cfg, &cfg.Control, settings, memberNames),
		run: func(ctx context.Context, _ *slog.Logger, args []string) error {
			m, change, done, err := parse(args)
			if err != nil {
				return err
			}
			if err := m.change(ctx, cfg.Control, change); err != nil {
				return err
			}
			_, err = fmt.Fprintf(t.deps.Stderr, done+"\n", m)
			return err
		},
	})
}

// memberName is a member of an upstream.
type memberName struct{ upstream, member string }

func (m memberName) String() string { return m.upstream + "/" + m.member }

// change asks the server for a change.
func (m memberName) change(ctx context.Context, cfg config.Control, c admin.MemberChange) error {
	path := "/api/upstreams/" + url.PathEscape(m.upstream) + "/members/" + url.PathEscape(m.member)
	_, err := ask(ctx, cfg, question{method: http.MethodPatch, path: path, body: c, may: "admin"})
	return err
}

// parseMember reads UPSTREAM/MEMBER, or both as words of their own.
func parseMember(words []string) (m memberName, err error) {
	switch len(words) {
	case 1:
		m.upstream, m.member = splitMember(words[0])
	case 2:
		m = memberName{words[0], words[1]}
	}
	if m.upstream == "" || m.member == "" {
		err = errors.New("give one member as UPSTREAM/MEMBER, as culvert member list shows them; UPSTREAM MEMBER, in two words, where a name has slashes of its own")
	}
	return m, err
}

// splitMember splits UPSTREAM/MEMBER. The upstream that a tunnel is by itself has a slash: tcp/2222.
func splitMember(s string) (upstream, member string) {
	upstream, member, _ = strings.Cut(s, "/")
	if slices.Contains([]string{"http", "tcp", "udp", "tls", "name"}, upstream) {
		if tunnel, rest, ok := strings.Cut(member, "/"); ok {
			return upstream + "/" + tunnel, rest
		}
	}
	return upstream, member
}

// memberList lists the members of a server.
func (t tree) memberList() *cobra.Command {
	cfg := new(config.Question)
	settings := config.Describe(cfg, "")
	return t.command(leaf{
		use: "list [UPSTREAM]", short: "List members: of all upstreams or one, with their states, weights and connections",
		examples: []string{
			"culvert member list --url wss://203.0.113.7:8123 --token-file token",
			"culvert member list app --url wss://203.0.113.7:8123 --token-file token --output json",
		},
		settings: settings, cfg: cfg, log: &cfg.Log,
		args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errors.New("give one upstream, or none for all of them")
			}
			return nil
		},
		complete: t.completeFrom(cfg, &cfg.Control, settings, upstreamNames),
		run: func(ctx context.Context, _ *slog.Logger, args []string) error {
			upstreams, err := askUpstreams(ctx, cfg.Control)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				names := upstreamNames(upstreams)
				upstreams = slices.DeleteFunc(upstreams, func(u admin.Upstream) bool { return u.Name != args[0] })
				if len(upstreams) == 0 {
					return fmt.Errorf("the server has no upstream %.80q; it has %s", args[0], strings.Join(names, ", "))
				}
			}
			switch {
			case cfg.JSON():
				return writeJSON(t.deps.Stdout, upstreams)
			case len(upstreams) == 0:
				_, err = fmt.Fprintln(t.deps.Stderr, "The server has no upstreams.")
				return err
			}
			return admin.PrintMembers(t.deps.Stdout, upstreams, t.deps.Now())
		},
	})
}

func askUpstreams(ctx context.Context, cfg config.Control) ([]admin.Upstream, error) {
	body, err := ask(ctx, cfg, question{path: "/api/dataplane", may: "read"})
	if err != nil {
		return nil, err
	}
	var state admin.State
	if err := json.Unmarshal(body, &state); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return state.Upstreams, nil
}

func upstreamNames(upstreams []admin.Upstream) (names []string) {
	for _, u := range upstreams {
		names = append(names, u.Name)
	}
	return names
}

// completeTimeout is what a person waits for a completion.
const completeTimeout = 2 * time.Second

// memberNames are all members as UPSTREAM/MEMBER.
func memberNames(upstreams []admin.Upstream) (names []string) {
	for _, u := range upstreams {
		for _, m := range u.Members {
			names = append(names, u.Name+"/"+m.Name)
		}
	}
	return names
}

// completeFrom completes the first argument by asking the server that flags and environment name, if they do.
func (t tree) completeFrom(cfg config.Resolver, control *config.Control, settings *config.Settings, names func([]admin.Upstream) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		if len(args) > 0 || config.Load(cfg, settings, variablePrefix(cmd), t.deps.Environment) != nil {
			return nil, none
		}
		control.Timeout = min(control.Timeout, completeTimeout)
		upstreams, err := askUpstreams(cmd.Context(), *control)
		if err != nil {
			return nil, none
		}
		return slices.DeleteFunc(names(upstreams), func(w string) bool { return !strings.HasPrefix(w, begun) }), none
	}
}
