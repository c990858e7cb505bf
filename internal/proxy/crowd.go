package proxy

import (
	"errors"
	"net/netip"
	"sync"
)

// crowd is the connections of an entrypoint that have a member, to find those that must end before their time. The zero
// value is ready for use, and safe for concurrent use; it must not be copied.
type crowd struct {
	parts [crowdParts]struct {
		mu   sync.Mutex
		open map[*passage]struct{}
	}
}

// crowdParts is how many there are, so that connections do not wait for each other.
const crowdParts = 16

func (c *crowd) add(p *passage) {
	part := &c.parts[p.roll%crowdParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	if part.open == nil {
		part.open = make(map[*passage]struct{})
	}
	part.open[p] = struct{}{}
}

func (c *crowd) remove(p *passage) {
	part := &c.parts[p.roll%crowdParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	delete(part.open, p)
}

// list gives the connections that which picks.
func (c *crowd) list(which func(*passage) bool) (picked []*passage) {
	for i := range c.parts {
		part := &c.parts[i]
		part.mu.Lock()
		for p := range part.open {
			if which(p) {
				picked = append(picked, p)
			}
		}
		part.mu.Unlock()
	}
	return picked
}

// Open is a connection that has a member.
type Open struct {
	Source   netip.AddrPort
	Host     string // that was asked for in the ClientHello
	Upstream string
	Member   string
}

// ErrEnded is why a connection was reset that End has picked.
var ErrEnded = errors.New("ended by the server")

// End resets the open connections that which picks, and says how many.
func (t *TCP) End(which func(Open) bool) int {
	picked := t.open.list(func(p *passage) bool { return which(p.seen()) })
	for _, p := range picked {
		p.fail(ErrEnded)
		p.reset()
	}
	return len(picked)
}
