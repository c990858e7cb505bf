package upstream

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// hand is what an operator has said of a member. It is kept by name, so that a client that comes back finds it unchanged.
type hand struct {
	drain  bool
	weight *int // nil: the placed one
	placed int  // the weight that it stands in for
}

// SetDrain says whether members of that name get no more connections. What is open goes on. It holds for members of that
// name that are added later too.
func (u *Upstream) SetDrain(name string, on bool) error {
	return u.setByHand(name, func(h *hand) { h.drain = on })
}

// SetWeight changes the weight of the members of that name; 0 is no more connections. It holds for members of that name that are
// added later too.
func (u *Upstream) SetWeight(name string, w int) error {
	if w < 0 || w > MaxWeight {
		return fmt.Errorf("weight %d of %s: use 0 (no new connections) to %d", w, name, MaxWeight)
	}
	return u.setByHand(name, func(h *hand) { h.weight = &w })
}

func (u *Upstream) setByHand(name string, change func(*hand)) error {
	u.mu.Lock()
	h, known := u.byHand[name] // of a member that is away, too
	seats := u.set.Load().seats
	for _, s := range seats {
		if s.name == name {
			known, h.placed = true, s.placed.Weight
		}
	}
	if !known {
		u.mu.Unlock()
		return u.unknown(name)
	}
	change(&h)
	u.setHand(name, h)
	for _, s := range seats {
		if s.name == name {
			u.setTerms(s, *s.terms())
		}
	}
	u.mu.Unlock()
	u.settle()
	return nil
}

// reweigh ends a weight that was set by hand in place of another one than the seat has now. The caller holds mu.
func (u *Upstream) reweigh(s *seat) {
	if h := u.byHand[s.name]; h.weight != nil && h.placed != s.placed.Weight {
		h.weight = nil
		u.setHand(s.name, h)
	}
}

func (u *Upstream) setHand(name string, h hand) {
	if !h.drain && h.weight == nil {
		delete(u.byHand, name)
		return
	}
	u.byHand[name] = h
}

// UnknownMember is the failure of a change of a member that the upstream does not have. Its words name those that it has.
type UnknownMember struct{ error }

func (u *Upstream) unknown(name string) error {
	known := make(map[string]bool)
	for _, m := range u.Members() {
		known[m.Name()] = true
	}
	if len(known) == 0 {
		return UnknownMember{fmt.Errorf("upstream %s has no member %q: it has none at all", u.Name(), name)}
	}
	return UnknownMember{fmt.Errorf("upstream %s has no member %q: it has %s", u.Name(), name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))}
}
