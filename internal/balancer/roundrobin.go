// Package balancer decides in which order candidates are tried.
//
// It is pure: it knows candidates by their index only, and neither dials nor reads a clock. A policy answers with a whole
// order, so that trying the next candidate needs no second decision.
package balancer

import "sync/atomic"

// RoundRobin gives every candidate the same share of first tries. The zero value is ready for use, and safe for concurrent
// use; it must not be copied after first use.
type RoundRobin struct {
	next atomic.Uint64
}

// Order is the next order of n candidates: each call starts one further than the one before. When n changes between calls
// the starting point moves, but no candidate is left out of any order. It takes no lock and allocates nothing.
func (r *RoundRobin) Order(n int) Order {
	if n <= 0 {
		return Order{}
	}
	// Add hands out each number once, so concurrent calls share the candidates evenly.
	return Order{start: int((r.next.Add(1) - 1) % uint64(n)), n: n}
}

// Order is a rotation of the indices 0 to n-1. The zero Order is empty.
type Order struct {
	start, n int
}

// Len is how many candidates there are.
func (o Order) Len() int { return o.n }

// At is the index of the candidate to try as the i-th, from 0. Like a slice, it panics if i is out of range.
func (o Order) At(i int) int {
	if i < 0 || i >= o.n {
		panic("balancer: index out of range")
	}
	if i >= o.n-o.start { // start+i could overflow
		return i - (o.n - o.start)
	}
	return o.start + i
}
