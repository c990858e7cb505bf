package balancer

import (
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestOrderStartsOneFurtherEachCall(t *testing.T) {
	var r RoundRobin
	for i, want := range [][]int{{0, 1, 2}, {1, 2, 0}, {2, 0, 1}, {0, 1, 2}} {
		if diff := cmp.Diff(want, list(r.Order(3))); diff != "" {
			t.Errorf("call %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestOrderOfFew(t *testing.T) {
	tests := []struct {
		name string
		n    int
		want []int
	}{
		{"one candidate", 1, []int{0}},
		{"no candidate", 0, nil},
		{"fewer than none", -1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r RoundRobin
			for range 3 {
				if diff := cmp.Diff(tt.want, list(r.Order(tt.n))); diff != "" {
					t.Errorf("Order(%d) (-want +got):\n%s", tt.n, diff)
				}
			}
		})
	}
}

func TestOrderGoesOnWhenTheCounterWraps(t *testing.T) {
	var r RoundRobin
	r.next.Store(math.MaxUint64)
	for range 3 {
		if got := sorted(r.Order(3)); !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("got %v, want each of 0, 1, 2 once", got)
		}
	}
}

func TestAtPanicsOutOfRange(t *testing.T) {
	var r RoundRobin
	for _, i := range []int{-1, 3} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("At(%d) of 3 returned, want a panic", i)
				}
			}()
			r.Order(3).At(i)
		}()
	}
}

// Every order has every candidate once, however the number of candidates changes.
func TestOrderIsARotation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r RoundRobin
		r.next.Store(rapid.Uint64().Draw(t, "calls before"))
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 20), 1, 20).Draw(t, "candidates") {
			got := list(r.Order(n))
			for i := range got {
				if want := (got[0] + i) % n; got[i] != want {
					t.Fatalf("Order(%d) = %v, want a rotation", n, got)
				}
			}
			if len(got) != n {
				t.Fatalf("Order(%d) = %v, want %d candidates", n, got, n)
			}
		}
	})
}

func TestOrderOfTheMostCandidatesDoesNotOverflow(t *testing.T) {
	var r RoundRobin
	r.next.Store(math.MaxInt - 1)
	o := r.Order(math.MaxInt)
	if first, second := o.At(0), o.At(1); first != math.MaxInt-1 || second != 0 {
		t.Errorf("got %d, then %d; want %d, then 0", first, second, math.MaxInt-1)
	}
}

func TestConcurrentCallsShareEvenly(t *testing.T) {
	const callers, calls, n = 8, 1000, 4
	var (
		r     RoundRobin
		wg    sync.WaitGroup
		mu    sync.Mutex
		first [n]int
	)
	for range callers {
		wg.Go(func() {
			var mine [n]int
			for range calls {
				mine[r.Order(n).At(0)]++
			}
			mu.Lock()
			defer mu.Unlock()
			for i, m := range mine {
				first[i] += m
			}
		})
	}
	wg.Wait()
	if want := [n]int{2000, 2000, 2000, 2000}; first != want {
		t.Errorf("first tries %v, want %v", first, want)
	}
}

func TestOrderAllocatesNothing(t *testing.T) {
	var r RoundRobin
	sum := 0
	if n := testing.AllocsPerRun(100, func() {
		o := r.Order(100)
		for i := range o.Len() {
			sum += o.At(i)
		}
	}); n != 0 {
		t.Errorf("Order makes %v allocations, want 0", n)
	}
	_ = sum
}

func BenchmarkOrder(b *testing.B) {
	var r RoundRobin
	b.ReportAllocs()
	for b.Loop() {
		r.Order(100).At(0)
	}
}

func BenchmarkOrderParallel(b *testing.B) {
	var r RoundRobin
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Order(100).At(0)
		}
	})
}

func list(o Order) []int {
	var s []int
	for i := range o.Len() {
		s = append(s, o.At(i))
	}
	return s
}

func sorted(o Order) []int {
	s := list(o)
	slices.Sort(s)
	return s
}
