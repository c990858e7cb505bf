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

	elsewhere bool // as the visit has it
	datagrams bool // likewise
	ejected   bool // there are members that are not for this visit because they are ejected
}

// A member's rank: lower ones are tried first.
const (
	well = iota
	suspect
	backup
	suspectBackup
	ejected // backup or not

	ranks
	unusable
)

// scratch is what an order is made of. All are as long as there are members.
type scratch struct {
	ranks []uint8
	cands []balancer.Candidate
	part  []balancer.Candidate
}

// How many members need how much of the stack. More share what is on the heap.
const (
	few  = 8
	some = 64
)

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Candidates is the set of members that are usable now, in the order in which the next connection is to try them. The
// visit is the one that they are for; nil if it is not known.
func (u *Upstream) Candidates(v *Visit) Candidates {
	var c Candidates
	u.rank(&c, v)
	if usable := c.full || c.ejected || c.order.Len() > 0; usable != u.told.usable.Load() && u.cfg.Load().OnUsable != nil {
		u.settle() // a member's own Usable has changed
	}
	return c
}

// rank asks each member how it is.
func (u *Upstream) rank(c *Candidates, v *Visit) {
	c.upstream, c.seats = u, u.set.Load().seats
	switch n := len(c.seats); {
	case n <= few:
		var ranks [few]uint8
		var cands, part [few]balancer.Candidate
		u.order(c, v, &scratch{ranks[:n], cands[:n], part[:n]})
	case n <= some:
		u.rankSome(c, v, n)
	default:
		u.rankMany(c, v, n)
	}
}

//go:noinline // its stack is for those who need it
func (u *Upstream) rankSome(c *Candidates, v *Visit, n int) {
	var ranks [some]uint8
	var cands, part [some]balancer.Candidate
	u.order(c, v, &scratch{ranks[:n], cands[:n], part[:n]})
}

func (u *Upstream) rankMany(c *Candidates, v *Visit, n int) {
	s := scratches.Get().(*scratch)
	if cap(s.ranks) < n {
		*s = scratch{make([]uint8, n), make([]balancer.Candidate, n), make([]balancer.Candidate, n)}
	}
	u.order(c, v, &scratch{s.ranks[:n], s.cands[:n], s.part[:n]})
	scratches.Put(s)
}

func (u *Upstream) order(c *Candidates, v *Visit, s *scratch) {
	cfg := u.cfg.Load()
	if v != nil {
		c.elsewhere, c.datagrams = v.Elsewhere, v.Datagrams
	}
	n, room, taken := u.look(c, cfg.SlowStart, s)
	for _, group := range [...]uint{1<<well | 1<<suspect, 1<<backup | 1<<suspectBackup, 1 << ejected} {
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
	c.order.Grow(n)
	if room&(room-1) == 0 { // all are of one rank, as nearly always
		cfg.Policy.Append(&c.order, s.cands[:n], q)
	} else {
		for r := range uint8(ranks) {
			part := s.part[:0]
			for i := range n {
				if s.ranks[i] == r {
					part = append(part, s.cands[i])
				}
			}
			cfg.Policy.Append(&c.order, part, q)
		}
	}
	c.tries = n
	if cfg.Retries >= 0 {
		c.tries = min(n, 1+cfg.Retries)
	}
}

// look fills the scratch with the n members that are usable and have room. Room and taken are the ranks that some with
// and some without room have, a bit each.
func (u *Upstream) look(c *Candidates, slowStart time.Duration, s *scratch) (n int, room, taken uint) {
	var now time.Duration
	for i, seat := range c.seats {
		t := seat.now.Load()
		if now == 0 && (t.back != 0 || seat.ejected.Load() != 0) {
			now = u.now()
		}
		rank, open := seat.rank(t, now), seat.open.Load()
		switch {
		case rank == unusable:
		case rank == ejected && c.elsewhere:
			c.ejected = true
		case t.maxConns > 0 && open >= t.maxConns:
			taken |= 1 << rank
		default:
			room |= 1 << rank
			s.ranks[n] = rank
			s.cands[n] = balancer.Candidate{Index: int32(i), Weight: t.share(now, slowStart), Open: open, Key: seat.key}
			n++
		}
	}
	return n, room, taken
}

func (s *seat) rank(t *terms, now time.Duration) uint8 {
	if !s.usable(t) {
		return unusable
	}
	r := uint8(well)
	switch {
	case now < s.alone():
		return ejected
	case s.suspect():
		r = suspect
	}
	if t.backup {
		r += backup
	}
	return r
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
			s.tryAgain(c.upstream, c.datagrams)
			return &Place{upstream: c.upstream, seat: s, elsewhere: c.elsewhere}, i
		}
	}
	return nil, i
}
