package control

import (
	"cmp"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"culvert/internal/auth"
	"culvert/internal/tunnel"
)

// session is one client's session, after its hello was accepted.
type session struct {
	tunnel *tunnel.Session
	hello  tunnel.Hello
	bearer *auth.Bearer
	since  time.Time
	log    *slog.Logger

	away    int            // seconds out of reach while the server goes down; Run's alone
	paused  bool           // it has no link; serve's alone, as is missing
	missing []tunnel.Offer // that were up before a pause and are not yet again
	wake    chan struct{}  // there is something unsaid
	moved   atomic.Bool    // the server goes down, and the client has a session elsewhere

	mu        sync.Mutex
	remote    string // of the newest link
	ending    bool   // it has been told, or is being told
	withdrawn bool
	published []published
	diverts   map[tunnel.Name]*live
	unsaid    []tunnel.Ended // that the client is to be told
}

// published is an offer that was accepted.
type published struct {
	name   tunnel.Name
	offer  tunnel.Offer
	member *member
	Publication
}

// republishPause is the time between attempts to put a tunnel up again that was up before a pause.
const republishPause = 2 * time.Second

// serve returns when the session has ended. While it has no link, its tunnels are withdrawn.
func (c *session) serve(s *Server) {
	var again <-chan time.Time
	for {
		if again == nil && len(c.missing) > 0 && !c.paused {
			again = time.After(republishPause)
		}
		select {
		case <-again:
			again = nil
			if !c.paused {
				c.republish(s)
			}
		case g := <-c.tunnel.GoneAway():
			c.log.Info("client is going away", "reason", g.Reason)
			if g.Reason == tunnel.Moved && s.goesDown() { // until the visitors come no more, the client still serves them
				c.moved.Store(true)
				continue
			}
			s.withdraw(c)
		case <-c.wake:
			if !c.paused {
				c.sayEnded()
			}
		case h := <-c.tunnel.HealthChanged():
			c.healthChanged(h)
		case <-c.tunnel.Changed():
			c.follow(s)
		case <-c.tunnel.Done():
			return
		}
	}
}

// healthChanged takes the client's word on one of its services. It is kept with the offer, so that the tunnel is as it was
// when it is published again after a pause.
func (c *session) healthChanged(h tunnel.Health) {
	down := ""
	if !h.Up {
		down = cmp.Or(cut(h.Error), "the check of the service fails")
	}
	for i := range c.missing {
		if c.missing[i].Tunnel == h.Tunnel {
			c.missing[i].Down = down
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.published {
		if p := &c.published[i]; p.offer.Tunnel == h.Tunnel && p.offer.Down != down {
			p.setDown(down, c.log)
		}
	}
}

// setDown marks the service as down for the given reason, or as up if that is empty.
func (p *published) setDown(down string, log *slog.Logger) {
	was := p.offer.Down
	p.offer.Down = down
	p.member.down.Store(down != "")
	var cause error
	switch {
	case down != "":
		cause = errors.New(down)
		if was == "" {
			log.Warn("service is down, says the client's check", "tunnel", p.name, "reason", down)
		}
	default:
		log.Info("service is up, says the client's check", "tunnel", p.name)
	}
	if h, ok := p.Publication.(HealthPublication); ok {
		h.Health(down == "", cause)
	}
}

// maxWords is how much of a client's words is shown.
const maxWords = 256

// cut keeps a client's words fit for a log: a line of printable text.
func cut(s string) string {
	clean := func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}
	return strings.Map(clean, strings.ToValidUTF8(s[:min(len(s), maxWords)], ""))
}

// follow withdraws the client's tunnels when its last link is lost, and publishes them again when it is back.
func (c *session) follow(s *Server) {
	live := c.tunnel.Live() > 0
	switch {
	case c.tunnel.Err() != nil: // serve sees to that
	case !live && !c.paused:
		c.paused = true
		c.log.Info("client is out of reach; its connections wait for it")
		c.missing = append(c.missing, c.retract()...)
	case live && c.paused:
		c.paused = false
		c.log.Info("client is back")
		c.sayEnded()
		c.republish(s)
	}
}

// republish puts up again what was up before a pause. What cannot be, because its port is taken for the moment, is tried
// again.
func (c *session) republish(s *Server) {
	if c.isWithdrawn() {
		c.missing = nil
		return
	}
	offers := c.missing
	c.missing = nil
	for i, a := range s.publish(c, offers) {
		if a.Refused != "" && !c.hasEnded(offers[i]) {
			c.missing = append(c.missing, offers[i])
		}
	}
}

// hasEnded says whether the offer is a divert that is over.
func (c *session) hasEnded(offer tunnel.Offer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.diverts {
		if l.name.String() == offer.Tunnel {
			return l.ended != nil
		}
	}
	return false
}

// retract takes the members out of their upstreams, and gives the offers that they stood for.
func (c *session) retract() (offers []tunnel.Offer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.published {
		p.Withdraw()
		offers = append(offers, p.offer)
	}
	c.published = nil
	return offers
}

func (c *session) isWithdrawn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.withdrawn
}

// address is where the client's newest link comes from.
func (c *session) address() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remote
}

func (c *session) movedTo(remote string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remote = remote
}

// withdraw takes the client's members out of their upstreams, once. Open streams go on.
func (s *Server) withdraw(c *session) {
	c.mu.Lock()
	c.withdrawn = true
	c.mu.Unlock()
	s.endDiverts(c)
	c.retract()
}

// ends says whether the caller is the first to end the session.
func (c *session) ends() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.ending
	c.ending = true
	return first
}
