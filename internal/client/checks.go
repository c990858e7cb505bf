package client

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	"culvert/internal/tunnel"
	"culvert/internal/upstream/health"
)

// checks are those of the client's services. Each service is checked once, however many servers it is offered to.
type checks struct {
	log      *slog.Logger
	checkers map[tunnel.Name]*health.Checker

	mu      sync.Mutex
	state   map[string]tunnel.Health // of services whose first check has ended, by tunnel
	changed chan struct{}            // closed at the next change
}

func newChecks(log *slog.Logger) *checks {
	return &checks{
		log: log, checkers: make(map[tunnel.Name]*health.Checker),
		state: make(map[string]tunnel.Health), changed: make(chan struct{}),
	}
}

// add has a service checked, if its upstream says so.
func (c *checks) add(u Upstream, cfg Config) error {
	if u.Check == nil {
		return nil
	}
	hc := health.Config{
		Check: *u.Check, Network: u.Network, Address: u.Address,
		OnChange: func(up bool, cause error) { c.tell(u.Tunnel, up, cause) },
	}
	switch {
	case u.Scheme == SchemeHTTPS && u.Check.Kind != health.TCP:
		config, err := serviceTLS(u)
		if err != nil {
			return err
		}
		hc.TLS = config
	case u.Scheme == SchemeTCP && cfg.ProxyProtocol != nil:
		hc.Check.Proxy = *cfg.ProxyProtocol
	}
	checker, err := health.New(hc)
	if err != nil {
		return err
	}
	c.checkers[u.Tunnel] = checker
	return nil
}

// start begins to check. The caller calls stop.
func (c *checks) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, checker := range c.checkers {
		running.Go(func() { checker.Run(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// await returns when each service has been checked once, which takes no longer than the longest of their timeouts.
func (c *checks) await(ctx context.Context) {
	for {
		state, changed := c.snapshot()
		if len(state) == len(c.checkers) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// tell takes the word of a checker.
func (c *checks) tell(name tunnel.Name, up bool, cause error) {
	h := tunnel.Health{Tunnel: name.String(), Up: up}
	c.mu.Lock()
	before, known := c.state[h.Tunnel]
	if cause != nil {
		h.Error = cause.Error()
	}
	c.state[h.Tunnel] = h
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	switch {
	case !up:
		c.log.Warn("service is down", "tunnel", name, "err", cause)
	case known && !before.Up:
		c.log.Info("service is up again", "tunnel", name)
	}
}

// snapshot is the present state, and a channel that is closed when it changes.
func (c *checks) snapshot() (state map[string]tunnel.Health, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.state), c.changed
}

// down is why a service is not to get visitors; "" if it is up, or not checked.
func (c *checks) down(name tunnel.Name) string {
	if c.checkers[name] == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.state[name.String()]
	switch {
	case !known:
		return "its first check has not ended yet"
	case h.Up:
		return ""
	default:
		return h.Error
	}
}

// report tells a server of every change since the hello, until the context or the session ends. Of changes that follow each
// other faster than the server takes them, it gets the last.
func (c *checks) report(ctx context.Context, s *tunnel.Session, hello tunnel.Hello) {
	if len(c.checkers) == 0 {
		return
	}
	told := make(map[string]string) // why it is down; "" for up
	for _, o := range hello.Offers {
		told[o.Tunnel] = o.Down
	}
	for {
		state, changed := c.snapshot()
		for name, h := range state {
			if told[name] == h.Error {
				continue
			}
			if s.Health(h) != nil {
				return // the session is over
			}
			told[name] = h.Error
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-s.Done():
			return
		}
	}
}
