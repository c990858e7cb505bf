package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/internal/balancer"
)

func TestOnUsable(t *testing.T) {
	var told []bool
	var u *Upstream
	u = New(Config{Name: "app", OnUsable: func(usable bool) {
		told = append(told, usable)
		if usable != u.Usable() { // no lock is held
			t.Errorf("told that usable is %v, which it is not", usable)
		}
	}})
	want := func(what string, want ...bool) {
		t.Helper()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		told = nil
	}
	a, b := &node{name: "a"}, &node{name: "b"}
	u.Add(Placed{Member: a, Down: true})
	want("a member that is down")
	u.SetHealth(a, true, nil)
	want("it comes up", true)
	u.Add(Placed{Member: b, Backup: true})
	u.SetHealth(a, false, nil)
	want("a backup is left")
	_ = u.SetDrain("b", true)
	want("it is drained", false)
	_ = u.SetDrain("b", false)
	want("and no more", true)
	_ = u.SetWeight("b", 0)
	want("weight 0", false)
	_ = u.SetWeight("b", 1)
	want("and 1", true)
	b.gone.Store(true)
	u.settle()
	want("it is gone by its own word", false)
	b.gone.Store(false)
	visits(t, u, 1)
	want("it is back, as a visitor finds out", true)
	u.Remove(b)
	want("it is removed", false)
	u.Remove(b)
	u.SetHealth(a, true, nil)
	a.broken.Store(true)
	visits(t, u, 20)
	want("the last one refuses everybody", true)
}

// A call that changes the upstream is followed by its own call, after it and not within it.
func TestOnUsableMayUseTheUpstream(t *testing.T) {
	var told []bool
	var u *Upstream
	a := &node{name: "a"}
	u = New(Config{OnUsable: func(usable bool) {
		if usable {
			u.Remove(a)
		}
		told = append(told, usable)
	}})
	u.Add(Placed{Member: a})
	if diff := cmp.Diff([]bool{true, false}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestThousandMembers(t *testing.T) {
	for _, p := range balancer.Policies() {
		u := New(Config{Policy: p, Retries: -1})
		var all []*node
		for i := range 1000 {
			n := &node{name: fmt.Sprint(i)}
			n.gone.Store(i%10 == 3)
			all = append(all, n)
			u.Add(Placed{Member: n, Weight: 1 + i%3, MaxConns: 1})
		}
		for i := range 900 { // each takes its one
			if _, err := u.Dial(t.Context(), &Visit{ID: fmt.Sprint(i)}); err != nil {
				t.Fatalf("%s: dial %d: %v", p, i, err)
			}
		}
		if _, err := u.Dial(t.Context(), &Visit{}); ReasonOf(err) != QueueFull {
			t.Errorf("%s: got %v, want that all are full", p, err)
		}
		for i, n := range all {
			if got, want := n.dials.Load(), int64(1); i%10 == 3 && got != 0 || i%10 != 3 && got != want {
				t.Errorf("%s: member %d was asked %d times", p, i, got)
			}
		}
	}
}

func TestThousandThatRefuse(t *testing.T) {
	u := New(Config{Retries: -1})
	for i := range 1000 {
		n := &node{name: fmt.Sprint(i)}
		n.broken.Store(i != 777)
		u.Add(Placed{Member: n})
	}
	for range 5 { // some of them ejected meanwhile
		d, err := u.Dial(t.Context(), &Visit{})
		if err != nil || d.Place.Member().Name() != "777" {
			t.Fatalf("got %v, %v, want the only one that is well", d.Place, err)
		}
	}
}

func TestAllSuspect(t *testing.T) {
	u := New(Config{Retries: -1})
	for i := range 3 {
		u.Add(Placed{Member: &moody{place: place{name: fmt.Sprint(i)}, suspect: true}})
	}
	u.Add(Placed{Member: &moody{place: place{name: "spare"}, suspect: true}, Backup: true})
	c := u.Candidates(nil)
	if diff := cmp.Diff([]string{"0", "1", "2", "spare"}, ask(c)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if !u.Usable() {
		t.Error("not usable")
	}
}

// TestEverythingAtOnce changes all there is while visitors come and go, and then counts.
func TestEverythingAtOnce(t *testing.T) {
	for _, p := range balancer.Policies() {
		t.Run(string(p), func(t *testing.T) { everythingAtOnce(t, p) })
	}
}

func everythingAtOnce(t *testing.T, p balancer.Policy) {
	cfg := Config{
		Name: "app", Policy: p, Retries: 2, Queue: Queue{Max: 8, Timeout: 10 * time.Millisecond}, SlowStart: time.Millisecond,
		Ejection: Ejection{After: 2, For: time.Millisecond}, OnEjected: func(Member, Reason, time.Time) {}, OnFailedDial: func(Member, Reason) {},
	}
	var usable atomic.Int64
	cfg.OnUsable = func(is bool) { // by turns, or calls were lost or mixed up
		if n := usable.Add(map[bool]int64{true: 1, false: -1}[is]); n != 0 && n != 1 {
			t.Errorf("told twice that usable is %v", is)
		}
	}
	u, all := nodes(cfg, 12)
	for i, n := range all {
		u.Update(Placed{Member: n, Weight: i, MaxConns: 1 + i%3, Backup: i%4 == 3})
	}
	stop := make(chan struct{})
	var changers, visitors sync.WaitGroup
	for range 3 {
		changers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := all[rand.IntN(len(all))]
				switch rand.IntN(9) {
				case 0:
					u.Remove(n)
				case 1, 2:
					u.Add(Placed{Member: n, MaxConns: rand.IntN(3)})
				case 3:
					u.SetHealth(n, rand.IntN(2) == 0, errors.New("flaps"))
				case 4:
					_ = u.SetDrain(n.name, rand.IntN(2) == 0)
				case 5:
					_ = u.SetWeight(n.name, rand.IntN(4))
				case 6:
					n.broken.Store(rand.IntN(2) == 0)
				case 7:
					n.gone.Store(rand.IntN(2) == 0)
					u.settle()
				case 8:
					u.Places()
					u.Reconfigure(cfg)
				}
			}
		})
	}
	for range 8 {
		visitors.Go(func() {
			for i := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(20))*time.Millisecond)
				d, err := u.Dial(ctx, &Visit{ID: fmt.Sprint(i)})
				if err == nil {
					d.Place.Release()
				} else if d.Place != nil {
					t.Error("a failed dial kept its place")
				}
				cancel()
			}
		})
	}
	visitors.Wait()
	close(stop)
	changers.Wait()
	if n := u.Waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	for _, n := range all { // whatever seats there were: all is given back
		n.gone.Store(false)
		n.broken.Store(false)
		u.Add(Placed{Member: n})
		u.Update(Placed{Member: n, Weight: 1})
		u.SetHealth(n, true, nil)
		_ = u.SetDrain(n.name, false)
		_ = u.SetWeight(n.name, 1)
	}
	for _, s := range u.Places() {
		if s.Open != 0 || !s.Usable {
			t.Errorf("%s has %d open, and usable is %v", s.Name, s.Open, s.Usable)
		}
	}
	if usable.Load() != 1 {
		t.Error("the upstream was not told to be usable in the end")
	}
}

// A member that flaps while visitors wait for it loses none of them.
func TestFlappingWhileVisitorsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Name: "app", Queue: Queue{Max: 100, Timeout: time.Minute}})
		a, b := &node{name: "a"}, &node{name: "b"}
		u.Add(Placed{Member: a, MaxConns: 1})
		u.Add(Placed{Member: b, MaxConns: 1})
		l := newLine(u)
		for i := range 50 {
			l.all.Go(func() {
				d, err := u.Dial(t.Context(), &Visit{})
				if err != nil {
					t.Errorf("visitor %d: %v", i, err)
					return
				}
				time.Sleep(100 * time.Millisecond)
				d.Place.Release()
			})
		}
		for i := range 40 {
			time.Sleep(37 * time.Millisecond)
			u.SetHealth(b, i%2 == 1, errors.New("flaps"))
		}
		l.all.Wait()
		if got := a.dials.Load() + b.dials.Load(); got != 50 || b.dials.Load() == 0 {
			t.Errorf("%d visitors at a, %d at b, want 50 together", a.dials.Load(), b.dials.Load())
		}
	})
}

// All limits hold at any moment, and who waits is served, with many visitors at once.
func TestLimitsHoldUnderLoad(t *testing.T) {
	u := New(Config{Name: "app", Policy: balancer.LeastConn, Queue: Queue{Max: 1000, Timeout: time.Minute}})
	var open, most [3]atomic.Int64
	for i := range 3 {
		u.Add(Placed{Member: &node{name: fmt.Sprint(i)}, MaxConns: i + 1})
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 100 {
				d, err := u.Dial(t.Context(), &Visit{})
				if err != nil {
					t.Error(err)
					return
				}
				i := d.Place.Member().Name()[0] - '0'
				if n := open[i].Add(1); n > most[i].Load() {
					most[i].Store(n)
				}
				open[i].Add(-1)
				d.Place.Release()
			}
		})
	}
	all.Wait()
	for i := range most {
		if most[i].Load() > int64(i+1) {
			t.Errorf("member %d had %d connections at a time, want at most %d", i, most[i].Load(), i+1)
		}
	}
	if u.Waiting() != 0 {
		t.Errorf("%d still wait", u.Waiting())
	}
}

func TestDialAllocatesLittle(t *testing.T) {
	for _, n := range []int{1, 3, 64} {
		u := New(Config{})
		for range n {
			u.Add(Placed{Member: &quick{}})
		}
		v := &Visit{}
		if got := testing.AllocsPerRun(100, func() {
			d, _ := u.Dial(t.Context(), v)
			d.Place.Release()
		}); got > 1 {
			t.Errorf("a dial of %d members allocates %v times, want the place only", n, got)
		}
	}
}
