package control

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/internal/auth"
	"culvert/internal/cidr"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// Divert is live traffic of an entrypoint that a client has for a time. It does not change while it lasts.
type Divert struct {
	ID         string // the client's own; no two diverts have it at a time
	By         string // id of the client's token; "" for the shared one
	ByName     string // its name for people; may be empty
	Client     string // its id and instance
	To         string // where the traffic ends up, in the client's words
	Entrypoint string

	// Which traffic: all that is given must fit.
	Sources []netip.Prefix
	Hosts   []hostname.Pattern
	Percent float64 // of new connections; 100 for all of them

	Fail         bool // visitors fail whom the client does not serve; else they fall through to the other routes
	Existing     Existing
	Begun, Until time.Time
}

// Existing says what becomes of connections and flows that are open when a divert begins or ends.
type Existing string

// What may become of them.
const (
	MoveFlows Existing = ""     // flows of UDP move, since they may never end by themselves; connections stay
	Keep      Existing = "keep" // all stay
	Move      Existing = "move" // flows move; connections are reset, so that their visitors come again
)

const (
	defaultDivert = 30 * time.Minute
	maxDivert     = 24 * time.Hour

	maxDivertSources = 256
	maxDivertHosts   = 64
)

// DivertPublication is a Publication that knows what a divert carries.
type DivertPublication interface {
	Publication
	// Carried is the protocol of the divert's entrypoint, and the number of connections or flows that it has, and has had.
	Carried() (protocol string, open int, total uint64)
}

// LiveDivert is a divert that is there now.
type LiveDivert struct {
	Divert
	Up       bool // false while its client is out of reach
	Protocol string
	Open     int
	Total    uint64
}

// ErrNoDivert means that there is no divert of an id.
var ErrNoDivert = errors.New("no such divert")

// live is a divert of a session, from its first publication to its end. A pause of the session does not end it.
type live struct {
	Divert
	name    tunnel.Name
	session *session
	timer   *time.Timer
	ended   *ending // the session's mu guards it; nil while the divert lasts
}

// ending is why a divert ended.
type ending struct {
	label string // of metrics
	text  string
	tell  bool // the client does not know it yet
	over  bool // nothing is wrong
}

// newDivert reads a client's wish for traffic. The error is for its eyes.
func newDivert(c *session, name tunnel.Name, offer tunnel.Offer) (Divert, error) {
	wish := offer.Divert
	if wish == nil {
		return Divert{}, errors.New("a divert must say what it is to divert")
	}
	d := Divert{
		ID: strings.TrimPrefix(name.String(), string(tunnel.Divert)+"/"), By: c.bearer.ID(), ByName: c.bearer.Name(),
		Client: c.hello.ID + "/" + c.hello.Instance, To: show(offer), Entrypoint: wish.Entrypoint, Percent: cmp.Or(wish.Percent, 100), Fail: wish.Fail, Existing: Existing(wish.Existing),
	}
	for _, s := range wish.Sources {
		p, err := cidr.Parse(s)
		if err != nil {
			return Divert{}, fmt.Errorf("source: %w", err)
		}
		d.Sources = append(d.Sources, p)
	}
	for _, s := range wish.Hosts {
		p, err := hostname.ParsePattern(s)
		if err != nil {
			return Divert{}, err
		}
		d.Hosts = append(d.Hosts, p)
	}
	lasts := cmp.Or(wish.For, defaultDivert)
	switch {
	case d.Entrypoint == "" || len(d.Entrypoint) > maxWords || cut(d.Entrypoint) != d.Entrypoint:
		return Divert{}, errors.New("a divert must name an entrypoint")
	case len(d.Sources) > maxDivertSources:
		return Divert{}, fmt.Errorf("%d sources, at most %d", len(d.Sources), maxDivertSources)
	case len(d.Hosts) > maxDivertHosts:
		return Divert{}, fmt.Errorf("%d hosts, at most %d", len(d.Hosts), maxDivertHosts)
	case !(d.Percent > 0 && d.Percent <= 100): // nor is it NaN
		return Divert{}, fmt.Errorf("%v percent of the connections; give more than 0, at most 100", d.Percent)
	case d.Existing != MoveFlows && d.Existing != Keep && d.Existing != Move:
		return Divert{}, fmt.Errorf("existing connections cannot be %q: keep or move them", cut(wish.Existing))
	case lasts < 0 || lasts > maxDivert:
		return Divert{}, fmt.Errorf("a divert lasts at most %s, not %s", maxDivert, lasts)
	}
	d.Begun = time.Now()
	d.Until = d.Begun.Add(lasts)
	return d, nil
}

// divertOf is the divert that an offer is about: the one from before a pause of the session, or a new one.
func (s *Server) divertOf(c *session, name tunnel.Name, offer tunnel.Offer) (*live, error) {
	c.mu.Lock()
	l := c.diverts[name]
	c.mu.Unlock()
	if l != nil {
		return l, c.stillLasts(l)
	}
	d, err := newDivert(c, name, offer)
	if err != nil {
		return nil, err
	}
	s.diverting.Lock()
	defer s.diverting.Unlock()
	if other := s.diverts[name]; other != nil && other.session.identity() != c.identity() {
		return nil, errors.New("another client has a divert of this id: take another one")
	}
	return &live{Divert: d, name: name, session: c}, nil
}

func (c *session) stillLasts(l *live) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.ended != nil {
		return errors.New(l.ended.text)
	}
	return nil
}

// begun puts a divert down that has been published for the first time. The session's mu is held.
func (s *Server) begun(l *live, from string) {
	c := l.session
	if c.diverts[l.name] != nil { // it is back after a pause
		return
	}
	c.diverts[l.name] = l
	s.diverting.Lock()
	s.diverts[l.name] = l
	s.diverting.Unlock()
	l.timer = time.AfterFunc(time.Until(l.Until), func() {
		s.endDivert(l, ending{label: "time", text: "its time is over", tell: true, over: true})
	})
	s.cfg.Metrics.divertBegun()
	s.cfg.Log.Info("divert begins", append(l.attrs(from), "sources", l.Sources, "hosts", patterns(l.Hosts), "percent", l.Percent,
		"existing", cmp.Or(l.Existing, "move flows, keep connections"), "fail", l.Fail, "until", l.Until.UTC().Format(time.RFC3339))...)
}

// attrs is who diverts what.
func (l *live) attrs(from string) []any {
	return []any{"divert", l.ID, "by", l.session.bearer.String(), "client", l.Client, "from", from, "entrypoint", l.Entrypoint, "to", l.To}
}

func patterns(hosts []hostname.Pattern) []string {
	var list []string
	for _, h := range hosts {
		list = append(list, h.String())
	}
	return list
}

// endDivert ends a divert for good, once.
func (s *Server) endDivert(l *live, why ending) bool {
	c := l.session
	c.mu.Lock()
	if l.ended != nil {
		c.mu.Unlock()
		return false
	}
	l.ended = &why
	began := c.diverts[l.name] == l
	var p Publication
	if i := slices.IndexFunc(c.published, func(p published) bool { return p.name == l.name }); i >= 0 && began {
		p = c.published[i].Publication
		c.published = slices.Delete(c.published, i, i+1)
	}
	if why.tell {
		c.unsaid = append(c.unsaid, tunnel.Ended{Tunnel: l.name.String(), Reason: why.text, Over: why.over})
	}
	c.mu.Unlock()
	defer func() { // when all is done and put down
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}()
	if p != nil {
		p.Withdraw()
	}
	if !began {
		return true
	}
	l.timer.Stop()
	s.diverting.Lock()
	if s.diverts[l.name] == l {
		delete(s.diverts, l.name)
	}
	s.diverting.Unlock()
	s.cfg.Metrics.divertEnded(why.label)
	s.cfg.Log.Info("divert ends", append(l.attrs(c.address()), "reason", why.text, "after", time.Since(l.Begun).Round(time.Second))...)
	return true
}

// endDiverts ends all diverts of a session that goes.
func (s *Server) endDiverts(c *session) {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.diverts))
	c.mu.Unlock()
	for _, l := range all {
		s.endDivert(l, ending{label: "client", text: "its client went away"})
	}
}

// sayEnded tells the client which of its diverts have ended. It is called while the client is within reach, by serve alone.
func (c *session) sayEnded() {
	c.mu.Lock()
	unsaid := c.unsaid
	c.unsaid = nil
	c.mu.Unlock()
	for _, e := range unsaid {
		_ = c.tunnel.End(e) // a client that does not listen loses its session by other means
	}
}

// endForbidden ends the diverts whose credential does not cover them any more.
func (s *Server) endForbidden() {
	for _, l := range s.liveDiverts() {
		if err := l.session.bearer.Permit(auth.Divert(l.Entrypoint)); err != nil {
			s.endDivert(l, ending{label: "token", text: err.Error(), tell: true})
		}
	}
}

func (s *Server) liveDiverts() []*live {
	s.diverting.Lock()
	defer s.diverting.Unlock()
	return slices.SortedFunc(maps.Values(s.diverts), func(a, b *live) int { return cmp.Or(a.Begun.Compare(b.Begun), cmp.Compare(a.ID, b.ID)) })
}

// Diverts are those that are there now, the oldest first.
func (s *Server) Diverts() []LiveDivert {
	var list []LiveDivert
	for _, l := range s.liveDiverts() {
		d := LiveDivert{Divert: l.Divert}
		c := l.session
		c.mu.Lock()
		for _, p := range c.published {
			if p.name != l.name {
				continue
			}
			d.Up = true
			if carrier, ok := p.Publication.(DivertPublication); ok {
				d.Protocol, d.Open, d.Total = carrier.Carried()
			}
		}
		c.mu.Unlock()
		list = append(list, d)
	}
	return list
}

// EndDivert ends a divert on an operator's behalf. The reason is for its client. ErrNoDivert if there is none of the id.
func (s *Server) EndDivert(id, reason string) error {
	s.diverting.Lock()
	l := s.diverts[tunnel.DivertName(id)]
	s.diverting.Unlock()
	if l == nil || !s.endDivert(l, ending{label: "operator", text: reason, tell: true}) {
		return ErrNoDivert
	}
	return nil
}
