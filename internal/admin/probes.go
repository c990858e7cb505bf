package admin

import (
	"sync"
	"time"
)

// Probes knows whether a balancer asks for readiness again and again: then it is worth waiting, before a server stops
// accepting, until the balancer has heard that it is to send visitors elsewhere. The zero value is ready for use.
type Probes struct {
	mu            sync.Mutex
	earlier, last time.Time // positive answers, at least probesApart between them
}

const (
	// probesApart is the least time between two questions of a balancer. A program that waits for a server to come up asks
	// until it hears yes, and not again.
	probesApart = time.Second
	// probesWithin is within which a balancer asks twice.
	probesWithin = 5 * time.Minute
)

// Watch counts the questions that ready answers with yes.
func (p *Probes) Watch(ready func(service string) error) func(service string) error {
	return func(service string) error {
		err := ready(service)
		if err == nil {
			p.asked(time.Now())
		}
		return err
	}
}

func (p *Probes) asked(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last) >= probesApart {
		p.earlier, p.last = p.last, now
	}
}

// Regular says whether somebody asks again and again.
func (p *Probes) Regular() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.earlier.IsZero() && time.Since(p.earlier) <= probesWithin
}
