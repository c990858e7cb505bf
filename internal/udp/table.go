package udp

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"culvert/internal/cidr"
)

// Limits bound a table.
type Limits struct {
	Flows     int           // flows at once, at least 1
	PerSource int           // flows at once of one source; 0: no limit of its own
	Idle      time.Duration // a flow that was not touched for this long expires
	Room      *Room         // that it shares with other tables; may be nil
}

// Refusal is why a table takes no flow.
type Refusal string

// The refusals.
const (
	Full      Refusal = "table_full" // it has as many flows as it may
	PerSource Refusal = "per_source" // the source has as many flows as it may
)

// Table is the flows of one socket. Where there is no place left, a new flow gets that of the one which was silent for
// longest of those that are over, as far as one can tell: their visitor asked, got its answer or waited in vain, and fell
// silent. So a service that gets each question from another port needs no more places than questions come in a second. A
// flow that is established, as a conversation is, keeps its place until it is removed or expires. Times are durations since
// whatever the caller's clock began with. It is safe for concurrent use.
//
// Nothing here takes longer with more flows, but for All. Expiry costs no timer per flow: flows stand in a wheel of slots by
// when they are to be looked at.
type Table[K comparable, F any] struct {
	limits Limits
	tick   time.Duration // a slot's part of the time

	mu       sync.Mutex
	flows    map[K]*Entry[K, F]
	sources  map[netip.Addr]*source[K, F]
	fleeting fleeting[K, F]
	slots    [wheelSlots]ring[K, F]
	at       int64 // the slots before this one, counted from the clock's beginning, have been looked at
}

// wheelSlots is how many slots the wheel has. A flow is looked at no more than Idle ahead, which is half of them.
const wheelSlots = 64

// source is who has flows.
type source[K comparable, F any] struct {
	addr     netip.Addr
	flows    int
	fleeting fleeting[K, F]
}

// Entry is a flow in a table.
type Entry[K comparable, F any] struct {
	Flow F

	key         K
	touched     atomic.Int64 // when a datagram of its visitor came last
	established atomic.Bool

	// The table's mutex guards these.
	source      *source[K, F]
	sent, got   int           // datagrams of its visitor, and of members; until it is established
	heard       time.Duration // when one came last, either way; until then, too
	slot        ring[K, F]
	all, nearby ring[K, F] // among the fleeting of the table, and of the source
	gone        bool
}

// NewTable makes an empty table.
func NewTable[K comparable, F any](limits Limits) *Table[K, F] {
	limits.Flows = max(limits.Flows, 1)
	t := &Table[K, F]{limits: limits, tick: max(limits.Idle/(wheelSlots/2), 1)}
	t.fleeting.clear()
	for i := range t.slots {
		t.slots[i].clear()
	}
	t.empty()
	return t
}

// empty gives back what a flood has made large.
func (t *Table[K, F]) empty() {
	t.flows, t.sources = make(map[K]*Entry[K, F]), make(map[netip.Addr]*source[K, F])
}

// Tick is how often Expire is to be called while there are flows: a flow expires that much late at most.
func (t *Table[K, F]) Tick() time.Duration { return t.tick }

// Get finds a flow to which its visitor has sent a datagram.
func (t *Table[K, F]) Get(key K, now time.Duration) *Entry[K, F] {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.flows[key]
	if e != nil {
		e.touched.Store(int64(now))
		if !e.established.Load() {
			e.sent++
			t.hear(e, now)
		}
	}
	return e
}

// Answered takes note that a member has sent a datagram to a flow's visitor.
func (t *Table[K, F]) Answered(e *Entry[K, F], now time.Duration) {
	if e.established.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !e.gone && !e.established.Load() {
		e.got++
		t.hear(e, now)
	}
}

// hear puts a flow behind all of its kind, or finds that it is established. The caller holds mu.
func (t *Table[K, F]) hear(e *Entry[K, F], now time.Duration) {
	e.all.leave()
	e.nearby.leave()
	if e.got > 0 && e.sent >= EstablishedAfter {
		e.established.Store(true)
		return
	}
	e.heard = now
	t.fleeting.kind(e).add(&e.all)
	e.source.fleeting.kind(e).add(&e.nearby)
}

// Added is a flow that was added.
type Added[K comparable, F any] struct {
	Entry    *Entry[K, F]
	First    bool         // the table was empty
	Replaced *Entry[K, F] // whose place it has, and which is removed; nil if there was room
}

// Add adds a flow, which must not be there, with its first datagram; or says why it does not.
func (t *Table[K, F]) Add(key K, from netip.Addr, now time.Duration) (Added[K, F], Refusal) {
	block := cidr.Source(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	replaced, why := t.makeRoom(block, now)
	if why != "" {
		return Added[K, F]{}, why
	}
	added := Added[K, F]{Replaced: replaced, First: replaced == nil && len(t.flows) == 0}
	if added.First {
		t.at = int64(now / t.tick)
	}
	if replaced != nil {
		t.remove(replaced)
	}
	s := t.sources[block]
	if s == nil {
		s = &source[K, F]{addr: block}
		s.fleeting.clear()
		t.sources[block] = s
	}
	s.flows++
	e := &Entry[K, F]{key: key, source: s, sent: 1}
	for _, r := range []*ring[K, F]{&e.slot, &e.all, &e.nearby} {
		r.entry = e
		r.clear()
	}
	e.touched.Store(int64(now))
	t.flows[key] = e
	t.limits.Room.add(1)
	t.enter(e, now+t.limits.Idle)
	t.hear(e, now)
	added.Entry = e
	return added, ""
}

// makeRoom finds out whether a flow of a source has room, and which one is to go for it. The caller holds mu.
func (t *Table[K, F]) makeRoom(block netip.Addr, now time.Duration) (goes *Entry[K, F], why Refusal) {
	switch s := t.sources[block]; {
	case t.limits.PerSource > 0 && s != nil && s.flows >= t.limits.PerSource:
		goes, why = s.fleeting.over(now), PerSource
	case len(t.flows) >= t.limits.Flows || t.limits.Room.full():
		goes, why = t.fleeting.over(now), Full
	}
	if goes != nil {
		why = ""
	}
	return goes, why
}

// enter puts a flow where it is looked at at a time. The caller holds mu.
func (t *Table[K, F]) enter(e *Entry[K, F], at time.Duration) {
	t.slots[max(int64(at/t.tick)+1, t.at)%wheelSlots].add(&e.slot)
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
	e.gone = true
	e.slot.leave()
	e.all.leave()
	e.nearby.leave()
	delete(t.flows, e.key)
	t.limits.Room.add(-1)
	if e.source.flows--; e.source.flows == 0 {
		delete(t.sources, e.source.addr)
	}
	return true
}

// Expire removes the flows that nothing touched for Limits.Idle and gives them. left says whether flows are left.
func (t *Table[K, F]) Expire(now time.Duration) (expired []*Entry[K, F], left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := int64(now / t.tick)
	t.at = max(t.at, to-wheelSlots) // after a long pause each slot is looked at once
	for ; t.at <= to; t.at++ {
		var due ring[K, F]
		due.clear()
		t.slots[t.at%wheelSlots].moveTo(&due)
		for e := due.first(); e != nil; e = due.first() {
			e.slot.leave()
			if until := e.Touched() + t.limits.Idle; until > now {
				t.enter(e, until) // in a slot behind to
			} else {
				t.remove(e)
				expired = append(expired, e)
			}
		}
	}
	if len(t.flows) == 0 {
		t.empty()
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
