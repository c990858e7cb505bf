package accesslog

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// wire is a Record as JSON has it, in the API and in the log. Times are in milliseconds.
type wire struct {
	ID            string         `json:"id"`
	Begun         time.Time      `json:"begun"`
	Entrypoint    string         `json:"entrypoint"`
	Protocol      string         `json:"protocol"`
	Source        netip.AddrPort `json:"source,omitzero"`
	Destination   netip.AddrPort `json:"destination,omitzero"`
	Via           netip.AddrPort `json:"via,omitzero"`
	Host          string         `json:"host,omitempty"`
	Route         string         `json:"route,omitempty"`
	Upstream      string         `json:"upstream,omitempty"`
	Member        string         `json:"member,omitempty"`
	Hops          []string       `json:"hops,omitempty"`
	Candidates    []Candidate    `json:"candidates,omitempty"`
	Tries         []wireTry      `json:"tries,omitempty"`
	QueuedMillis  float64        `json:"queuedMillis"`
	ConnectMillis float64        `json:"connectMillis"`
	Open          bool           `json:"open"`
	Millis        float64        `json:"durationMillis"`
	BytesIn       int64          `json:"bytesIn"`
	BytesOut      int64          `json:"bytesOut"`
	ClosedBy      Party          `json:"closedBy,omitempty"`
	Why           string         `json:"why,omitempty"`
}

type wireTry struct {
	Try
	Millis float64 `json:"millis"`
}

// MarshalJSON writes the record as the API and the JSON log have it.
func (r Record) MarshalJSON() ([]byte, error) {
	w := wire{
		ID: r.ID, Begun: r.Begun, Entrypoint: r.Entrypoint, Protocol: r.Protocol, Source: r.Source, Destination: r.Destination, Via: r.Via,
		Host: r.Host, Route: r.Route, Upstream: r.Upstream, Member: r.Member, Hops: r.Hops, Candidates: r.Candidates,
		QueuedMillis: millis(r.Queued), ConnectMillis: millis(r.Connect), Open: r.Open(), Millis: millis(r.Duration),
		BytesIn: r.In, BytesOut: r.Out, ClosedBy: r.ClosedBy, Why: r.Why,
	}
	for _, t := range r.Tries {
		w.Tries = append(w.Tries, wireTry{t, millis(t.Took)})
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Record) UnmarshalJSON(p []byte) error {
	var w wire
	if err := json.Unmarshal(p, &w); err != nil {
		return err
	}
	*r = Record{
		ID: w.ID, Begun: w.Begun, Entrypoint: w.Entrypoint, Protocol: w.Protocol, Source: w.Source, Destination: w.Destination, Via: w.Via,
		Host: w.Host, Route: w.Route, Upstream: w.Upstream, Member: w.Member, Hops: w.Hops, Candidates: w.Candidates,
		Queued: fromMillis(w.QueuedMillis), Connect: fromMillis(w.ConnectMillis), Duration: fromMillis(w.Millis),
		In: w.BytesIn, Out: w.BytesOut, ClosedBy: w.ClosedBy, Why: w.Why,
	}
	for _, t := range w.Tries {
		t.Try.Took = fromMillis(t.Millis)
		r.Tries = append(r.Tries, t.Try)
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func fromMillis(ms float64) time.Duration {
	return time.Duration(ms*1000+0.5) * time.Microsecond
}

// appendJSON appends the record's line of the JSON log.
func appendJSON(p []byte, r *Record) []byte {
	line, err := json.Marshal(r)
	if err != nil {
		return p // of nothing in a Record
	}
	return append(append(p, line...), '\n')
}

// appendText appends the record's line of the text log: key=value, always in this order, without what is empty.
func appendText(p []byte, r *Record) []byte {
	p = r.Begun.UTC().AppendFormat(p, "2006-01-02T15:04:05.000000Z")
	l := line{p}
	l.text("conn", r.ID)
	l.text("entrypoint", r.Entrypoint)
	l.text("protocol", r.Protocol)
	l.address("source", r.Source)
	l.address("destination", r.Destination)
	l.address("via", r.Via)
	l.text("host", r.Host)
	l.text("route", r.Route)
	l.text("upstream", r.Upstream)
	l.text("member", r.Member)
	for _, hop := range r.Hops {
		l.text("hop", hop)
	}
	for _, t := range r.Tries {
		l.text("tried", t.Words(t.Took.Round(time.Microsecond).String()))
	}
	for _, c := range r.Candidates {
		l.text("candidate", c.Member+": "+c.State)
	}
	l.seconds("queued", r.Queued)
	l.seconds("connect", r.Connect)
	l.seconds("duration", r.Duration)
	l.number("in", r.In)
	l.number("out", r.Out)
	l.text("closed_by", string(r.ClosedBy))
	l.text("why", r.Why)
	return append(l.p, '\n')
}

type line struct{ p []byte }

func (l *line) key(key string) { l.p = append(append(append(l.p, ' '), key...), '=') }

func (l *line) text(key, value string) {
	if value == "" {
		return
	}
	l.key(key)
	if plain(value) {
		l.p = append(l.p, value...)
		return
	}
	l.p = strconv.AppendQuote(l.p, value)
}

// plain says whether a value can stand without quotes, and could not be taken for more than one.
func plain(s string) bool {
	for _, r := range s {
		if r <= ' ' || r == '"' || r == '=' || r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (l *line) address(key string, a netip.AddrPort) {
	if a.IsValid() {
		l.key(key)
		l.p = a.AppendTo(l.p)
	}
}

// seconds is exact to the microsecond.
func (l *line) seconds(key string, d time.Duration) {
	l.key(key)
	l.p = strconv.AppendFloat(l.p, d.Seconds(), 'f', 6, 64)
}

func (l *line) number(key string, n int64) {
	l.key(key)
	l.p = strconv.AppendInt(l.p, n, 10)
}
