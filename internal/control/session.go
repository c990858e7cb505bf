package control

import (
	"log/slog"
	"sync"
	"time"

	"culvert/internal/auth"
	"culvert/internal/tunnel"
)

// session is one client's session, after its hello was accepted.
type session struct {
	tunnel *tunnel.Session
	hello  tunnel.Hello
	bearer *auth.Bearer
	remote string
	since  time.Time
	log    *slog.Logger

	paused bool // it has no link; serve's alone

	mu        sync.Mutex
	ending    bool // it has been told, or is being told
	withdrawn bool
	published []published
}

// published is an offer that was accepted.
type published struct {
	name     tunnel.Name
	upstream string // as the client shows it
	Publication
}

// serve returns when the session has ended. While it has no link, its tunnels are withdrawn.
func (c *session) serve(s *Server) {
	for {
		select {
		case g := <-c.tunnel.GoneAway():
			c.log.Info("client is going away", "reason", g.Reason)
			c.withdraw()
		case <-c.tunnel.Changed():
			c.follow(s)
		case <-c.tunnel.Done():
			return
		}
	}
}

// follow withdraws the client's tunnels when its last link is lost, and publishes them again when it is back.
func (c *session) follow(s *Server) {
	live := c.tunnel.Live() > 0
	switch {
	case !live && !c.paused:
		c.paused = true
		c.log.Info("client is out of reach; its connections wait for it")
		c.retract()
	case live && c.paused:
		c.paused = false
		if c.isWithdrawn() {
			return
		}
		for _, a := range s.publish(c) {
			if a.Refused != "" { // another client may have taken its place
				c.log.Warn("tunnel is not up any more", "tunnel", a.Tunnel, "reason", a.Refused)
			}
		}
		c.log.Info("client is back")
	}
}

// retract takes the members out of their upstreams; publish may put them back.
func (c *session) retract() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.published {
		p.Withdraw()
	}
	c.published = nil
}

func (c *session) isWithdrawn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.withdrawn
}

// withdraw takes the client's members out of their upstreams, once. Open streams go on.
func (c *session) withdraw() {
	c.mu.Lock()
	c.withdrawn = true
	c.mu.Unlock()
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

func (c *session) upstreams() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]string, len(c.published))
	for i, p := range c.published {
		list[i] = p.upstream
	}
	return list
}

func (c *session) info() Client {
	stats := c.tunnel.Stats()
	info := Client{
		ID: c.hello.ID, Instance: c.hello.Instance, RemoteAddr: c.remote, Since: c.since, Labels: c.hello.Labels,
		Upstreams: c.upstreams(), RTT: stats.RTT(), Links: len(stats.Links), Resumes: stats.Resumes, Reconnects: c.hello.Reconnects,
		Streams: max(0, stats.Streams-1), // without the control stream
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.published {
		info.Tunnels = append(info.Tunnels, Tunnel{p.name.String(), p.Address()})
	}
	return info
}
