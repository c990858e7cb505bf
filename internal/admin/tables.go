package admin

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"culvert/internal/auth"
)

// PrintDiverts writes one line for each divert, for a person to read.
func PrintDiverts(w io.Writer, diverts []Divert, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "Divert\tEntrypoint\tTraffic\tTo\tBy\tTime Left\tOpen\tTotal\n")
	for _, d := range diverts {
		left := short(max(d.Until.Sub(now), 0))
		if !d.Up {
			left += " (client away)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", plain(d.ID), plain(d.Entrypoint), plain(traffic(d)), plain(d.To),
			plain(byWhom(d)), left, d.Open, d.Total)
	}
	return t.Flush()
}

// byWhom is the client without its instance, and the token.
func byWhom(d Divert) string {
	client, _, _ := strings.Cut(d.Client, "/")
	return client + ", " + auth.Whose(d.By, d.ByName)
}

// traffic is what a divert takes.
func traffic(d Divert) string {
	var parts []string
	if d.Percent > 0 {
		parts = append(parts, strconv.FormatFloat(d.Percent, 'g', -1, 64)+" %")
	}
	if len(d.Sources) > 0 {
		parts = append(parts, "from "+strings.Join(d.Sources, ", "))
	}
	if len(d.Hosts) > 0 {
		parts = append(parts, "for "+strings.Join(d.Hosts, ", "))
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, " ")
}

// printPlane writes the tables of a status for entrypoints, members and diverts, as far as there are any.
func printPlane(b *strings.Builder, s Status, now time.Time) {
	if len(s.Entrypoints) > 0 {
		b.WriteByte('\n')
		printEntrypoints(b, s.Entrypoints)
	}
	if len(s.Upstreams) > 0 {
		b.WriteByte('\n')
		_ = PrintMembers(b, s.Upstreams, now) // to memory
	}
	if len(s.Diverts) > 0 {
		b.WriteByte('\n')
		_ = PrintDiverts(b, s.Diverts, now)
	}
}

func printEntrypoints(b *strings.Builder, entrypoints []Entrypoint) {
	t := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "Entrypoint\tProtocol\tAddress\tState\tOpen\tTotal\tRoutes\n")
	for _, e := range entrypoints {
		state := "open"
		if !e.Listening {
			state = "closed: " + cmp.Or(e.Reason, "no member is usable") // servers of before give no reason
		}
		var routes []string
		for _, r := range e.Routes {
			routes = append(routes, r.Name)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", plain(e.Name), plain(e.Protocol), plain(e.Address), plain(state), e.Open, e.Total, word(strings.Join(routes, ", ")))
	}
	_ = t.Flush() // to memory
}

// PrintMembers writes one line for each member of upstreams, for a person to read.
func PrintMembers(w io.Writer, upstreams []Upstream, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "Upstream\tMember\tState\tWeight\tOpen\tTotal\tFailed\tLast Error\n")
	for _, u := range upstreams {
		if len(u.Members) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t-\t-\n", plain(u.Name)) // a short line would end the columns
		}
		for _, m := range u.Members {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", plain(u.Name), plain(brief(m.Name)), plain(stateOf(m, now)), weightOf(m), openOf(m), m.Total, m.Failed, lastError(m, now))
		}
	}
	gap := "\n"
	for _, u := range upstreams {
		if u.Queued > 0 {
			fmt.Fprintf(t, "%s%s for a member of %s with room.\n", gap, wait(u.Queued), plain(u.Name))
			gap = ""
		}
	}
	return t.Flush()
}

func wait(n int) string {
	if n == 1 {
		return "1 visitor waits"
	}
	return strconv.Itoa(n) + " visitors wait"
}

func stateOf(m Member, now time.Time) string {
	state := string(m.State)
	switch {
	case m.State == MemberEjected && m.EjectedUntil.After(now):
		state += ", tried again in " + short(m.EjectedUntil.Sub(now))
	case !m.Since.IsZero():
		state += " for " + ago(m.Since, now)
	}
	if m.Check == CheckDown && m.State != MemberDown {
		state += ", down by its check"
	}
	return state
}

func openOf(m Member) string {
	if m.MaxConns > 0 {
		return fmt.Sprintf("%d of %d", m.Open, m.MaxConns)
	}
	return strconv.Itoa(m.Open)
}

func lastError(m Member, now time.Time) string {
	if m.LastError == "" || m.LastErrorAt.IsZero() {
		return word(m.LastError)
	}
	return ago(m.LastErrorAt, now) + " ago: " + plain(m.LastError)
}

func weightOf(m Member) string {
	if m.Backup {
		return strconv.Itoa(m.Weight) + " (backup)"
	}
	return strconv.Itoa(m.Weight)
}
