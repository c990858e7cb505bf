package upstream

import (
	"math/bits"

	"culvert/internal/balancer"
)

// suspecting is a Member that can tell that it may not answer: others are tried before it.
type suspecting interface{ Suspect() bool }

// breakable is a Member that can tell that it gives no connection at present: it is not tried.
type breakable interface{ Usable() bool }

// Candidates is an ordered set of members. It does not change when the upstream does, or a member's state.
//
// Members that are usable come in the balancer's order, those that are suspect behind the others.
type Candidates struct {
	members []Member
	order   balancer.Order
	// If not all are well: who is, and who is suspect, by turn. Up to 64 members they need no memory of their own.
	picked        bool
	well, suspect uint64
	many          []Member // with more than 64 members, in place of the two
}

// rank asks each member how it is.
func rank(members []Member, order balancer.Order) Candidates {
	c := Candidates{members: members, order: order}
	for _, m := range members {
		if usable, suspect := state(m); suspect || !usable {
			c.pick()
			break
		}
	}
	return c
}

func state(m Member) (usable, suspect bool) {
	if b, ok := m.(breakable); ok && !b.Usable() {
		return false, false
	}
	s, ok := m.(suspecting)
	return true, ok && s.Suspect()
}

func (c *Candidates) pick() {
	c.picked = true
	if c.order.Len() > 64 {
		c.pickMany()
		return
	}
	for i := range c.order.Len() {
		switch usable, suspect := state(c.members[c.order.At(i)]); {
		case suspect:
			c.suspect |= 1 << i
		case usable:
			c.well |= 1 << i
		}
	}
}

func (c *Candidates) pickMany() {
	var last []Member
	c.many = make([]Member, 0, c.order.Len())
	for i := range c.order.Len() {
		m := c.members[c.order.At(i)]
		switch usable, suspect := state(m); {
		case suspect:
			last = append(last, m)
		case usable:
			c.many = append(c.many, m)
		}
	}
	c.many = append(c.many, last...)
}

// Len is the number of candidates.
func (c Candidates) Len() int {
	switch {
	case !c.picked:
		return len(c.members)
	case c.many != nil:
		return len(c.many)
	default:
		return bits.OnesCount64(c.well) + bits.OnesCount64(c.suspect)
	}
}

// At is the i-th candidate to try, from 0. It panics if i is out of range.
func (c Candidates) At(i int) Member {
	switch {
	case !c.picked:
		return c.members[c.order.At(i)]
	case c.many != nil:
		return c.many[i]
	}
	set := c.well
	if n := bits.OnesCount64(set); i >= n {
		set, i = c.suspect, i-n
	}
	for ; i > 0 && set != 0; i-- {
		set &= set - 1 // the first that is left goes
	}
	return c.members[c.order.At(bits.TrailingZeros64(set))] // 64, so out of range, for none
}
