package control

import (
	"errors"
	"fmt"

	"culvert/internal/tunnel"
)

// identity tells one installation of a client from all others. The owner is part of it: nobody takes over a client
// of another credential by repeating its names.
type identity struct{ owner, id, instance string }

func (c *session) identity() identity {
	return identity{c.bearer.ID(), c.hello.ID, c.hello.Instance}
}

var errReplaced = errors.New("a newer session of the same client took its place")

// enter makes c the session of its identity and returns the older one, which the caller is to end; or it says why c must
// go away. A newer epoch of an instance fences the older process, a higher counter of one epoch replaces the older
// session.
func (s *Server) enter(c *session) (old *session, refused *tunnel.GoAway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, &tunnel.GoAway{Reason: tunnel.Shutdown, Detail: errStopping.Error()}
	}
	if s.byID[c.tunnel.ID()] != nil { // ids are random, and no secret
		return nil, &tunnel.GoAway{Reason: tunnel.Rejected, Detail: "another session has this id"}
	}
	key := c.identity()
	if old = s.sessions[key]; old != nil {
		if refused := outdated(old.hello, c.hello); refused != nil {
			return nil, refused
		}
		old.log.Info("session gives way to a newer one of the same instance", "by", c.address())
		s.cfg.Metrics.count(old, -1)
	}
	s.sessions[key] = c
	s.byID[c.tunnel.ID()] = c
	if old != nil {
		delete(s.byID, old.tunnel.ID())
	}
	s.cfg.Metrics.count(c, +1)
	if c.hello.Reconnects > 0 {
		s.cfg.Metrics.reconnects.Inc()
	}
	return old, nil
}

// outdated says why a session must not take the place of another of its instance; nil if it may.
func outdated(old, fresh tunnel.Hello) *tunnel.GoAway {
	switch {
	case fresh.Epoch < old.Epoch:
		return &tunnel.GoAway{Reason: tunnel.Fenced, Detail: fmt.Sprintf(
			"a newer process of instance %s is connected: was the state folder copied?", fresh.Instance)}
	case fresh.Epoch == old.Epoch && fresh.Counter <= old.Counter:
		return &tunnel.GoAway{Reason: tunnel.Replaced, Detail: errReplaced.Error()}
	default:
		return nil
	}
}

// evicted is what a session is told that a newer one took the place of.
func evicted(old, fresh tunnel.Hello) tunnel.GoAway {
	if fresh.Epoch > old.Epoch {
		return tunnel.GoAway{Reason: tunnel.Fenced, Detail: "a newer process of this instance has connected"}
	}
	return tunnel.GoAway{Reason: tunnel.Replaced, Detail: errReplaced.Error()}
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.identity()] == c {
		delete(s.sessions, c.identity())
		delete(s.byID, c.tunnel.ID()) // its own: enter refuses another one's
		s.cfg.Metrics.count(c, -1)
	}
}
