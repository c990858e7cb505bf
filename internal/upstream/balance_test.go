package upstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/balancer"
)

// node is a member for concurrent use that gives connections while it is up.
type node struct {
	name   string
	broken atomic.Bool // refuses
	gone   atomic.Bool // is not usable
	dials  atomic.Int64
}

func (n *node) Name() string       { return n.name }
func (n *node) Protocol() Protocol { return Raw }
func (n *node) Usable() bool       { return !n.gone.Load() }

func (n *node) Dial(context.Context, *Visit) (Dialed, error) {
	n.dials.Add(1)
	if n.broken.Load() {
		return Dialed{}, &DialError{Member: n.name, Reason: Refused, Err: errors.New(n.name + " refused")}
	}
	return Dialed{}, nil
}

// nodes makes an upstream of as many nodes, all alike, named a, b, ….
func nodes(cfg Config, n int) (*Upstream, []*node) {
	cfg.Name = "app"
	u := New(cfg)
	var all []*node
	for i := range n {
		m := &node{name: fmt.Sprintf("%c", 'a'+i)}
		all = append(all, m)
		u.Add(Placed{Member: m})
	}
	return u, all
}

// visits dials so many times, each connection over before the next, and names who gave them.
func visits(t testing.TB, u *Upstream, n int) string {
	t.Helper()
	var s strings.Builder
	for range n {
		d, err := u.Dial(t.Context(), &Visit{})
		if err != nil {
			s.WriteString("-")
			continue
		}
		s.WriteString(d.Place.Member().Name())
		d.Place.Release()
	}
	return s.String()
}

// share is the part of many visits that a member gets.
func share(t testing.TB, u *Upstream, name string) float64 {
	t.Helper()
	const n = 2000
	return float64(strings.Count(visits(t, u, n), name)) / n
}

func state(u *Upstream, name string) PlaceState {
	all := u.Places()
	return all[slices.IndexFunc(all, func(p PlaceState) bool { return p.Name == name })]
}

func TestVisitorsByPolicyAndWeight(t *testing.T) {
	for _, tt := range []struct {
		policy balancer.Policy
		a, b   int
		want   string
	}{
		{"", 0, 0, "abababab"},
		{balancer.RoundRobin, 3, 1, "abaaabaa"},
		{balancer.LeastConn, 1, 1, "abababab"},
		{balancer.First, 1, 5, "aaaa"},
		{balancer.SourceHash, 1, 1, "aaaa"},
	} {
		u := New(Config{Policy: tt.policy})
		u.Add(Placed{Member: &node{name: "a"}, Weight: tt.a})
		u.Add(Placed{Member: &node{name: "b"}, Weight: tt.b})
		if got := visits(t, u, len(tt.want)); got != tt.want && !(tt.policy == balancer.SourceHash && got == "bbbb") {
			t.Errorf("%s with weights %d and %d: %s, want %s", tt.policy, tt.a, tt.b, got, tt.want)
		}
	}
}

func TestLeastConnLeavesTheBusyAlone(t *testing.T) {
	u, _ := nodes(Config{Policy: balancer.LeastConn}, 3)
	var held []*Place
	for range 7 {
		d, err := u.Dial(t.Context(), &Visit{})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, d.Place)
	}
	open := [3]int{}
	for i, p := range u.Places() {
		open[i] = p.Open
	}
	slices.Sort(open[:])
	if open != [3]int{2, 2, 3} {
		t.Errorf("open connections %v, want 2, 2, 3", open)
	}
	for _, p := range held { // all of one member's end
		if p.Member().Name() == "b" {
			p.Release()
		}
	}
	if got := visits(t, u, 3); got != "bbb" {
		t.Errorf("next visitors at %s, want the one without connections", got)
	}
}

func TestHandsOnWeights(t *testing.T) {
	u, all := nodes(Config{}, 2)
	if err := u.SetWeight("b", 0); err != nil {
		t.Fatal(err)
	}
	if got := visits(t, u, 4); got != "aaaa" {
		t.Errorf("with b at 0: %s", got)
	}
	if !u.Usable() {
		t.Error("the upstream is not usable with one of two at 0")
	}
	if p := state(u, "b"); p.Weight != 0 || p.Usable {
		t.Errorf("b is %+v, want it at weight 0 and not usable", p)
	}
	_ = u.SetWeight("a", 0)
	if u.Usable() || visits(t, u, 1) != "-" {
		t.Error("the upstream is usable with all at 0")
	}
	_ = u.SetWeight("b", 3)
	u.Update(Placed{Member: all[1], MaxConns: 9})
	if p := state(u, "b"); p.Weight != 3 || p.MaxConns != 9 {
		t.Errorf("b is %+v, want the limit of the update and the weight that was set by hand", p)
	}
	u.Remove(all[1])
	u.Add(Placed{Member: all[1]})
	if p := state(u, "b"); p.Weight != 3 {
		t.Errorf("b came back with weight %d, want 3 still", p.Weight)
	}
	u.Update(Placed{Member: all[1], Weight: 2})
	if p := state(u, "b"); p.Weight != 2 {
		t.Errorf("b has weight %d, want the 2 that it was given anew", p.Weight)
	}
	for _, w := range []int{-1, MaxWeight + 1} {
		if err := u.SetWeight("b", w); err == nil {
			t.Errorf("weight %d was taken", w)
		}
	}
	u.Update(Placed{Member: &node{name: "stranger"}}) // no fault
	u.Add(Placed{Member: &node{name: "c"}, Weight: -5, MaxConns: -1})
	if p := state(u, "c"); p.Weight != 1 || p.MaxConns != 0 {
		t.Errorf("c is %+v, want weight 1 and no limit", p)
	}
}

func TestDrain(t *testing.T) {
	u, all := nodes(Config{}, 2)
	open, err := u.Dial(t.Context(), &Visit{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.SetDrain("a", true); err != nil {
		t.Fatal(err)
	}
	if got := visits(t, u, 3); got != "bbb" {
		t.Errorf("visitors at %s, want none at the drained one", got)
	}
	if p := state(u, "a"); p.Open != 1 || !p.Draining || p.Usable {
		t.Errorf("a is %+v, want it draining with its connection", p)
	}
	open.Place.Release()
	u.Remove(all[0]) // a client that connects anew stays drained
	u.Add(Placed{Member: &node{name: "a"}})
	if got := visits(t, u, 3); got != "bbb" {
		t.Errorf("visitors at %s after a came back, want it drained still", got)
	}
	if err := u.SetDrain("a", false); err != nil {
		t.Fatal(err)
	}
	if got := visits(t, u, 4); strings.Count(got, "a") != 2 {
		t.Errorf("visitors at %s, want half at a", got)
	}
	for name, want := range map[string]string{"z": `upstream app has no member "z": it has a, b`} {
		if err := u.SetDrain(name, true); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if err := u.SetWeight(name, 1); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := New(Config{Name: "x"}).SetDrain("a", true); err == nil || !strings.Contains(err.Error(), "it has none at all") {
		t.Errorf("got %v", err)
	}
}

func TestBackups(t *testing.T) {
	u, all := nodes(Config{Retries: -1, Ejection: Ejection{After: -1}}, 2)
	spare := &node{name: "z"}
	u.Add(Placed{Member: spare, Backup: true})
	u.Add(Placed{Member: &node{name: "y"}, Backup: true})
	steps := []struct {
		what string
		do   func()
		want string
	}{
		{"all well", func() {}, "abab"},
		{"one drained", func() { _ = u.SetDrain("a", true) }, "bbbb"},
		{"one drained, one down", func() { u.SetHealth(all[1], false, errors.New("x")) }, "zyzy"},
		{"one up again", func() { u.SetHealth(all[1], true, nil) }, "bbbb"},
		{"it refuses: then a backup, in the same dial", func() { all[1].broken.Store(true) }, "zyzy"},
		{"it is gone by its own word", func() { all[1].gone.Store(true) }, "zyzy"},
		{"a backup is down too", func() { u.SetHealth(spare, false, nil) }, "yyyy"},
		{"a backup that is one no more", func() { u.SetHealth(spare, true, nil); u.Update(Placed{Member: spare}) }, "zzzz"},
	}
	for _, s := range steps {
		s.do()
		got := visits(t, u, 4)
		if got != s.want && got != rotated(s.want) {
			t.Errorf("%s: visitors at %s, want %s", s.what, got, s.want)
		}
	}
}

func rotated(s string) string { return s[1:] + s[:1] }

func TestHealth(t *testing.T) {
	u := New(Config{Name: "app"})
	m := &node{name: "a"}
	u.Add(Placed{Member: m, Down: true})
	if u.Usable() || visits(t, u, 1) != "-" {
		t.Error("a member that starts down was used")
	}
	u.SetHealth(m, true, nil)
	if got := visits(t, u, 1); got != "a" {
		t.Error("a member that is up was not used")
	}
	u.SetHealth(m, false, errors.New("connection refused"))
	if p := state(u, "a"); !p.Down || p.Usable || p.LastError != "connection refused" || p.LastErrorAt.IsZero() {
		t.Errorf("state %+v, want down with the reason", p)
	}
	u.SetHealth(m, true, nil)
	if p := state(u, "a"); p.Down || p.LastError != "connection refused" {
		t.Errorf("state %+v, want up, and why it was down", p)
	}
	u.SetHealth(&node{name: "stranger"}, false, nil) // no fault
}

func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		retries int
		asked   int64
	}{{0, 1}, {1, 2}, {2, 3}, {9, 4}, {-1, 4}} {
		u, all := nodes(Config{Retries: tt.retries, Ejection: Ejection{After: -1}}, 4)
		var asked int64
		for _, n := range all {
			n.broken.Store(true)
		}
		_, err := u.Dial(t.Context(), &Visit{})
		for _, n := range all {
			asked += n.dials.Load()
		}
		if asked != tt.asked {
			t.Errorf("with %d retries %d members were asked, want %d", tt.retries, asked, tt.asked)
		}
		var failed *DialError
		if !errors.As(err, &failed) || int64(len(failed.Tries)) != tt.asked || failed.Tries[0].Reason != Refused || failed.Tries[0].Member != "a" {
			t.Errorf("with %d retries the error is %+v, want it to tell of %d tries", tt.retries, failed, tt.asked)
		}
	}
}

func TestTriesOfADialThatSucceeds(t *testing.T) {
	u, all := nodes(Config{Retries: 2}, 3)
	all[0].broken.Store(true)
	d, err := u.Dial(t.Context(), &Visit{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.Tries {
		d.Tries[i].Took = 0
	}
	if diff := cmp.Diff([]Try{{Member: "a", Reason: Refused}}, d.Tries); diff != "" {
		t.Errorf("tries (-want +got):\n%s", diff)
	}
	if p := state(u, "a"); p.Failed != 1 || p.Total != 1 || p.Open != 0 || p.LastError != "a refused" {
		t.Errorf("a is %+v, want one try, which failed", p)
	}
	if d, _ := u.Dial(t.Context(), &Visit{}); d.Tries != nil {
		t.Errorf("tries are %v, want none", d.Tries)
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Retries: -1})
		for _, name := range []string{"a", "b"} {
			u.Add(Placed{Member: hanging(name)})
		}
		begun := time.Now()
		_, err := u.Dial(t.Context(), &Visit{Limit: 300 * time.Millisecond})
		if took := time.Since(begun); took != 600*time.Millisecond || ReasonOf(err) != TimedOut {
			t.Errorf("%v after %s, want a timeout after the time of two", err, took)
		}
	})
}

// hanging is a member that never answers.
type hanging string

func (h hanging) Name() string       { return string(h) }
func (h hanging) Protocol() Protocol { return Raw }

func (h hanging) Dial(ctx context.Context, _ *Visit) (Dialed, error) {
	<-ctx.Done()
	return Dialed{}, &DialError{Member: string(h), Reason: ReasonOf(ctx.Err()), Err: ctx.Err()}
}

// As HAProxy's: the share of one of two members over ten seconds.
func TestSlowStart(t *testing.T) {
	for _, tt := range []struct {
		name string
		back func(u *Upstream, a, b *node)
		slow bool
	}{
		{"members of the beginning", func(u *Upstream, a, b *node) {
			u.Add(Placed{Member: a})
			u.Add(Placed{Member: b})
		}, false},
		{"down from the beginning, then up", func(u *Upstream, a, b *node) {
			u.Add(Placed{Member: a})
			u.Add(Placed{Member: b, Down: true})
			u.SetHealth(b, true, nil)
		}, false},
		{"down and up again", func(u *Upstream, a, b *node) {
			u.Add(Placed{Member: a})
			u.Add(Placed{Member: b})
			u.SetHealth(b, false, nil)
			time.Sleep(time.Hour)
			u.SetHealth(b, true, nil)
			u.SetHealth(b, true, nil)
		}, true},
		{"added to a running upstream", func(u *Upstream, a, b *node) {
			u.Add(Placed{Member: a})
			visits(t, u, 1)
			u.Add(Placed{Member: b})
		}, true},
		{"drained and back", func(u *Upstream, a, b *node) {
			u.Add(Placed{Member: a})
			u.Add(Placed{Member: b})
			_ = u.SetDrain("b", true)
			visits(t, u, 1)
			_ = u.SetDrain("b", false)
		}, false},
		{"ejected, and its time over", func(u *Upstream, a, b *node) {
			u.Add(Placed{Member: a})
			u.Add(Placed{Member: b})
			b.broken.Store(true)
			visits(t, u, 6)
			b.broken.Store(false)
			time.Sleep(10 * time.Second)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := New(Config{SlowStart: 10 * time.Second, Retries: 1})
				tt.back(u, &node{name: "a"}, &node{name: "b"})
				begun := time.Now()
				for _, at := range []struct {
					after time.Duration
					share float64
				}{{0, .03}, {2 * time.Second, .167}, {5 * time.Second, .333}, {8 * time.Second, .444}, {10 * time.Second, .5}} {
					time.Sleep(time.Until(begun.Add(at.after)))
					want := at.share
					if !tt.slow {
						want = .5
					}
					if got := share(t, u, "b"); math.Abs(got-want) > .01 {
						t.Errorf("after %s its share is %.3f, want %.3f", at.after, got, want)
					}
				}
			})
		})
	}
}

// homes is where visitors of many addresses go.
func homes(t testing.TB, u *Upstream) []string {
	t.Helper()
	var at []string
	for i := range 300 {
		d, err := u.Dial(t.Context(), &Visit{Source: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)})
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, d.Place.Member().Name())
		d.Place.Release()
	}
	return at
}

// Whatever takes a member out moves its own visitors and nobody else's, and they are back when it is.
func TestSourceHashThroughAllThatHappensToAMember(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1}, {1, 5, 2, 1}} {
		u, all := nodes(Config{Policy: balancer.SourceHash, Retries: 3, Ejection: Ejection{After: 1}}, 4)
		for i, w := range weights {
			u.Update(Placed{Member: all[i], Weight: w})
		}
		before := homes(t, u)
		b := all[1]
		for _, tt := range []struct {
			what      string
			out, back func()
		}{
			{"drained", func() { _ = u.SetDrain("b", true) }, func() { _ = u.SetDrain("b", false) }},
			{"down", func() { u.SetHealth(b, false, errors.New("x")) }, func() { u.SetHealth(b, true, nil) }},
			{"weight 0", func() { _ = u.SetWeight("b", 0) }, func() { _ = u.SetWeight("b", weights[1]) }},
			{"out of reach", func() { b.gone.Store(true) }, func() { b.gone.Store(false) }},
			{"refusing, and ejected", func() { b.broken.Store(true) }, func() { b.broken.Store(false); forgive(u, b) }},
			{"full", func() { u.Update(Placed{Member: b, Weight: weights[1], MaxConns: 1}); hold(t, u, b) }, func() { u.Update(Placed{Member: b, Weight: weights[1]}) }},
			{"removed", func() { u.Remove(b) }, func() { u.Add(Placed{Member: b, Weight: weights[1]}) }},
			{"there", func() {}, func() {}},
		} {
			tt.out()
			for i, now := range homes(t, u) {
				if before[i] == "b" != (now != before[i]) && tt.what != "there" || tt.what == "there" && now != before[i] {
					t.Fatalf("weights %v, b is %s: visitor %d of %s is at %s", weights, tt.what, i, before[i], now)
				}
			}
			tt.back()
			if diff := cmp.Diff(before, homes(t, u)); diff != "" {
				t.Fatalf("weights %v, when b is no more %s (-before +then):\n%s", weights, tt.what, diff)
			}
		}
	}
}

// forgive is what an active check does that finds an ejected member well.
func forgive(u *Upstream, m Member) {
	u.SetHealth(m, false, nil)
	u.SetHealth(m, true, nil)
}

// hold takes a place at a member, for good.
func hold(t testing.TB, u *Upstream, m Member) {
	t.Helper()
	c := u.Candidates(nil)
	for i := range c.Len() {
		if c.At(i) == m {
			if p, at := c.Claim(i); p == nil || at != i {
				t.Fatal("it has no place")
			}
			return
		}
	}
}

// A member of first is filled before the next has anyone, and has visitors again as soon as it has room.
func TestFirstFillsOneMemberAfterTheOther(t *testing.T) {
	u := New(Config{Policy: balancer.First})
	for _, name := range []string{"a", "b", "c"} {
		u.Add(Placed{Member: &node{name: name}, MaxConns: 2})
	}
	var places []*Place
	at := ""
	for range 6 {
		d, err := u.Dial(t.Context(), &Visit{})
		if err != nil {
			t.Fatal(err)
		}
		places, at = append(places, d.Place), at+d.Place.Member().Name()
	}
	if at != "aabbcc" {
		t.Errorf("visitors at %s, want aabbcc", at)
	}
	places[3].Release()
	places[0].Release()
	if got := visits(t, u, 2); got != "aa" {
		t.Errorf("visitors at %s, want the first that has room", got)
	}
}
