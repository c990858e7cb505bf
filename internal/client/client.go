// Package client is the client's end of sessions: it keeps one to each server up, and hands the connections that
// come through it to local services.
//
// It dials only what its own configuration names: a server chooses among its tunnels and nothing else.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"culvert/internal/auth"
	"culvert/internal/mux"
	"culvert/internal/pki"
	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// Config is what a Client needs.
type Config struct {
	Software  string // name and version, told to servers
	URLs      []*url.URL
	Token     auth.Secret
	Trust     pki.Trust                             // how servers are verified
	Proxy     func(*http.Request) (*url.URL, error) // chooses a forward proxy; nil means none
	ID        string                                // the operator's name for the client; "" means the one of the state folder
	Labels    map[string]string
	StateDir  string // keeps the identity over restarts; "" means that there is none
	Upstreams []Upstream
	Drain     time.Duration // how long open connections may go on after Run's context has ended
	MaxLinks  int           // links of a session under load; 4 if zero
	Budget    *mux.Budget
	// ProxyProtocol is the version of the PROXY header that services get which are not HTTP; nil for what the server wishes.
	ProxyProtocol *proxyproto.Version
	Weight        int  // share of the visitors beside other clients; 0 counts as 1
	Backup        bool // visitors only while no other client can
	Watch         Watch
	Log           *slog.Logger
}

// Watch is told what becomes of a client, by its sessions in turn and at once. What is nil is not told; failures and refusals
// that are told are not logged.
type Watch struct {
	Answered func(tunnel.Answer)   // to an offer
	Ended    func(tunnel.Ended)    // the server has taken a tunnel down
	Opened   func(*tunnel.Open)    // a connection comes
	Unserved func(upstream.Reason) // and its service did not take it
	Failed   func(error)           // a session could not begin, or has ended
}

// Client keeps sessions up. Use New, then Run once.
type Client struct {
	cfg    Config
	locals map[tunnel.Name]local
	checks *checks

	mu       sync.Mutex
	identity Identity
	counter  uint64    // sessions begun by this process
	accepted time.Time // when a server first took an offer
}

// New checks the configuration and opens nothing.
func New(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("no server: set --url")
	}
	c := &Client{cfg: cfg, locals: make(map[tunnel.Name]local), checks: newChecks(cfg.Log)}
	for _, u := range cfg.Upstreams {
		l, err := newLocal(u, cfg)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", u.Spec, err)
		}
		c.locals[u.Tunnel] = l
		if err := c.checks.add(u, cfg); err != nil {
			return nil, fmt.Errorf("health check of %s: %w", u.Spec, err)
		}
	}
	return c, nil
}

// Run keeps a session to each server up until the context ends. Then it tells the servers, lets open connections go
// on for Config.Drain, and returns when nothing is left.
func (c *Client) Run(ctx context.Context) error {
	identity, release := TakeIdentity(c.cfg.StateDir, c.cfg.ID, c.cfg.Log)
	defer release()
	c.identity = identity
	stop := c.checks.start()
	defer stop()
	c.checks.await(ctx) // so that what is down is offered as down
	var wait sync.WaitGroup
	for _, u := range c.cfg.URLs {
		k := &keeper{client: c, log: c.cfg.Log.With("server", u.Host), link: newLink(c.cfg, u)}
		wait.Go(func() { k.run(ctx) })
	}
	wait.Wait()
	return nil
}

// hello is the greeting of the process's next session.
func (c *Client) hello(reconnects uint64) tunnel.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counter++
	h := tunnel.Hello{
		ID: c.identity.ID, Instance: c.identity.Instance, Epoch: c.identity.Epoch, Counter: c.counter,
		Reconnects: reconnects, Software: c.cfg.Software, Labels: c.cfg.Labels,
	}
	for _, u := range c.cfg.Upstreams {
		offer := tunnel.Offer{
			Tunnel: u.Tunnel.String(), Upstream: u.Spec, Weight: c.cfg.Weight, Backup: c.cfg.Backup, Down: c.checks.down(u.Tunnel),
		}
		if u.Scheme == SchemeH2C {
			offer.Protocol = "h2c"
		}
		if u.Divert != nil {
			wish := *u.Divert
			wish.For = c.left(wish.For)
			offer.Divert = &wish
		}
		h.Offers = append(h.Offers, offer)
	}
	return h
}

// left is what is left of the time of the client's diverts. The caller holds mu.
func (c *Client) left(whole time.Duration) time.Duration {
	if c.accepted.IsZero() {
		return whole
	}
	return max(whole-time.Since(c.accepted), time.Millisecond)
}

// answered puts down what a server said to an offer.
func (c *Client) answered(a tunnel.Answer) {
	c.mu.Lock()
	if a.Refused == "" && c.accepted.IsZero() {
		c.accepted = time.Now()
	}
	c.mu.Unlock()
	if c.cfg.Watch.Answered != nil {
		c.cfg.Watch.Answered(a)
	}
}

// becomeAnother gives the process an instance of its own, once it has learned that another process has its instance.
func (c *Client) becomeAnother(fenced string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity.Instance != fenced { // another keeper was quicker
		return
	}
	c.identity.Instance = randomID()
	c.cfg.Log.Warn("another process has this client's instance; going on as a new instance",
		"old", fenced, "new", c.identity.Instance, "hint", "was the state folder copied?")
}
