package admin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Print writes the status for a person to read. Characters of the clients' own choosing that could steer a terminal are
// shown as '?'.
func Print(w io.Writer, s Status, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Hostname: %s\n", plain(s.Info.Hostname))
	fmt.Fprintf(&b, "Started: %s\n", ago(s.Info.StartTime, now))
	fmt.Fprintf(&b, "Mode: %s\n", plain(s.Info.Mode))
	fmt.Fprintf(&b, "Version:        %s\n", plain(s.Info.Version))
	if len(s.Clients) > 0 || s.Info.Mode != modeLB {
		printClients(&b, s.Clients, now)
	}
	printPlane(&b, s, now)
	_, err := io.WriteString(w, b.String())
	return err
}

// modeLB is that of a load balancer, which most often has no clients ever.
const modeLB = "lb"

func printClients(b *strings.Builder, clients []Client, now time.Time) {
	t := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "\nClient ID\tRemote Address\tConnected\tUpstreams\n")
	for _, c := range clients {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", plain(c.ClientID), plain(c.RemoteAddr), ago(c.Since, now), plain(strings.Join(c.Upstreams, ", ")))
	}
	_ = t.Flush() // to memory
	if len(clients) > 0 {
		fmt.Fprint(t, "\nClient ID\tRound Trip\tLinks\tResumes\tConnections\n")
	}
	for _, c := range clients {
		fmt.Fprintf(t, "%s\t%.1f ms\t%d\t%d\t%d\n", plain(c.ClientID), c.RTTMillis, c.Links, c.Resumes, c.Streams)
	}
	_ = t.Flush()
	head := "\nClient ID\tDown by Its Check\tLast Error\n"
	for _, c := range clients {
		for _, tun := range c.Tunnels {
			if tun.Down != "" {
				fmt.Fprintf(t, "%s%s\t%s\t%s\n", head, plain(c.ClientID), plain(tun.Name), plain(tun.Down))
				head = ""
			}
		}
	}
	_ = t.Flush()
}

// ago is how long ago something was, in the largest unit of which there is one: "49 minutes", "1 day".
func ago(then, now time.Time) string {
	d := max(now.Sub(then), 0)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return count(int(d/day), "day")
	case d >= time.Hour:
		return count(int(d/time.Hour), "hour")
	case d >= time.Minute:
		return count(int(d/time.Minute), "minute")
	default:
		return count(int(d/time.Second), "second")
	}
}

func count(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return strconv.Itoa(n) + " " + unit
}

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
