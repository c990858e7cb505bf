// Package accesslog keeps a record of each of the newest connections, and writes a line for each that has ended.
//
// What a connection costs here is one record when it opens and one when it closes: no lock that other connections of the
// process take, and no wait for a disk. The ring of records is bounded, and so is what waits to be written: when the disk
// stalls, lines are dropped and counted. Strangers' bytes in a record cannot break a line or steer a terminal.
//
// It knows neither proxies nor upstreams: whoever relays a connection fills in its record.
package accesslog

import (
	"net/netip"
	"strings"
	"time"
)

// Record is one connection, or one flow of datagrams, as it is explained to people. A Record that is in a Log is never changed:
// it is replaced when the connection closes.
type Record struct {
	ID         string
	Begun      time.Time
	Entrypoint string
	Protocol   string // tcp, udp, tls or http
	// Route and Upstream are what was matched; "" if nothing was. Member is who got the connection; "" if nobody did.
	Route, Upstream, Member string

	Source, Destination netip.AddrPort // the visitor, and where it connected to
	Via                 netip.AddrPort // the balancer in front, if one told the source
	Host                string         // the name in the ClientHello
	Hops                []string       // nodes on the way to the member, in order

	// Candidates are the members and what spoke for or against each when one was chosen. They are kept where a choice needs an
	// explanation: after a try that failed, or when nobody got the connection.
	Candidates []Candidate
	Tries      []Try // the failed ones, in order

	Queued   time.Duration // spent waiting for a member to come, or to have room
	Connect  time.Duration // from the choice of the member to its answer
	Duration time.Duration // from Begun to the end; 0 while it is open
	In, Out  int64         // bytes from and to the visitor; 0 while it is open

	// ClosedBy is who ended the connection first; "" while it is open. Why says it in words: "closed", "reset", "idle for 1m0s".
	ClosedBy Party
	Why      string
}

// Party is one side of a connection.
type Party string

// The parties that can end a connection.
const (
	Visitor Party = "visitor"
	Member  Party = "member"
	Server  Party = "server" // this process: nobody to connect to, a time-out, an operator
)

// Candidate is a member that could have been chosen.
type Candidate struct {
	Member string `json:"member"`
	State  string `json:"state"` // "up", "ejected for 8s more: refused", "3 of 3 connections", …
}

// Try is an attempt at a member that failed; or an upstream, in place of the member, that had none to try.
type Try struct {
	Member string        `json:"member"`
	Reason string        `json:"reason"`
	Took   time.Duration `json:"-"`               // for an upstream, what was waited there
	Route  string        `json:"route,omitempty"` // by which it was tried, if that is another one than the record's
}

// Words says what was tried, with the time that it took in words.
func (t Try) Words(took string) string {
	s := t.Member + ": " + t.Reason
	if t.Took > 0 {
		s += " after " + took
	}
	if t.Route != "" && t.Route != t.Member {
		s += ", by route " + t.Route
	}
	return s
}

// Open says whether the connection has not ended.
func (r *Record) Open() bool { return r.ClosedBy == "" }

// Limits of what one record holds, which is in part strangers' own choice.
const (
	maxText = 256
	maxList = 16
)

// bound cuts what is too long to be kept.
func (r *Record) bound() {
	for _, s := range []*string{&r.ID, &r.Entrypoint, &r.Protocol, &r.Route, &r.Upstream, &r.Member, &r.Host, &r.Why} {
		*s = cut(*s)
	}
	r.Hops = r.Hops[:min(len(r.Hops), maxList)]
	r.Candidates = r.Candidates[:min(len(r.Candidates), maxList)]
	r.Tries = r.Tries[:min(len(r.Tries), maxList)]
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.Clone(s[:maxText]) // not a part of it, which would keep the whole
}
