package upstream

import (
	"math/rand/v2"
	"sync"
	"time"

	"culvert/internal/balancer"
)

// suspecting is a Member that can tell that it may not answer: others are tried before it.
type suspecting interface{ Suspect() bool }

// breakable is a Member that can tell that it gives no connection at present: it is not tried.
type breakable interface{ Usable() bool }

// Candidates is an ordered set of members. It does not change when the upstream does, or a member's state.
//
// Members that are usable and have room come in the policy's order, those that are suspect behind the others. Behind them
// come backups, and then members that are ejected, for who was given nothing by all others.
type Candidates struct {
	upstream *Upstream
	seats    []*seat
	order    balancer.Order
	tries    int
	full     bool // there are members to wait for
}

// A member's rank: lower ones are tried first.
const (
	well = iota
	suspect
	backup
	suspectBackup
	ejected
	ejectedBackup

	ranks
	unusable
	full // and the rank is in the bits below
)

// scratch is what an order is made of.
type scratch struct {
	ranks []uint8
	cands []balancer.Candidate
}

const (
	handful = 8
	many    = 64
)

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Candidates is the set of members that are usable now, in the order in which the next connection is to try them. The
// visit is the one that they are for; nil if it is not known.
func (u *Upstream) Candidates(v *Visit) Candidates {
	var c Candidates
	u.rank(&c, v)
	if c.order.Len() > 0 != u.told.usable.Load() && u.cfg.Load().OnUsable != nil {
		u.settle()
	}
	return c
}

// rank asks each member how it is.
func (u *Upstream) rank(c *Candidates, v *Visit) {
	c.upstream, c.seats = u, u.set.Load().seats
	switch n := len(c.seats); {
	case n <= handful:
		var ranks [handful]uint8
		var cands [handful]balancer.Candidate
		u.order(c, v, scratch{ranks[:n], cands[:n]})
	default:
		s := scratches.Get().(*scratch)
		if cap(s.ranks) < n {
			*s = scratch{make([]uint8, n), make([]balancer.Candidate, n)}
		}
		u.order(c, v, scratch{s.ranks[:n], s.cands[:n]})
		scratches.Put(s)
	}
}

func (u *Upstream) order(c *Candidates, v *Visit, s scratch) {
	cfg := u.cfg.Load()
	var now time.Duration
	var room, taken uint // ranks of members with room, and of those without
	for i, seat := range c.seats {
		t := seat.now.Load()
		if now == 0 && (t.back != 0 || seat.ejected.Load() != 0) {
			now = u.now()
		}
		s.ranks[i] = seat.rank(t, now)
		switch {
		case s.ranks[i] == unusable:
		case t.maxConns > 0 && seat.open.Load() >= t.maxConns:
			taken |= 1 << s.ranks[i]
			s.ranks[i] = unusable
		default:
			room |= 1 << s.ranks[i]
		}
	}
	for _, group := range []uint{1<<well | 1<<suspect, 1<<backup | 1<<suspectBackup, 1<<ejected | 1<<ejectedBackup} {
		if room&group != 0 {
			break
		}
		if c.full = taken&group != 0; c.full { // whoever has room is only for when these do not answer
			return
		}
	}
	if room == 0 {
		return
	}
	q := balancer.Query{Turn: u.turn.Add(1) - 1}
	switch {
	case cfg.Policy == balancer.RandomTwo:
		q.Roll = rand.Uint64()
	case cfg.Policy == balancer.SourceHash && v != nil:
		q.Source = balancer.SourceKey(v.Source.Addr())
	}
	c.order.Grow(len(c.seats))
	for r := range uint8(ranks) {
		if room&(1<<r) == 0 {
			continue
		}
		cands := s.cands[:0]
		for i, seat := range c.seats {
			if s.ranks[i] == r {
				t := seat.now.Load()
				cands = append(cands, balancer.Candidate{
					Index: int32(i), Weight: t.share(now, cfg.SlowStart), Open: seat.open.Load(), Key: seat.key,
				})
			}
		}
		cfg.Policy.Append(&c.order, cands, q)
	}
	c.tries = c.order.Len()
	if cfg.Retries >= 0 {
		c.tries = min(c.tries, 1+cfg.Retries)
	}
}

func (s *seat) rank(t *terms, now time.Duration) uint8 {
	if !s.usable(*t) {
		return unusable
	}
	r := uint8(well)
	switch {
	case now < time.Duration(s.ejected.Load()):
		r = ejected
	case s.suspect():
		r = suspect
	}
	if !t.backup {
		return r
	}
	if r == ejected {
		return ejectedBackup
	}
	return r + backup
}

// Len is the number of candidates.
func (c *Candidates) Len() int { return c.order.Len() }

// At is the i-th candidate to try, from 0. It panics if i is out of range.
func (c *Candidates) At(i int) Member { return c.seats[c.order.At(i)].member }

// Tries is how many of the candidates may be tried.
func (c *Candidates) Tries() int { return c.tries }

// Claim takes a place at the first candidate from the i-th on that has one, and says which it is. The place is nil if none has.
func (c *Candidates) Claim(i int) (p *Place, at int) {
	for ; i < c.order.Len(); i++ {
		s := c.seats[c.order.At(i)]
		if s.take(s.now.Load().maxConns) {
			s.total.Add(1)
			return &Place{upstream: c.upstream, seat: s}, i
		}
	}
	return nil, i
}
