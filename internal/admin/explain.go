package admin

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"culvert/internal/accesslog"
)

// Explain writes why a connection went where it went, for a person to read.
func Explain(w io.Writer, r accesslog.Record, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Connection %s, %s ago\n\n", plain(r.ID), ago(r.Begun, now))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	step := func(what, format string, args ...any) {
		fmt.Fprintf(t, "  %s\t%s\n", what, plain(fmt.Sprintf(format, args...)))
	}
	step("begun", "%s", r.Begun.Format("2006-01-02 15:04:05.000 MST"))
	step("visitor", "%s", addressOr(r.Source, "unknown"))
	if r.Via.IsValid() {
		step("through", "%s, which said who the visitor is", r.Via)
	}
	step("entrypoint", "%s (%s)%s", r.Entrypoint, r.Protocol, at(r.Destination))
	if r.Host != "" {
		step("asked for", "%s", r.Host)
	}
	switch route := cmp.Or(r.Route, "(unnamed)"); {
	case r.Route == "" && r.Upstream == "":
		step("route", "none: nothing matched")
	case len(r.Tries) > 0 && r.Tries[0].Route != "":
		step("route", "%s, the first that matched and did not fall back, to upstream %s", route, r.Upstream)
	default:
		step("route", "%s, the first that matched, to upstream %s", route, r.Upstream)
	}
	for _, c := range r.Candidates {
		step("candidate", "%s: %s", c.Member, c.State)
	}
	for _, try := range r.Tries {
		step("tried", "%s", try.Words(short(try.Took)))
	}
	if r.Queued > 0 {
		step("waited", "%s for a member with room", short(r.Queued))
	}
	switch {
	case r.Member != "":
		step("given to", "%s, which answered after %s", r.Member, short(r.Connect))
	case !r.Open():
		step("given to", "nobody")
	}
	if len(r.Hops) > 0 {
		step("by way of", "%s", strings.Join(r.Hops, ", "))
	}
	if r.Open() {
		step("state", "open for %s", short(now.Sub(r.Begun)))
	} else {
		step("ended", "by the %s after %s: %s", r.ClosedBy, short(r.Duration), cmp.Or(r.Why, "closed"))
		step("bytes", "%d from the visitor, %d to it", r.In, r.Out)
	}
	_ = t.Flush() // to memory
	_, err := io.WriteString(w, b.String())
	return err
}

func at(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return " on " + a.String()
}

func addressOr(a netip.AddrPort, otherwise string) string {
	if !a.IsValid() {
		return otherwise
	}
	return a.String()
}

// short is a duration with as many digits as tell something.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

// PrintConnections writes one line for each connection, for a person to read.
func PrintConnections(w io.Writer, records []accesslog.Record, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "Connection\tBegun\tEntrypoint\tVisitor\tRoute\tMember\tTries\tIn\tOut\tState\n")
	for _, r := range records {
		state := "open"
		if !r.Open() {
			state = fmt.Sprintf("ended by the %s after %s: %s", r.ClosedBy, short(r.Duration), cmp.Or(r.Why, "closed"))
		}
		fmt.Fprintf(t, "%s\t%s ago\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", plain(r.ID), ago(r.Begun, now), plain(r.Entrypoint), addressOr(r.Source, "-"),
			word(r.Route), word(brief(r.Member)), len(r.Tries), r.In, r.Out, plain(state))
	}
	return t.Flush()
}

// enough of a name that nobody has chosen tells it from others.
const enough = 8

// Called says whether an operator who types a name may mean a member: by its name, or a client by its id, with or without its
// instance, of which the first digits do.
func Called(member, typed string) bool {
	if member == typed {
		return true
	}
	names, parts := strings.Split(member, "/"), strings.Split(typed, "/")
	if len(names) != 2 || strings.Contains(member, ":") || len(parts) > len(names) {
		return false // an address
	}
	for i, part := range parts {
		if part != names[i] && (len(part) < enough || !strings.HasPrefix(names[i], part)) {
			return false
		}
	}
	return true
}

// brief is a member's name in which what nobody has chosen, as the id of a client that was given none, is cut to what tells it
// from others. Called knows it.
func brief(name string) string {
	const generated = 32
	parts := strings.Split(name, "/")
	for i, p := range parts {
		if len(p) == generated && strings.Trim(p, "0123456789abcdef") == "" {
			parts[i] = p[:enough]
		}
	}
	return strings.Join(parts, "/")
}

func word(s string) string { return cmp.Or(plain(s), "-") }
