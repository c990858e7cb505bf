package upstream

import (
	"cmp"
	"sync/atomic"
	"time"

	"culvert/internal/balancer"
)

// seat is a member in an upstream with all that the upstream knows of it.
type seat struct {
	member     Member
	name       string
	key        uint64
	breakable  breakable  // nil if it is not
	suspecting suspecting // nil if it is not

	now     atomic.Pointer[terms] // replaced whole
	open    *atomic.Int64         // connections and requests, with those of its account's members of before
	total   atomic.Uint64
	failed  atomic.Uint64
	row     atomic.Int64 // failures since the last success
	ejected atomic.Int64 // until then, of the upstream's clock; 0: never, or a connection was made since
	trial   atomic.Int64 // until then one visitor finds out whether it is well again, of the upstream's clock
	trouble atomic.Pointer[trouble]

	// Of the upstream's mu.
	placed Placed
	late   bool // was added to a running upstream, or was down
	spells int  // ejections since the last success
}

// account is what the connections of the member are counted under.
func (p Placed) account() string { return cmp.Or(p.Account, p.Member.Name()) }

// terms are on what terms a member gets connections.
type terms struct {
	weight   uint32
	backup   bool
	maxConns int64
	draining bool
	down     bool
	back     time.Duration // when its slow start began, of the upstream's clock; 0: never
}

type trouble struct {
	at  time.Time
	err error
}

func newSeat(p Placed) *seat {
	s := &seat{member: p.Member, name: p.Member.Name(), placed: p, open: new(atomic.Int64)}
	s.key = balancer.Key(s.name)
	s.breakable, _ = p.Member.(breakable)
	s.suspecting, _ = p.Member.(suspecting)
	return s
}

func (s *seat) terms() *terms { return s.now.Load() }

// setTerms gives the seat these terms, with what was placed and what was set by hand. The caller holds mu.
func (u *Upstream) setTerms(s *seat, t terms) {
	t.weight, t.backup, t.maxConns = uint32(min(max(1, s.placed.Weight), MaxWeight)), s.placed.Backup, int64(max(0, s.placed.MaxConns))
	h := u.byHand[s.name]
	t.draining = h.drain
	if h.weight != nil {
		t.weight = uint32(*h.weight)
	}
	s.now.Store(&t)
}

func (s *seat) usable(t *terms) bool {
	return !t.down && !t.draining && t.weight > 0 && (s.breakable == nil || s.breakable.Usable())
}

func (s *seat) suspect() bool { return s.suspecting != nil && s.suspecting.Suspect() }

// scale is how much finer weights are than what is configured, for slow start.
const scale = 1 << 10

// least is the share with which a slow start begins: a member without any visitor would not get warm.
const least = scale / 32

// share is the weight that the member has at a time of its slow start.
func (t *terms) share(now, slowStart time.Duration) uint32 {
	if t.back == 0 || slowStart <= 0 || now-t.back >= slowStart {
		return t.weight * scale
	}
	part := max(least, int64(float64(scale)*float64(now-t.back)/float64(slowStart)))
	return uint32(int64(t.weight) * part)
}

// take takes one of the seat's places, if there is one.
func (s *seat) take(most int64) bool {
	if most == 0 {
		s.open.Add(1)
		return true
	}
	for {
		open := s.open.Load()
		if open >= most {
			return false
		}
		if s.open.CompareAndSwap(open, open+1) {
			return true
		}
	}
}

// forgive forgets failed dials. The caller holds mu.
func (u *Upstream) forgive(s *seat) {
	s.row.Store(0)
	s.ejected.Store(0)
	s.spells = 0
	if t, now := *s.terms(), u.now(); t.back > now { // when the ejection would have ended
		t.back = now
		s.now.Store(&t)
	}
}
