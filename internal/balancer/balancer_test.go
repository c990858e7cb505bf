package balancer

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// weighted makes candidates 0, 1, … of the weights, without connections.
func weighted(weights ...uint32) []Candidate {
	c := make([]Candidate, len(weights))
	for i, w := range weights {
		c[i] = Candidate{Index: int32(i), Weight: w, Key: Key(fmt.Sprint("member ", i))}
	}
	return c
}

// order is the indices in the policy's order. It leaves c alone.
func order(p Policy, c []Candidate, q Query) []int {
	var o Order
	p.Append(&o, slices.Clone(c), q)
	return list(&o)
}

func list(o *Order) []int {
	var s []int
	for i := range o.Len() {
		s = append(s, o.At(i))
	}
	return s
}

// firsts names the first of the orders of so many turns: a, b, …
func firsts(p Policy, c []Candidate, turns int) string {
	var s strings.Builder
	for t := range turns {
		s.WriteByte(byte('a' + order(p, c, Query{Turn: uint64(t)})[0]))
	}
	return s.String()
}

func TestRoundRobinSpreadsByWeight(t *testing.T) {
	for _, tt := range []struct {
		weights []uint32
		want    string
	}{
		{[]uint32{1}, "aaaa"},
		{[]uint32{1, 1}, "abababab"},
		{[]uint32{7, 7, 7}, "abcabcabc"},
		{[]uint32{0, 0}, "abab"},
		{[]uint32{3, 1}, "abaaabaa"},
		{[]uint32{2, 1}, "abaaba"},
		{[]uint32{5, 1, 1}, "aaabacaaaabac"},
		{[]uint32{3072, 1024}, "abaaabaa"}, // as 3 to 1
		{[]uint32{3, 2}, "ababa"},
	} {
		if got := firsts(RoundRobin, weighted(tt.weights...), len(tt.want)); got != tt.want {
			t.Errorf("weights %v: %s, want %s", tt.weights, got, tt.want)
		}
	}
}

func TestRoundRobinGoesOnBehindTheFirst(t *testing.T) {
	for turn, want := range [][]int{{0, 1, 2}, {1, 2, 0}, {2, 0, 1}, {0, 1, 2}} {
		if got := order(RoundRobin, weighted(1, 1, 1), Query{Turn: uint64(turn)}); !slices.Equal(got, want) {
			t.Errorf("turn %d: %v, want %v", turn, got, want)
		}
	}
}

// In every stretch of turns each candidate comes as often as its weight says, but for a few.
func TestRoundRobinIsSmooth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := weighted(rapid.SliceOfN(rapid.Uint32Range(1, 200), 2, 8).Draw(t, "weights")...)
		turn := rapid.Uint64Max(math.MaxUint64-10_000).Draw(t, "turn")
		n := rapid.IntRange(1, 2000).Draw(t, "turns")
		var total uint64
		for i := range c {
			total += c[i].weight()
		}
		count := make([]int, len(c))
		for i := range n {
			count[order(RoundRobin, c, Query{Turn: turn + uint64(i)})[0]]++
		}
		for i := range c {
			want := float64(n) * float64(c[i].weight()) / float64(total)
			if d := math.Abs(float64(count[i]) - want); d > 4 {
				t.Fatalf("candidate %d of weights %v came %d times in %d turns from %d, want about %.1f", i, c, count[i], n, turn, want)
			}
		}
	})
}

// A whole round that is short gives each candidate exactly its share.
func TestRoundRobinIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := weighted(rapid.SliceOfN(rapid.Uint32Range(1, 8), 1, 4).Draw(t, "weights")...)
		total := 0
		for i := range c {
			total += int(c[i].Weight)
		}
		turn := rapid.Uint64Max(1<<40).Draw(t, "turn")
		count := make([]int, len(c))
		for i := range total {
			count[order(RoundRobin, c, Query{Turn: turn + uint64(i)})[0]]++
		}
		for i := range c {
			if count[i] != int(c[i].Weight) {
				t.Fatalf("weights %v: %v in %d turns", c, count, total)
			}
		}
	})
}

func TestRoundRobinWithALongRound(t *testing.T) {
	c := weighted(1_000_003, 3)
	var second int
	const turns = 1_000_000
	for i := range uint64(turns) {
		if order(RoundRobin, c, Query{Turn: i})[0] == 1 {
			second++
		}
	}
	if second < 1 || second > 6 {
		t.Errorf("the light one came %d times in a million turns, want about 3", second)
	}
}

func TestLeastConn(t *testing.T) {
	open := func(n ...int64) []Candidate {
		c := weighted(1, 1, 1)
		for i := range c {
			c[i].Open = n[i]
		}
		return c
	}
	heavy := open(2, 2, 2)
	heavy[1].Weight = 4
	for _, tt := range []struct {
		name string
		c    []Candidate
		want string
	}{
		{"all alike: by turns", open(0, 0, 0), "abcabc"},
		{"one has fewer", open(3, 2, 3), "bbb"},
		{"two have as few: those by turns", open(1, 5, 1), "acacac"},
		{"as few for its weight", heavy, "bbb"},
	} {
		if got := firsts(LeastConn, tt.c, len(tt.want)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got, want := order(LeastConn, open(9, 1, 4), Query{}), []int{1, 2, 0}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// Connections that stay are spread by weight.
func TestLeastConnFillsByWeight(t *testing.T) {
	c := weighted(3, 1, 2)
	for turn := range uint64(600) {
		c[order(LeastConn, c, Query{Turn: turn})[0]].Open++
	}
	if got := [3]int64{c[0].Open, c[1].Open, c[2].Open}; got != [3]int64{300, 100, 200} {
		t.Errorf("open connections %v, want 300, 100, 200", got)
	}
}

func TestRandomTwoPrefersTheLessLoaded(t *testing.T) {
	c := weighted(1, 1, 1, 1)
	c[2].Open = 100
	count := make([]int, 4)
	roll := uint64(1)
	for range 10_000 {
		roll = mix(roll + golden)
		count[order(RandomTwo, c, Query{Roll: roll})[0]]++
	}
	if count[2] != 0 {
		t.Errorf("the loaded one came first %d times; it is never alone", count[2])
	}
	for _, i := range []int{0, 1, 3} {
		if count[i] < 3000 || count[i] > 3700 {
			t.Errorf("first tries %v, want a third each but for the loaded one", count)
		}
	}
}

func TestRandomTwoDrawsByWeight(t *testing.T) {
	c := weighted(6, 1, 1)
	count := make([]int, 3)
	roll := uint64(7)
	for range 8000 { // which stay
		roll = mix(roll + golden)
		first := order(RandomTwo, c, Query{Roll: roll})[0]
		count[first]++
		c[first].Open++
	}
	for i, want := range []int{6000, 1000, 1000} {
		if math.Abs(float64(count[i]-want)) > 100 {
			t.Errorf("connections %v, want about 6000, 1000, 1000", count)
		}
	}
}

func addr(i int) uint64 {
	return SourceKey(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
}

// A candidate that goes moves its own visitors only, and has them again when it is back.
func TestSourceHashMovesOnlyWhoMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.SampledFrom([]uint32{1, 1, 1, 2, 5}), 2, 20).Draw(t, "weights")
		all := weighted(weights...)
		gone := rapid.IntRange(0, len(all)-1).Draw(t, "gone")
		rest := slices.Delete(slices.Clone(all), gone, gone+1)
		for i := range 100 {
			q := Query{Source: addr(i), Turn: uint64(i)}
			before, after := order(SourceHash, all, q), order(SourceHash, rest, q)
			if before[0] == gone {
				if after[0] != before[1] {
					t.Fatalf("visitor %d of the one that went has %v, want its second choice of %v", i, after, before)
				}
			} else if after[0] != before[0] {
				t.Fatalf("visitor %d moved from %d to %d although %d went", i, before[0], after[0], gone)
			}
		}
	})
}

// A weight that changes moves visitors to or from that candidate only.
func TestSourceHashFollowsWeights(t *testing.T) {
	light, heavy := weighted(1, 1, 1, 1), weighted(1, 1, 3, 1)
	count := make([]int, 4)
	for i := range 30_000 {
		q := Query{Source: addr(i)}
		before, after := order(SourceHash, light, q)[0], order(SourceHash, heavy, q)[0]
		if before != after && after != 2 {
			t.Fatalf("visitor %d moved from %d to %d", i, before, after)
		}
		count[after]++
	}
	for i, want := range []int{5000, 5000, 15_000, 5000} {
		if math.Abs(float64(count[i]-want)) > 500 {
			t.Errorf("visitors %v, want about a sixth each, and half at the heavy one", count)
		}
	}
}

func TestSourceHashIsTheSameEverywhere(t *testing.T) {
	// Balancers of several versions must agree: these numbers must not change.
	c := weighted(1, 1, 1, 1, 1)
	var got []int
	for i := range 10 {
		got = append(got, order(SourceHash, c, Query{Source: addr(i)})[0])
	}
	if want := []int{1, 3, 3, 4, 3, 1, 2, 0, 3, 0}; !slices.Equal(got, want) {
		t.Errorf("visitors have %v, want %v", got, want)
	}
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	if SourceKey(v4) != SourceKey(v6) {
		t.Error("an IPv4 address written as IPv6 is another visitor")
	}
	if SourceKey(netip.MustParseAddr("2001:db8::1")) == SourceKey(netip.MustParseAddr("2001:db8:1::1")) {
		t.Error("IPv6 addresses of two networks are one visitor")
	}
}

func TestFirstKeepsTheOrder(t *testing.T) {
	c := weighted(1, 9, 1)
	c[0].Open = 100
	for turn := range uint64(3) {
		if got, want := order(First, c, Query{Turn: turn, Roll: turn}), []int{0, 1, 2}; !slices.Equal(got, want) {
			t.Errorf("turn %d: %v, want %v", turn, got, want)
		}
	}
}

// Every order of every policy has every candidate once, whatever they are told.
func TestOrdersAreWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(t, "candidates")
		c := make([]Candidate, n)
		want := make([]int, n)
		for i := range c {
			index := i * rapid.IntRange(1, 3).Draw(t, "gap")
			if i > 0 {
				index = max(index, want[i-1]+1)
			}
			want[i] = index
			c[i] = Candidate{
				Index:  int32(index),
				Weight: rapid.Uint32().Draw(t, "weight"),
				Open:   rapid.Int64Range(0, math.MaxInt64).Draw(t, "open"),
				Key:    rapid.Uint64().Draw(t, "key"),
			}
		}
		q := Query{rapid.Uint64().Draw(t, "turn"), rapid.Uint64().Draw(t, "roll"), rapid.Uint64().Draw(t, "source")}
		for _, p := range append(Policies(), "", "unheard of") {
			got := order(p, c, q)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %v, want each of %v once", p, got, want)
			}
		}
	})
}

// The best of many are in front, in their order.
func TestTheBestOfManyLead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := weighted(make([]uint32, rapid.IntRange(1, 300).Draw(t, "candidates"))...)
		for i := range c {
			c[i].Open = rapid.Int64Range(0, 1000).Draw(t, "open")
		}
		want := slices.Clone(c)
		slices.SortFunc(want, func(a, b Candidate) int { return int(a.Open - b.Open) })
		for i, index := range order(LeastConn, c, Query{})[:min(len(c), ranked)] {
			if c[index].Open != want[i].Open {
				t.Fatalf("the candidate at %d has %d open, want %d", i, c[index].Open, want[i].Open)
			}
		}
	})
}

func TestOrderAppends(t *testing.T) {
	var o Order
	First.Append(&o, []Candidate{{Index: 7}}, Query{})
	First.Append(&o, nil, Query{})
	First.Append(&o, []Candidate{{Index: 3}, {Index: 700}}, Query{})
	First.Append(&o, []Candidate{{Index: 1}}, Query{})
	if got, want := list(&o), []int{7, 3, 700, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAtPanicsOutOfRange(t *testing.T) {
	for _, i := range []int{-1, 3} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("At(%d) of 3 returned, want a panic", i)
				}
			}()
			var o Order
			RoundRobin.Append(&o, weighted(1, 1, 1), Query{})
			o.At(i)
		}()
	}
}

func TestOrdersOfFewAllocateNothing(t *testing.T) {
	c := weighted(make([]uint32, few)...)
	c[5].Weight = 3
	scratch := make([]Candidate, few)
	for _, p := range Policies() {
		turn := uint64(0)
		if n := testing.AllocsPerRun(100, func() {
			var o Order
			o.Grow(few)
			turn++
			p.Append(&o, scratch[:copy(scratch, c)], Query{Turn: turn, Roll: mix(turn), Source: turn})
			_ = o.At(few - 1)
		}); n != 0 {
			t.Errorf("%s makes %v allocations, want 0", p, n)
		}
	}
}

func BenchmarkOrder(b *testing.B) {
	for _, p := range Policies() {
		for _, n := range []int{3, 64, 1000} {
			for _, weights := range []string{"equal", "weighted"} {
				b.Run(fmt.Sprintf("%s/%s/%d", p, weights, n), func(b *testing.B) {
					c := weighted(make([]uint32, n)...)
					if weights == "weighted" {
						c[0].Weight = 3
					}
					scratch := make([]Candidate, n)
					b.ReportAllocs()
					turn := uint64(0)
					for b.Loop() {
						var o Order
						o.Grow(n)
						turn++
						p.Append(&o, scratch[:copy(scratch, c)], Query{Turn: turn, Roll: mix(turn), Source: turn})
					}
				})
			}
		}
	}
}
