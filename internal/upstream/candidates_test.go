package upstream

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// moody is a member that tells how it is.
type moody struct {
	place
	unusable, suspect bool
}

func (m *moody) Usable() bool  { return !m.unusable }
func (m *moody) Suspect() bool { return m.suspect }

// ask gives the names in the order in which they would be tried.
func ask(c Candidates) []string {
	var order []string
	for i := range c.Len() {
		order = append(order, c.At(i).Name())
	}
	return order
}

func TestCandidatesBySuspicion(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members string // w: well, p: a member that cannot tell, s: suspect, u: unusable, b: unusable and suspect
		orders  [][]string
	}{
		{"all well", "wpw", [][]string{{"0", "1", "2"}, {"1", "2", "0"}, {"2", "0", "1"}}},
		{"one suspect", "swp", [][]string{{"1", "2", "0"}, {"2", "1", "0"}, {"1", "2", "0"}}},
		{"two suspect", "sws", [][]string{{"1", "0", "2"}, {"1", "2", "0"}, {"1", "0", "2"}}},
		{"all suspect", "sss", [][]string{{"0", "1", "2"}, {"1", "2", "0"}, {"2", "0", "1"}}},
		{"one unusable", "wuw", [][]string{{"0", "2"}, {"2", "0"}, {"0", "2"}}},
		{"unusable and suspect", "wbs", [][]string{{"0", "2"}, {"0", "2"}, {"0", "2"}}},
		{"all unusable", "uub", [][]string{nil, nil, nil}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream("x")
			for i, how := range tt.members {
				p := place{name: fmt.Sprint(i)}
				if how == 'p' {
					u.Add(Placed{Member: &p})
					continue
				}
				u.Add(Placed{Member: &moody{p, how == 'u' || how == 'b', how == 's' || how == 'b'}})
			}
			for turn, want := range tt.orders {
				if diff := cmp.Diff(want, ask(u.Candidates(nil))); diff != "" {
					t.Errorf("turn %d (-want +got):\n%s", turn, diff)
				}
			}
		})
	}
}

func TestCandidatesOfMany(t *testing.T) {
	for _, n := range []int{63, 64, 65, 200} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			u := newUpstream("x")
			var well, suspect []string
			for i := range n {
				m := &moody{place: place{name: fmt.Sprint(i)}, unusable: i%3 == 0, suspect: i%7 == 1}
				u.Add(Placed{Member: m})
				switch {
				case m.unusable:
				case m.suspect:
					suspect = append(suspect, m.name)
				default:
					well = append(well, m.name)
				}
			}
			c := u.Candidates(nil)
			if diff := cmp.Diff(slices.Concat(well, suspect), ask(c)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			defer func() {
				if recover() == nil {
					t.Error("a candidate out of range was given")
				}
			}()
			c.At(c.Len())
		})
	}
}

func TestCandidatesAreASnapshot(t *testing.T) {
	a, b := &moody{place: place{name: "a"}, suspect: true}, &moody{place: place{name: "b"}}
	u := newUpstream("x")
	u.Add(Placed{Member: a})
	u.Add(Placed{Member: b})
	c := u.Candidates(nil)
	a.suspect, b.unusable = false, true
	if diff := cmp.Diff([]string{"b", "a"}, ask(c)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestDialLeavesUnusableMembersAlone(t *testing.T) {
	broken, suspect := &moody{place: place{name: "broken"}, unusable: true}, &moody{place: place{name: "suspect"}, suspect: true}
	u := newUpstream("x")
	u.Add(Placed{Member: broken})
	if d, err := u.Dial(t.Context(), &Visit{}); memberOf(d) != nil || ReasonOf(err) != NoMember {
		t.Errorf("dial gave %v, %v, want that there is no member", d.Place, err)
	}
	u.Add(Placed{Member: suspect})
	if d, err := u.Dial(t.Context(), &Visit{Patience: time.Hour}); memberOf(d) != suspect || err != nil {
		t.Errorf("dial gave %v, %v, want the suspect", d.Place, err)
	}
	if len(broken.visits) != 0 {
		t.Error("the unusable member was asked")
	}
	if got := suspect.visits[0].Patience; got != 0 {
		t.Errorf("the last usable member has %v, want no limit", got)
	}
}

func TestCandidatesAllocateNothing(t *testing.T) {
	u := newUpstream("x")
	for i := range 64 {
		u.Add(Placed{Member: &moody{unusable: i%5 == 0, suspect: i%3 == 0}})
	}
	if n := testing.AllocsPerRun(100, func() {
		c := u.Candidates(nil)
		for i := range c.Len() {
			c.At(i)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkCandidatesByState(b *testing.B) {
	for _, bb := range []struct {
		name    string
		suspect bool
	}{{"all well", false}, {"one suspect", true}} {
		b.Run(bb.name, func(b *testing.B) {
			u := newUpstream("x")
			for range 8 {
				u.Add(Placed{Member: &moody{}})
			}
			u.Add(Placed{Member: &moody{suspect: bb.suspect}})
			b.ReportAllocs()
			for b.Loop() {
				c := u.Candidates(nil)
				c.At(0)
			}
		})
	}
}
