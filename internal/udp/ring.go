package udp

// ring is a list of flows that a flow enters and leaves at no cost, whichever ring it is in. Its head has no entry.
type ring[K comparable, F any] struct {
	prev, next *ring[K, F]
	entry      *Entry[K, F]
}

// clear makes an empty ring of its head.
func (r *ring[K, F]) clear() { r.prev, r.next = r, r }

// first is the flow that was added before the others; nil if there is none.
func (r *ring[K, F]) first() *Entry[K, F] { return r.next.entry }

// add adds a flow, which is in no other ring, as the last one.
func (r *ring[K, F]) add(e *ring[K, F]) {
	e.prev, e.next = r.prev, r
	e.prev.next, e.next.prev = e, e
}

// leave takes a flow out of its ring. One that is in none stays so.
func (r *ring[K, F]) leave() {
	r.prev.next, r.next.prev = r.next, r.prev
	r.clear()
}

// moveTo gives an empty ring all that is in this one.
func (r *ring[K, F]) moveTo(other *ring[K, F]) {
	if r.next == r {
		return
	}
	*other = ring[K, F]{prev: r.prev, next: r.next}
	other.prev.next, other.next.prev = other, other
	r.clear()
}
