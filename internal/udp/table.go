package udp

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound a table.
type Limits struct {
	Flows     int           // flows at once, at least 1
	PerSource int           // flows at once of one source; 0: no limit of its own
	Idle      time.Duration // a flow that was not touched for this long expires
}

// Refusal is why a table takes no flow.
type Refusal string

// The refusals.
const (
	Full      Refusal = "table_full" // it has as many flows as it may
	PerSource Refusal = "per_source" // the source has as many flows as it may
)

// Table is the flows of one socket. A full one takes no new flows; those that it has it keeps until they are removed or
// expire. Times are durations since whatever the caller's clock began with. It is safe for concurrent use.
//
// Expiry costs no timer per flow: flows stand in a wheel of slots by when they are to be looked at.
type Table[K comparable, F any] struct {
	limits Limits
	tick   time.Duration // a slot's part of the time

	mu      sync.Mutex
	flows   map[K]*Entry[K, F]
	sources map[netip.Addr]int // flows of each
	slots   [wheelSlots]*Entry[K, F]
	at      int64 // the slots before this one, counted from the clock's beginning, have been looked at
}

// wheelSlots is how many slots the wheel has. A flow is looked at no more than Idle ahead, which is half of them.
const wheelSlots = 64

// Entry is a flow in a table.
type Entry[K comparable, F any] struct {
	Flow F

	key        K
	source     netip.Addr
	touched    atomic.Int64 // when a datagram of its visitor came last
	slot       int
	next, prev *Entry[K, F]
	gone       bool
}

// NewTable makes an empty table.
func NewTable[K comparable, F any](limits Limits) *Table[K, F] {
	limits.Flows = max(limits.Flows, 1)
	return &Table[K, F]{
		limits: limits, tick: max(limits.Idle/(wheelSlots/2), 1),
		flows: make(map[K]*Entry[K, F]), sources: make(map[netip.Addr]int),
	}
}

// Tick is how often Expire is to be called while there are flows: a flow expires that much late at most.
func (t *Table[K, F]) Tick() time.Duration { return t.tick }

// Get finds a flow, and touches it.
func (t *Table[K, F]) Get(key K, now time.Duration) *Entry[K, F] {
	t.mu.Lock()
	e := t.flows[key]
	t.mu.Unlock()
	if e != nil {
		e.touched.Store(int64(now))
	}
	return e
}

// Add adds a flow, which must not be there, or says why it does not. first says that the table was empty.
func (t *Table[K, F]) Add(key K, source netip.Addr, now time.Duration) (e *Entry[K, F], first bool, why Refusal) {
	source = Block(source)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.flows) >= t.limits.Flows:
		return nil, false, Full
	case t.limits.PerSource > 0 && t.sources[source] >= t.limits.PerSource:
		return nil, false, PerSource
	}
	first = len(t.flows) == 0
	if first {
		t.at = int64(now / t.tick)
	}
	e = &Entry[K, F]{key: key, source: source}
	e.touched.Store(int64(now))
	t.flows[key] = e
	t.sources[source]++
	t.enter(e, now+t.limits.Idle)
	return e, first, ""
}

// Block is what counts as one source: an IPv4 address, or the /64 of an IPv6 address, of which everybody has many.
func Block(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || !a.IsValid() {
		return a
	}
	p, _ := a.Prefix(64) // of a valid address
	return p.Addr()
}

// enter puts a flow where it is looked at at a time. The caller holds mu.
func (t *Table[K, F]) enter(e *Entry[K, F], at time.Duration) {
	e.slot = int(max(int64(at/t.tick)+1, t.at) % wheelSlots)
	e.prev, e.next = nil, t.slots[e.slot]
	if e.next != nil {
		e.next.prev = e
	}
	t.slots[e.slot] = e
}

func (t *Table[K, F]) leave(e *Entry[K, F]) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		t.slots[e.slot] = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// Remove takes a flow out, and says whether it was there.
func (t *Table[K, F]) Remove(e *Entry[K, F]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(e)
}

func (t *Table[K, F]) remove(e *Entry[K, F]) bool {
	if e.gone {
		return false
	}
	t.leave(e)
	t.forget(e)
	return true
}

// forget takes a flow out that is in no slot any more.
func (t *Table[K, F]) forget(e *Entry[K, F]) {
	e.gone = true
	delete(t.flows, e.key)
	if t.sources[e.source]--; t.sources[e.source] == 0 {
		delete(t.sources, e.source)
	}
}

// Expire removes the flows that nothing touched for Limits.Idle and gives them. left says whether flows are left.
func (t *Table[K, F]) Expire(now time.Duration) (expired []*Entry[K, F], left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := int64(now / t.tick)
	t.at = max(t.at, to-wheelSlots) // after a long pause each slot is looked at once
	for ; t.at <= to; t.at++ {
		i := t.at % wheelSlots
		due := t.slots[i]
		t.slots[i] = nil
		for e := due; e != nil; {
			next := e.next
			e.next, e.prev = nil, nil
			if until := time.Duration(e.touched.Load()) + t.limits.Idle; until > now {
				t.enter(e, until) // in a slot behind to
			} else {
				t.forget(e)
				expired = append(expired, e)
			}
			e = next
		}
	}
	if len(t.flows) == 0 { // what a flood has made large is given back
		t.flows, t.sources = make(map[K]*Entry[K, F]), make(map[netip.Addr]int)
	}
	return expired, len(t.flows) > 0
}

// All gives the flows that are there.
func (t *Table[K, F]) All() []*Entry[K, F] {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Entry[K, F], 0, len(t.flows))
	for _, e := range t.flows {
		all = append(all, e)
	}
	return all
}

// Len is the number of flows.
func (t *Table[K, F]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

// Key is what the table knows the flow by.
func (e *Entry[K, F]) Key() K { return e.key }

// Touched is when a datagram of the visitor came last.
func (e *Entry[K, F]) Touched() time.Duration { return time.Duration(e.touched.Load()) }
