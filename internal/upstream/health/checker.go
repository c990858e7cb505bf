package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

// Config is what a Checker needs.
type Config struct {
	Check Check
	// Network and Address are the service: "tcp" or "udp" with host:port, "unix" with a path.
	Network, Address string
	// TLS, if set, is spoken to the service; a TCP check is content with the handshake. Its ServerName must be set.
	TLS *tls.Config
	// OnChange, if set, is called with the first answer, and then when the service becomes usable or unusable. The cause of
	// a service being down is the failure of its last check. Calls come from Run, one after the other.
	OnChange func(up bool, cause error)
}

// Checker checks one service. Use New, then Run once.
type Checker struct {
	check    Check
	cfg      Config
	onChange func(up bool, cause error)
	probe    func(context.Context) (leave func(), err error)
	chance   func() float64 // from 0 to 1; where in its time a check begins

	row int // answers in a row that speak against the present state; Run's alone

	mu     sync.Mutex
	status Status
}

// Status is how a service has fared.
type Status struct {
	Known    bool // the first check has ended
	Up       bool
	Changed  time.Time // when it became what it is
	Changes  uint64    // how often it has, the first time included
	Checks   uint64
	Failures uint64
	// LastError is the last failure, which may be long ago; "" if there was none.
	LastError   string
	LastErrorAt time.Time
	Took        time.Duration // the last check
}

// New makes a checker. Nothing is asked before Run.
func New(cfg Config) (*Checker, error) {
	if err := cfg.Check.Validate(); err != nil {
		return nil, err
	}
	p := prober{check: cfg.Check.withDefaults(), network: cfg.Network, address: cfg.Address, tls: cfg.TLS}
	if err := p.aim(); err != nil {
		return nil, err
	}
	return &Checker{check: p.check, cfg: cfg, onChange: cfg.OnChange, probe: p.probe, chance: rand.Float64}, nil
}

// aim finds out what is to be dialled.
func (p *prober) aim() error {
	switch {
	case p.check.Kind == UDP && p.network == "unix":
		return errors.New("a socket in the file system has no UDP; use tcp, http or expect")
	case p.check.Kind == UDP:
		p.network = "udp"
	case p.network != "unix": // also of a UDP service: a port of its own tells of it
		p.network = "tcp"
	}
	if p.check.Port == 0 {
		return nil
	}
	if p.network == "unix" {
		return errors.New("a socket in the file system has no port")
	}
	host, _, err := net.SplitHostPort(p.address)
	if err != nil {
		return fmt.Errorf("address %s: %w", p.address, err)
	}
	p.address = net.JoinHostPort(host, strconv.Itoa(int(p.check.Port)))
	return nil
}

// jitter is the part of the interval by which a check may come early. It never comes late, so that a service that hangs is
// down after fall intervals and a timeout.
const jitter = 0.1

// Run checks at once and then again and again until the context ends. OnChange is not called after it has returned.
func (c *Checker) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		begun := time.Now()
		c.ask(ctx)
		early := jitter
		if first { // many that began together part
			early = 1
		}
		next := time.Duration(float64(c.check.Interval) * (1 - early*c.chance()))
		timer.Reset(next - time.Since(begun))
	}
}

// ask is one check. The service is left only when its answer has been told of.
func (c *Checker) ask(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, c.check.Timeout)
	defer cancel()
	begun := time.Now()
	leave, err := c.probe(within)
	defer leave()
	if ctx.Err() != nil { // it was cut short: it says nothing
		return
	}
	if c.count(err, time.Since(begun)) && c.onChange != nil {
		c.onChange(err == nil, err)
	}
}

// count takes an answer into account and says whether the state has changed.
func (c *Checker) count(err error, took time.Duration) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.status
	s.Checks++
	s.Took = took
	if err != nil {
		s.Failures++
		s.LastError, s.LastErrorAt = err.Error(), time.Now()
	}
	if c.row++; s.Known && s.Up == (err == nil) {
		c.row = 0
	}
	need := c.check.Rise
	if err != nil {
		need = c.check.Fall
	}
	var sure *certain
	if s.Known && c.row < need && (c.row == 0 || !errors.As(err, &sure)) {
		return false
	}
	c.row = 0
	s.Known, s.Up, s.Changed = true, err == nil, time.Now()
	s.Changes++
	return true
}

// certain is a failure that needs no other to be believed.
type certain struct{ error }

func (c *certain) Unwrap() error { return c.error }

// Status tells how the service fares. It may be called at any time.
func (c *Checker) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}
