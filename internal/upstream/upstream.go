package upstream

import (
	"slices"
	"sync"
	"sync/atomic"

	"culvert/internal/balancer"
)

// Upstream is a named set of members and the order in which they are tried: round robin.
// It is safe for concurrent use; what a connection or request reads takes no lock and allocates nothing.
type Upstream struct {
	// OnFailedDial, if set, hears of every member that did not give a connection, also when another one then did;
	// the member is nil when there was none to ask. It is set before the upstream's first use.
	OnFailedDial func(Member, Reason)

	name    string
	order   balancer.RoundRobin
	members atomic.Pointer[[]Member] // replaced whole, never changed

	mu sync.Mutex // orders the writers of members
}

// New makes an upstream without members.
func New(name string) *Upstream {
	u := &Upstream{name: name}
	u.members.Store(new([]Member))
	return u
}

// Name is the upstream's name.
func (u *Upstream) Name() string { return u.name }

// Add adds a member, which takes part from the next connection on. A member that is there already is not added twice.
func (u *Upstream) Add(m Member) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := *u.members.Load()
	if slices.Contains(old, m) {
		return
	}
	members := append(slices.Clip(old), m)
	u.members.Store(&members)
}

// Remove takes a member out; its connections go on. A member that is not there is no fault.
func (u *Upstream) Remove(m Member) {
	u.mu.Lock()
	defer u.mu.Unlock()
	members := slices.DeleteFunc(slices.Clone(*u.members.Load()), func(x Member) bool { return x == m })
	u.members.Store(&members)
}

// Members is the present set, in the order in which they were added. It must not be changed.
func (u *Upstream) Members() []Member { return *u.members.Load() }

// Candidates is the set of members that are usable now, in the order in which the next connection is to try them.
func (u *Upstream) Candidates() Candidates {
	members := *u.members.Load()
	return rank(members, u.order.Order(len(members)))
}
