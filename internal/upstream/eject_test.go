package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		begun := time.Now()
		u, all := nodes(Config{Retries: 1, OnEjected: func(m Member, r Reason, until time.Time) {
			told = append(told, fmt.Sprintf("%s %s until %s", m.Name(), r, until.Sub(begun)))
		}}, 2)
		a := all[0]
		a.broken.Store(true)
		visits(t, u, 20)
		if got := a.dials.Load(); got != 3 {
			t.Errorf("the broken one was asked %d times, want 3", got)
		}
		if p := state(u, "a"); !p.EjectedUntil.Equal(begun.Add(10*time.Second)) || p.Eligible || !p.Usable {
			t.Errorf("a is %+v, want it ejected for 10 s", p)
		}
		// One visitor tries it when its time is over, and then each time twice as late.
		for _, until := range []int{10, 30, 70, 150, 310, 610, 910} {
			time.Sleep(time.Until(begun.Add(time.Duration(until)*time.Second - time.Nanosecond)))
			before := a.dials.Load()
			visits(t, u, 10)
			if a.dials.Load() != before {
				t.Errorf("it was asked before %d s", until)
			}
			time.Sleep(time.Nanosecond)
			if got := visits(t, u, 10); got != "bbbbbbbbbb" || a.dials.Load() != before+1 {
				t.Errorf("after %d s it was asked %d times, visitors are at %s", until, a.dials.Load()-before, got)
			}
		}
		a.broken.Store(false)
		time.Sleep(time.Hour)
		if got := visits(t, u, 4); strings.Count(got, "a") != 2 {
			t.Errorf("visitors at %s, want half at the one that is well again", got)
		}
		a.broken.Store(true) // from the beginning: three failures, ten seconds
		before := a.dials.Load()
		visits(t, u, 20)
		if got := a.dials.Load() - before; got != 3 {
			t.Errorf("it was asked %d times, want 3", got)
		}
		until := time.Since(begun) + 10*time.Second
		want := []string{"10s", "30s", "1m10s", "2m30s", "5m10s", "10m10s", "15m10s", "20m10s"}
		for i := range want {
			want[i] = "a refused until " + want[i]
		}
		want = append(want, "a refused until "+until.String())
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

// A dead address costs one connect timeout in the time of an ejection.
func TestEjectionOfABlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Retries: 2, Ejection: Ejection{After: 1}})
		u.Add(Placed{Member: hanging("hole")})
		u.Add(Placed{Member: &node{name: "b"}})
		slow := 0
		for range 100 {
			d, err := u.Dial(t.Context(), &Visit{Limit: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if d.Tries != nil {
				slow++
			}
			time.Sleep(90 * time.Millisecond)
		}
		if slow != 1 {
			t.Errorf("%d of 100 visitors waited for the black hole, want 1", slow)
		}
	})
}

// When an ejection ends, one visitor finds out how the member is; the others of that moment do not wait for it.
func TestOneVisitorTriesWhoWasEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Retries: 2, Ejection: Ejection{After: 1}})
		u.Add(Placed{Member: hanging("hole")})
		u.Add(Placed{Member: &node{name: "b"}})
		var slow atomic.Int64
		var visitors sync.WaitGroup
		for range 1000 { // over 100 s, in which it has trials after 10, 30 and 70 s
			visitors.Go(func() {
				d, err := u.Dial(t.Context(), &Visit{Limit: time.Second})
				if err != nil {
					t.Error(err)
				}
				if d.Tries != nil {
					slow.Add(1)
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		visitors.Wait()
		// The ten of the first second did not know: every other one of them came to it.
		if n := slow.Load(); n < 4 || n > 10 {
			t.Errorf("%d of 1000 visitors waited for the black hole, want 5 of the first second and one for each of three trials", n)
		}
	})
}

// A trial of which nothing is heard is followed by another.
func TestTrialThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, all := nodes(Config{Retries: 1, Ejection: Ejection{After: 1}}, 2)
		all[0].broken.Store(true)
		visits(t, u, 2)
		all[0].broken.Store(false)
		time.Sleep(11 * time.Second)
		c := u.Candidates(nil)
		for c.At(0) != Member(all[0]) {
			c = u.Candidates(nil)
		}
		p, _ := c.Claim(0)
		p.Release() // without a word on how it went
		if got := visits(t, u, 10); got != "bbbbbbbbbb" {
			t.Errorf("while one tries the member, others are at %s", got)
		}
		time.Sleep(trialTime)
		if got := visits(t, u, 10); strings.Count(got, "a") != 5 {
			t.Errorf("after the trial visitors are at %s", got)
		}
	})
}

func TestEjectionLeavesHalf(t *testing.T) {
	for _, tt := range []struct {
		members, ejected int
	}{{1, 0}, {2, 1}, {3, 1}, {4, 2}, {5, 2}} {
		u, all := nodes(Config{Retries: -1}, tt.members)
		for _, n := range all {
			n.broken.Store(true)
		}
		visits(t, u, 20)
		ejected := 0
		for _, p := range u.Places() {
			if !p.EjectedUntil.IsZero() {
				ejected++
			}
		}
		if ejected != tt.ejected {
			t.Errorf("%d of %d members are ejected, want %d", ejected, tt.members, tt.ejected)
		}
		if !u.Usable() {
			t.Error("ejection made the upstream unusable")
		}
	}
}

// Members that cannot be used count for nothing.
func TestEjectionLeavesTheLastUsable(t *testing.T) {
	u, all := nodes(Config{Retries: -1}, 4)
	u.SetHealth(all[1], false, errors.New("x"))
	_ = u.SetDrain("c", true)
	all[3].gone.Store(true)
	all[0].broken.Store(true)
	visits(t, u, 20)
	if p := state(u, "a"); !p.EjectedUntil.IsZero() || !p.Eligible {
		t.Errorf("the last usable member is %+v, want it not ejected", p)
	}
	_ = u.SetDrain("c", false)
	visits(t, u, 2)
	if p := state(u, "a"); p.EjectedUntil.IsZero() {
		t.Errorf("a is %+v, want it ejected, as another one is usable again", p)
	}
}

// Who is ejected is asked when nobody else is left.
func TestEjectedIsTheLastResort(t *testing.T) {
	u, all := nodes(Config{Retries: 2}, 2)
	spare := &node{name: "z"}
	u.Add(Placed{Member: spare, Backup: true})
	all[0].broken.Store(true)
	visits(t, u, 6)
	if got := visits(t, u, 3); got != "bbb" {
		t.Fatalf("visitors at %s, want b", got)
	}
	all[1].broken.Store(true)
	if got := visits(t, u, 1); got != "z" {
		t.Errorf("visitor at %s, want the backup before the ejected", got)
	}
	spare.broken.Store(true)
	all[0].broken.Store(false)
	if got := visits(t, u, 1); got != "a" {
		t.Errorf("visitor at %s, want the ejected one, as all others refuse", got)
	}
	if p := state(u, "a"); !p.EjectedUntil.IsZero() {
		t.Error("it is ejected although it gave a connection")
	}
}

// A primary that is ejected makes way for the backup, without a try each time.
func TestEjectedPrimaryMakesWayForTheBackup(t *testing.T) {
	u, all := nodes(Config{Retries: 2}, 1)
	u.Add(Placed{Member: &node{name: "z"}, Backup: true})
	all[0].broken.Store(true)
	if got := visits(t, u, 10); got != "zzzzzzzzzz" || all[0].dials.Load() != 3 {
		t.Errorf("visitors at %s, and %d tries of the broken one; want the backup and 3", got, all[0].dials.Load())
	}
}

func TestEjectionWhenTheOtherGoesDown(t *testing.T) {
	u, all := nodes(Config{Retries: 1}, 2)
	all[0].broken.Store(true)
	visits(t, u, 6)
	all[0].broken.Store(false)
	u.SetHealth(all[1], false, errors.New("x"))
	if !u.Usable() {
		t.Error("the upstream is not usable while its only member is ejected")
	}
	if got := visits(t, u, 2); got != "aa" {
		t.Errorf("visitors at %s, want the ejected one, as there is no other", got)
	}
}

func TestBothOfTwoFail(t *testing.T) {
	u, all := nodes(Config{Retries: 1}, 2)
	for _, n := range all {
		n.broken.Store(true)
	}
	if got := visits(t, u, 10); got != "----------" {
		t.Errorf("visitors at %s, want none", got)
	}
	all[1].broken.Store(false)
	if got := visits(t, u, 4); got != "bbbb" {
		t.Errorf("visitors at %s, want the one that is well again, whichever was ejected", got)
	}
}

// Dials that began before a member was ejected do not make it worse.
func TestDialsUnderWayWhenEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{})
		answer := make(chan struct{})
		u.Add(Placed{Member: later{answer}})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { _, _ = u.Dial(t.Context(), &Visit{}) })
		}
		synctest.Wait()
		u.Add(Placed{Member: &node{name: "b"}})
		close(answer)
		all.Wait()
		if p := state(u, "later"); p.Failed != 20 || time.Until(p.EjectedUntil) != 10*time.Second {
			t.Errorf("after 20 failures at once it is %+v, want it ejected for 10 s", p)
		}
	})
}

// later is a member that refuses when it is told to.
type later struct{ answer chan struct{} }

func (later) Name() string       { return "later" }
func (later) Protocol() Protocol { return Raw }

func (l later) Dial(context.Context, *Visit) (Dialed, error) {
	<-l.answer
	return Dialed{}, &DialError{Member: "later", Reason: Refused, Err: errors.New("no")}
}

// A member whose ejection ends early, because it gave a connection, starts slowly from then on.
func TestEjectionThatEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, all := nodes(Config{Retries: 1, SlowStart: 10 * time.Second, Ejection: Ejection{For: time.Minute}}, 2)
		all[0].broken.Store(true)
		visits(t, u, 6)
		time.Sleep(2 * time.Second)
		all[0].broken.Store(false)
		all[1].broken.Store(true)
		if got := visits(t, u, 1); got != "a" {
			t.Fatalf("visitor at %s, want the ejected one", got)
		}
		all[1].broken.Store(false)
		time.Sleep(10 * time.Second)
		if got := share(t, u, "a"); got != .5 {
			t.Errorf("its share is %.3f after its slow start, want a half", got)
		}
	})
}

func TestEjectionOff(t *testing.T) {
	u, all := nodes(Config{Retries: 1, Ejection: Ejection{After: -1}}, 2)
	all[0].broken.Store(true)
	visits(t, u, 20)
	if got := all[0].dials.Load(); got != 10 {
		t.Errorf("the broken one was asked %d times, want each second time", got)
	}
}

func TestVisitorsThatLeaveEjectNobody(t *testing.T) {
	u := New(Config{Ejection: Ejection{After: 1}})
	gone := refusing("a", Canceled)
	u.Add(Placed{Member: gone})
	u.Add(Placed{Member: &node{name: "b"}})
	visits(t, u, 4)
	if p := state(u, "a"); !p.EjectedUntil.IsZero() || p.Failed != 0 {
		t.Errorf("a is %+v, want nothing held against it", p)
	}
}

func TestActiveCheckEndsAnEjection(t *testing.T) {
	u, all := nodes(Config{Retries: 1}, 2)
	all[0].broken.Store(true)
	visits(t, u, 6)
	all[0].broken.Store(false)
	u.SetHealth(all[0], false, errors.New("x"))
	u.SetHealth(all[0], true, nil)
	if got := visits(t, u, 4); strings.Count(got, "a") != 2 {
		t.Errorf("visitors at %s, want half at the one that the check says is up", got)
	}
}
