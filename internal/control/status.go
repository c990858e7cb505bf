package control

import (
	"slices"
	"time"

	"culvert/internal/tunnel"
)

// Client is what is known of a connected client.
type Client struct {
	ID, Instance, RemoteAddr string
	Since                    time.Time
	Labels                   map[string]string
	Upstreams                []string // in the form of the status command
	Tunnels                  []Tunnel
	RTT                      time.Duration
	Links                    int // 0: out of reach, and its connections wait
	Streams                  int
	Resumes                  int64 // losses of links that its connections have survived
	Reconnects               uint64
}

// Tunnel is one tunnel of a client, with the address for visitors.
type Tunnel struct {
	Name, Address string
	Down          string // why the client's check says that its service is down; "" if it does not
}

// Clients lists the connected clients, the oldest session first.
func (s *Server) Clients() []Client {
	var clients []Client
	for _, c := range s.list() {
		clients = append(clients, c.info())
	}
	slices.SortFunc(clients, func(a, b Client) int { return a.Since.Compare(b.Since) })
	return clients
}

func (c *session) upstreams() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]string, len(c.published))
	for i, p := range c.published {
		list[i] = show(p.offer)
	}
	return list
}

func (c *session) info() Client {
	stats := c.tunnel.Stats()
	info := Client{
		ID: c.hello.ID, Instance: c.hello.Instance, RemoteAddr: c.address(), Since: c.since, Labels: c.hello.Labels,
		Upstreams: c.upstreams(), RTT: stats.RTT(), Links: len(stats.Links), Resumes: stats.Resumes, Reconnects: c.hello.Reconnects,
		Streams: max(0, stats.Streams-1), // without the control stream
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.published {
		info.Tunnels = append(info.Tunnels, Tunnel{p.name.String(), p.Address(), p.offer.Down})
	}
	return info
}

// show is the offer in the status command's words: the client's own, unless they are not fit to be shown.
func show(offer tunnel.Offer) string {
	if len(offer.Upstream) > maxWords {
		return offer.Tunnel
	}
	for _, c := range []byte(offer.Upstream) {
		if c <= ' ' || c == 0x7f {
			return offer.Tunnel
		}
	}
	return offer.Upstream
}
