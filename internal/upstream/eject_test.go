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
		if p := state(u, "a"); !p.EjectedUntil.Equal(begun.Add(10*time.Second)) || !p.Usable {
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
	if p := state(u, "a"); !p.EjectedUntil.IsZero() || !p.Usable {
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

// With another upstream to go to, visitors leave even the only member alone while it is a black hole.
func TestTheLastMemberIsEjectedWhereThereIsAnotherUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var usable []bool
		u := New(Config{Name: "app", Ejection: Ejection{Most: 30 * time.Second}, OnUsable: func(is bool) { usable = append(usable, is) }})
		hole := &blackHole{node: node{name: "hole"}}
		hole.silent.Store(true)
		u.Add(Placed{Member: hole})
		begun := time.Now()
		visit := func(elsewhere bool) (Reason, time.Duration) {
			begun := time.Now()
			d, err := u.Dial(t.Context(), &Visit{Limit: time.Second, Elsewhere: elsewhere})
			d.Place.Release()
			if err == nil {
				return "", time.Since(begun)
			}
			return ReasonOf(err), time.Since(begun)
		}
		var waited []string
		for time.Since(begun) < 2*time.Minute {
			at := time.Since(begun)
			switch reason, took := visit(true); {
			case reason == TimedOut && took == time.Second:
				waited = append(waited, at.String())
			case reason != Ejected || took != 0:
				t.Fatalf("after %s a visitor got %q after %s, want it to go on at once", at, reason, took)
			}
			time.Sleep(100 * time.Millisecond)
		}
		// One after the other the first three, and then one in 10, 20, 30, 30, … s.
		want := []string{"0s", "1.1s", "2.2s", "13.2s", "34.2s", "1m5.2s", "1m36.2s"}
		if diff := cmp.Diff(want, waited); diff != "" {
			t.Errorf("visitors who waited (-want +got):\n%s", diff)
		}
		if reason, _ := visit(false); reason != TimedOut {
			t.Errorf("who has no other upstream got %q, want the member asked", reason)
		}
		hole.silent.Store(false)
		if reason, took := visit(false); reason != "" || took != 0 {
			t.Errorf("who has no other upstream got %q after %s from a member that is well", reason, took)
		}
		if reason, _ := visit(true); reason != "" {
			t.Errorf("when it has given a connection a visitor got %q", reason)
		}
		if diff := cmp.Diff([]bool{true}, usable); diff != "" || !u.Usable() {
			t.Errorf("ejection changed what is usable: %s", diff)
		}
	})
}

// blackHole is a node that gives no answer while it is silent.
type blackHole struct {
	node
	silent atomic.Bool
}

func (b *blackHole) Dial(ctx context.Context, v *Visit) (Dialed, error) {
	if b.silent.Load() {
		return hanging(b.name).Dial(ctx, v)
	}
	return b.node.Dial(ctx, v)
}

// While one visitor finds out whether the only member is well again, the others go elsewhere at once, and status says why.
func TestOthersGoElsewhereDuringATrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Ejection: Ejection{After: 1}})
		u.Add(Placed{Member: hanging("hole")})
		v := &Visit{Limit: time.Second, Elsewhere: true}
		if _, err := u.Dial(t.Context(), v); ReasonOf(err) != TimedOut {
			t.Fatalf("the first got %v", err)
		}
		time.Sleep(10 * time.Second)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := u.Dial(t.Context(), v); ReasonOf(err) != TimedOut {
				t.Errorf("the one who tries it got %v", err)
			}
		}()
		synctest.Wait()
		if _, err := u.Dial(t.Context(), v); ReasonOf(err) != Ejected {
			t.Errorf("another of that moment got %v", err)
		}
		if p := state(u, "hole"); p.EjectedUntil.IsZero() {
			t.Errorf("during the trial it is %+v, want it ejected", p)
		}
		<-done
	})
}

// Who refuses costs nobody time, and is to have its visitors at once when it is there: all of them are ejected by time-outs
// alone.
func TestTheLastMemberThatRefusesIsAskedEachTime(t *testing.T) {
	u, all := nodes(Config{Retries: -1}, 2)
	for _, n := range all {
		n.broken.Store(true)
	}
	for range 10 {
		if _, err := u.Dial(t.Context(), &Visit{Elsewhere: true}); ReasonOf(err) != Refused {
			t.Fatalf("got %v", err)
		}
	}
	all[0].broken.Store(false)
	all[1].broken.Store(false)
	if d, err := u.Dial(t.Context(), &Visit{Elsewhere: true}); err != nil {
		t.Errorf("got %v, %v, when they are there", d.Place, err)
	}
}

// An ejected member is not the last resort of who has another upstream, and nobody waits for it in the queue.
func TestNobodyWaitsForAnEjectedMemberWhoCanGoElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := busy(t, Queue{Max: 5, Timeout: time.Minute})
		l.u.Reconfigure(Config{Name: "app", Queue: Queue{Max: 5, Timeout: time.Minute}, Ejection: Ejection{After: 1}})
		var err error
		l.all.Go(func() { _, err = l.u.Dial(t.Context(), &Visit{Elsewhere: true}) })
		synctest.Wait()
		l.join(t.Context(), "1")
		time.Sleep(time.Second)
		s := l.u.set.Load().seats[0]
		l.u.failedAt(s, &DialError{Reason: TimedOut, Err: errors.New("x")}, true)
		l.u.settle()
		synctest.Wait()
		var d *DialError
		if !errors.As(err, &d) || d.Reason != Ejected || d.Queued != time.Second {
			t.Errorf("who could go elsewhere got %+v, want it to have gone after a second", err)
		}
		if n := l.u.Waiting(); n != 1 {
			t.Errorf("%d wait, want the one who cannot", n)
		}
		l.leave("0")
		l.wantErr(t, "1", "", time.Second)
	})
}

func TestEjectionThatIsTurnedOffEnds(t *testing.T) {
	u, all := nodes(Config{Retries: 1}, 2)
	all[0].broken.Store(true)
	visits(t, u, 6)
	all[0].broken.Store(false)
	u.Reconfigure(Config{Retries: 2})
	if p := state(u, "a"); p.EjectedUntil.IsZero() {
		t.Error("another configuration has ended an ejection")
	}
	u.Reconfigure(Config{Retries: 1, Ejection: Ejection{After: -1}})
	if got := visits(t, u, 4); strings.Count(got, "a") != 2 {
		t.Errorf("visitors at %s, want half at the one that nobody leaves alone any more", got)
	}
}

// A queue that a reload brings while a member is ejected is served when its time is over, like one of before.
func TestAQueueThatComesDuringAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Name: "app", Ejection: Ejection{After: 1}, Retries: -1}
		u := New(cfg)
		a, b := &node{name: "a"}, &node{name: "b"}
		u.Add(Placed{Member: a, MaxConns: 9})
		u.Add(Placed{Member: b, MaxConns: 1})
		l := newLine(u)
		a.broken.Store(true)
		l.join(t.Context(), "0") // a fails, b has it
		a.broken.Store(false)
		cfg.Queue = Queue{Max: 9, Timeout: time.Minute}
		u.Reconfigure(cfg)
		l.join(t.Context(), "1")
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		l.want(t, "when the ejection is over", "0 1")
		l.leave("0")
		l.all.Wait()
	})
}

// Services of datagrams may never say a word: that none refuses during its trial is as good as a success.
func TestTrialOfAServiceThatNeverAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		datagrams, refused bool
		want               int // of ten visitors
	}{
		"datagrams":              {datagrams: true, want: 5},
		"datagrams, but refused": {datagrams: true, refused: true, want: 0},
		"a connection":           {want: 1}, // the next trial
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, _ := nodes(Config{Ejection: Ejection{After: 1}}, 2)
				v := &Visit{Datagrams: tt.datagrams}
				claim := func() *Place {
					c := u.Candidates(v)
					p, _ := c.Claim(0)
					return p
				}
				a := claim()
				a.Report(&DialError{Reason: Refused, Err: errors.New("x")})
				time.Sleep(10 * time.Second)
				trial := claim()
				for trial.Member() != a.Member() {
					trial = claim()
				}
				if tt.refused {
					trial.Report(&DialError{Reason: Refused, Err: errors.New("x")})
				}
				time.Sleep(trialTime)
				synctest.Wait()
				got := 0
				for range 10 {
					if claim().Member() == a.Member() {
						got++
					}
				}
				if got != tt.want {
					t.Errorf("after the trial it had %d of 10 visitors, want %d", got, tt.want)
				}
			})
		})
	}
}
