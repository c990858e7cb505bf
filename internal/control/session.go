package control

import (
	"context"
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

// serve returns when the session has ended.
func (c *session) serve() {
	var refusing sync.WaitGroup
	refusing.Go(c.refuseStreams)
	defer refusing.Wait()
	for {
		select {
		case g := <-c.tunnel.GoneAway():
			c.log.Info("client is going away", "reason", g.Reason)
			c.withdraw()
		case <-c.tunnel.Done():
			return
		}
	}
}

// refuseStreams answers what only a broken or hostile client does: this server offers clients nothing to open.
func (c *session) refuseStreams() {
	for {
		st, err := c.tunnel.Accept(context.Background()) // ends with the session
		if err != nil {
			return
		}
		_ = st.Refuse(uint8(tunnel.NotAllowed), "this server opens nothing for clients")
	}
}

// withdraw takes the client's members out of their upstreams, once. Open streams go on.
func (c *session) withdraw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withdrawn = true
	for _, p := range c.published {
		p.Withdraw()
	}
	c.published = nil
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
	info := Client{
		ID: c.hello.ID, Instance: c.hello.Instance, RemoteAddr: c.remote, Since: c.since, Labels: c.hello.Labels,
		Upstreams: c.upstreams(), RTT: c.tunnel.RTT(), Reconnects: c.hello.Reconnects,
		Streams: max(0, c.tunnel.Streams()-1), // without the control stream
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.published {
		info.Tunnels = append(info.Tunnels, Tunnel{p.name.String(), p.Address()})
	}
	return info
}
