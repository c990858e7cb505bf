// Package balancer decides in which order candidates are tried.
//
// It is pure: it knows candidates by what it is told of them, and neither dials nor reads a clock nor draws numbers. A
// policy answers with a whole order, so that trying the next candidate needs no second decision. Who may be a candidate
// at all is the caller's business.
package balancer

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// Policy names the way in which an order is made. The zero Policy is RoundRobin.
type Policy string

// The policies.
const (
	RoundRobin Policy = "round_robin" // by turns, in proportion to the weights and spread evenly
	LeastConn  Policy = "least_conn"  // the fewest open connections for its weight first, equals by turns
	RandomTwo  Policy = "random_two"  // of two drawn by weight the one with fewer open connections
	SourceHash Policy = "source_hash" // a visitor's address keeps its candidate while that is there
	First      Policy = "first"       // as they are given
)

// Policies lists all policies.
func Policies() []Policy { return []Policy{RoundRobin, LeastConn, RandomTwo, SourceHash, First} }

// Candidate is what a policy is told of one candidate.
type Candidate struct {
	Index  int32  // what the Order calls it
	Weight uint32 // its share, relative to the others'; 0 counts as 1
	Open   int64  // its open connections
	Key    uint64 // tells it from others for as long as it is the same: Key of its name
}

// Query is what an order is asked for.
type Query struct {
	Turn   uint64 // one more with each query
	Roll   uint64 // random; of RandomTwo
	Source uint64 // SourceKey of the visitor; of SourceHash
}

// ranked is how many candidates LeastConn and SourceHash put in their order; the others follow in any. More are never
// tried in practice, and sorting a thousand for each connection would cost more than the connection.
const ranked = 8

// Append adds the candidates to the order, as the policy has it, behind those that are there. It changes c.
func (p Policy) Append(o *Order, c []Candidate, q Query) {
	if len(c) == 0 {
		return
	}
	start := 0
	switch p {
	case LeastConn:
		leastConn(c, q.Turn)
	case RandomTwo:
		drawTwo(c, q.Roll)
	case SourceHash:
		byHash(c, q.Source)
	case First:
	default:
		start = inTurn(c, q.Turn)
	}
	for i := range c {
		if i += start; i >= len(c) {
			i -= len(c)
		}
		o.add(c[i].Index)
	}
}

// golden is the part of 2^64, about 0.618 of it, whose multiples are spread most evenly.
const golden = 0x9E3779B97F4A7C15

// longRound is from how many turns on a round of turns is too long for anybody to count in.
const longRound = 32

// inTurn is whose turn it is. Turns are points on a line on which each candidate has a stretch as long as its weight.
// Equal candidates simply follow each other. Otherwise consecutive turns are a step of about 0.618 of the line apart,
// which spreads each candidate's turns evenly without any state but the turn: no candidate is ever more than a few turns
// ahead or behind. In a round that is short the step has no factor in common with it, so that the shares are exact.
func inTurn(c []Candidate, turn uint64) int {
	if equal(c) {
		return int(turn % uint64(len(c)))
	}
	unit, total := uint64(0), uint64(0)
	for i := range c {
		w := c[i].weight()
		unit, total = gcd(w, unit), total+w
	}
	at, _ := bits.Mul64(turn*golden, total)
	if round := total / unit; round <= longRound {
		at = turn % round * step(round) % round * unit
	}
	return stretch(c, at)
}

// step is what is nearest to 0.618 of the round and has no factor in common with it.
func step(round uint64) uint64 {
	s := (round*618 + 500) / 1000
	for d := uint64(0); ; d++ {
		if gcd(s+d, round) == 1 {
			return s + d
		}
		if d < s && gcd(s-d, round) == 1 {
			return s - d
		}
	}
}

// stretch is the candidate on whose stretch of the line the point is.
func stretch(c []Candidate, at uint64) int {
	for i := range c {
		w := c[i].weight()
		if at < w {
			return i
		}
		at -= w
	}
	return len(c) - 1
}

// leastConn puts the least loaded first: of several the one whose turn it is.
func leastConn(c []Candidate, turn uint64) {
	least, equals := 0, uint64(0)
	for i := range c {
		c[i].Key = math.Float64bits(c[i].load())
		switch {
		case i == 0 || c[i].Key < c[least].Key:
			least, equals = i, 1
		case c[i].Key == c[least].Key:
			equals++
		}
	}
	first := least
	for nth := turn % equals; nth > 0; {
		if first++; c[first].Key == c[least].Key {
			nth--
		}
	}
	rotate(c, first)
	lead(c)
}

// load is what the open connections would be with one more, for the weight.
func (c *Candidate) load() float64 { return float64(c.Open+1) / float64(c.weight()) }

// drawTwo draws two candidates by weight and puts the less loaded first, then the other, then all others from anywhere on.
func drawTwo(c []Candidate, roll uint64) {
	if len(c) == 1 {
		return
	}
	first := draw(c, roll)
	c[0], c[first] = c[first], c[0]
	rest := c[1:]
	roll = mix(roll)
	second := draw(rest, roll)
	rest[0], rest[second] = rest[second], rest[0]
	if c[1].load() < c[0].load() {
		c[0], c[1] = c[1], c[0]
	}
	if rest = c[2:]; len(rest) > 1 {
		rotate(rest, int(mix(roll)%uint64(len(rest))))
	}
}

func draw(c []Candidate, roll uint64) int {
	var total uint64
	for i := range c {
		total += c[i].weight()
	}
	at, _ := bits.Mul64(roll, total)
	return stretch(c, at)
}

// byHash is rendezvous hashing: each candidate draws a lot for the visitor that depends on nothing but the two of them, and
// the best lot wins. So a candidate that goes moves only its own visitors, and takes them back when it returns. With
// weights the lots are times of decay, of which each is the shortest as often as its rate has it.
func byHash(c []Candidate, source uint64) {
	equal := equal(c)
	for i := range c {
		lot := mix(c[i].Key ^ source)
		if equal {
			c[i].Key = ^lot // the order is the same as that of the times
			continue
		}
		even := (float64(lot>>11) + 0.5) / (1 << 53) // more than 0, less than 1
		c[i].Key = math.Float64bits(-math.Log(even) / float64(c[i].weight()))
	}
	lead(c)
}

// lead puts the lowest keys in front, in their order. Of equals it keeps the one in front that was in front. (Bits of
// positive floats are in the order of the floats.)
func lead(c []Candidate) {
	for i := 1; i < len(c); i++ {
		x, at := c[i], i
		if i >= ranked {
			if at = ranked - 1; x.Key >= c[at].Key {
				continue
			}
			c[i] = c[at] // which is one of the best no more
		}
		for ; at > 0 && x.Key < c[at-1].Key; at-- {
			c[at] = c[at-1]
		}
		c[at] = x
	}
}

// rotate moves the first n behind the others.
func rotate(c []Candidate, n int) {
	slices.Reverse(c[:n])
	slices.Reverse(c[n:])
	slices.Reverse(c)
}

func equal(c []Candidate) bool {
	for i := range c {
		if c[i].weight() != c[0].weight() {
			return false
		}
	}
	return true
}

func (c *Candidate) weight() uint64 { return max(1, uint64(c.Weight)) }

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Key is what a Candidate has of its name. It is the same on every machine, so that several balancers send a visitor to
// the same member.
func Key(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return mix(h)
}

// SourceKey is what a Query has of a visitor's address.
func SourceKey(a netip.Addr) uint64 {
	b := a.As16()
	return mix(binary.BigEndian.Uint64(b[8:]) + mix(binary.BigEndian.Uint64(b[:8])))
}

// mix spreads what is in x over all bits, one to one.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
