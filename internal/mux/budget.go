package mux

import "sync/atomic"

// Budget bounds the memory that all sessions of a process have for data on its way. It holds for each of two things alone:
// what peers have been granted to send before anybody reads it, and what is kept for peers that have not acknowledged it.
// Each stream always gets leastWindow, so the bound is exceeded by that much a stream once it is reached.
type Budget struct {
	limit int64
	used  atomic.Int64 // granted
	kept  atomic.Int64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// defaultBudget is that of a session which shares none.
const defaultBudget = 64 << 20

// Used is how much of the budget is granted at the moment, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

// Limit is the budget, in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// take grants n bytes if they are there.
func (b *Budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

// force grants n bytes in any case.
func (b *Budget) force(n int64) { b.used.Add(n) }

func (b *Budget) give(n int64) { b.used.Add(-n) }

// keep counts n bytes more, or less, that are kept for peers.
func (b *Budget) keep(n int64) { b.kept.Add(n) }

// full says that no more is to be kept than each stream's least.
func (b *Budget) full() bool { return b.kept.Load() > b.limit-b.limit/8 }

// short says that windows must not grow, and that idle memory is wanted back.
func (b *Budget) short() bool { return b.used.Load() > b.limit-b.limit/8 }
