package proxy

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"culvert/internal/accesslog"
	"culvert/internal/upstream"
)

// record is what is known of a connection when it opens.
func (p *passage) record() accesslog.Record {
	r := accesslog.Record{
		ID: p.visit.ID, Begun: p.start, Entrypoint: p.settings.Name, Protocol: p.settings.Kind,
		Source: p.visit.Source, Destination: p.visit.Destination, Via: p.via, Host: p.visit.Host,
		Queued: p.dialed.Queued, Connect: p.dialed.Connect,
	}
	if p.target != nil {
		r.Route, r.Upstream = p.route.Name, p.target.Upstream.Name()
	}
	if p.dialed.Place != nil {
		r.Member = p.member()
	}
	if len(p.dialed.Tries) > 0 {
		r.Tries, r.Candidates = tries(p.dialed.Tries, r.Route), p.candidates()
	}
	return r
}

// recordEnd completes the record of a connection that had a member.
func (p *passage) recordEnd() {
	if p.entry == nil {
		return
	}
	p.entry.Closed(func(r *accesslog.Record) {
		r.Duration = time.Since(p.start)
		r.In, r.Out = p.in.bytes, p.out.bytes
		r.ClosedBy, r.Why = p.ending()
	})
}

// recordFailure is the record of a visitor that got no service.
func (p *passage) recordFailure(err error) {
	if p.tcp.cfg.Records == nil {
		return
	}
	r := p.record()
	r.Candidates = p.candidates()
	p.tcp.cfg.Records.Opened(r).Closed(func(r *accesslog.Record) {
		r.Duration = time.Since(p.start)
		r.ClosedBy, r.Why = accesslog.Server, "no connection: "+string(upstream.ReasonOf(err))
		if upstream.ReasonOf(err) == upstream.Canceled {
			r.ClosedBy, r.Why = accesslog.Visitor, "left before there was a connection"
		}
	})
}

// tries is what failed, for the record of a visitor whom route took in the end.
func tries(failed []upstream.Try, route string) []accesslog.Try {
	list := make([]accesslog.Try, len(failed))
	for i, t := range failed {
		list[i] = accesslog.Try{Member: t.Member, Reason: string(t.Reason), Took: t.Took}
		if t.Route != route {
			list[i].Route = t.Route
		}
	}
	return list
}

// candidates says of each member of the upstream how it is now. It is asked only where a choice needs an explanation.
func (p *passage) candidates() []accesslog.Candidate {
	if p.target == nil {
		return nil
	}
	var list []accesslog.Candidate
	for _, s := range p.target.Upstream.Places() {
		list = append(list, accesslog.Candidate{Member: s.Name, State: standing(s)})
	}
	return list
}

// standing says in words what spoke for or against a member.
func standing(s upstream.PlaceState) string {
	var words []string
	add := func(yes bool, text string, args ...any) {
		if yes {
			words = append(words, fmt.Sprintf(text, args...))
		}
	}
	add(s.Down, "down: %s", s.LastError)
	add(s.Draining, "draining")
	add(!s.Usable && !s.Down && !s.Draining, "out of reach")
	add(s.EjectedUntil.After(time.Now()), "ejected for %s more: %s", time.Until(s.EjectedUntil).Round(time.Second), s.LastError)
	add(s.Suspect, "owes an answer")
	add(s.Backup, "backup")
	add(s.MaxConns > 0 && s.Open >= s.MaxConns, "full")
	if len(words) == 0 {
		words = append(words, "up")
	}
	return fmt.Sprintf("%s, weight %d, %d open", strings.Join(words, ", "), s.Weight, s.Open)
}

// ending says who ended the connection first, and why.
func (p *passage) ending() (by accesslog.Party, why string) {
	first, err := p.firstEnd()
	switch first {
	case endVisitor:
		by = accesslog.Visitor
	case endService:
		by = accesslog.Member
	default:
		by = accesslog.Server
	}
	switch {
	case err == nil:
		return by, "closed"
	case by == accesslog.Server:
		return by, err.Error()
	case errors.Is(err, syscall.ECONNRESET):
		return by, "reset"
	default:
		return by, fmt.Sprint("broke off: ", err)
	}
}
