package accesslog

import (
	"net/netip"
	"strings"
	"sync/atomic"
)

// ring holds the newest entries. Each slot is replaced whole; writers take turns by a counter and nothing else.
type ring struct {
	slots []atomic.Pointer[Entry]
	next  atomic.Uint64
}

// put takes the oldest slot.
func (r *ring) put(e *Entry) {
	n := r.next.Add(1) - 1
	e.slot = &r.slots[n%uint64(len(r.slots))]
	e.slot.Store(e)
}

// replace puts a newer entry in the place of an old one, or in a new place if the old one has been overwritten.
func (r *ring) replace(old, e *Entry) {
	e.slot = old.slot
	if !e.slot.CompareAndSwap(old, e) {
		r.put(e)
	}
}

// Query chooses records. All that is given must fit; the zero Query fits all.
type Query struct {
	ID         string       // the beginning of a connection's id
	Source     netip.Prefix // holds the visitor's address
	Entrypoint string
	Limit      int // at most so many, the newest; 0 for no limit
}

func (q Query) fits(r *Record) bool {
	return strings.HasPrefix(r.ID, q.ID) &&
		(q.Entrypoint == "" || r.Entrypoint == q.Entrypoint) &&
		(!q.Source.IsValid() || q.Source.Contains(r.Source.Addr().Unmap().WithZone("")))
}

// find gives copies of the records that fit, newest first. It disturbs nobody: entries that come meanwhile may be missed.
func (r *ring) find(q Query) []Record {
	var found []Record
	next, size := r.next.Load(), uint64(len(r.slots))
	for i := range min(next, size) {
		e := r.slots[(next-1-i)%size].Load()
		if e == nil || !q.fits(&e.record) { // nil: its writer is at it
			continue
		}
		found = append(found, e.record)
		if q.Limit > 0 && len(found) == q.Limit {
			break
		}
	}
	return found
}
