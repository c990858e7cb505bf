package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// line is visitors that dial one after the other and note who got a place.
type line struct {
	u   *Upstream
	all sync.WaitGroup

	mu     sync.Mutex
	served []string
	places map[string]*Place
	errs   map[string]error
	after  map[string]time.Duration
}

func newLine(u *Upstream) *line {
	return &line{u: u, places: make(map[string]*Place), errs: make(map[string]error), after: make(map[string]time.Duration)}
}

// join has a visitor come, and waits until it is served or waits.
func (l *line) join(ctx context.Context, name string) {
	l.all.Go(func() {
		begun := time.Now()
		d, err := l.u.Dial(ctx, &Visit{ID: name})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.served = append(l.served, name)
		l.places[name], l.errs[name], l.after[name] = d.Place, err, time.Since(begun)
		queued := d.Queued
		if failed := new(DialError); errors.As(err, &failed) {
			queued = failed.Queued
		}
		if queued != l.after[name] { // members answer at once
			err = fmt.Errorf("queued for %s, but waited %s", queued, l.after[name])
		}
		l.errs[name] = err
	})
	synctest.Wait()
}

func (l *line) leave(name string) {
	l.places[name].Release()
	synctest.Wait()
}

func (l *line) want(t *testing.T, what, served string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if got := fmt.Sprint(l.served); got != "["+served+"]" {
		t.Errorf("%s: served %s, want [%s]", what, got, served)
	}
}

func (l *line) wantErr(t *testing.T, name string, r Reason, after time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.errs[name]; err == nil && r != "" || err != nil && ReasonOf(err) != r || l.after[name] != after {
		t.Errorf("visitor %s got %v after %s, want %q after %s", name, err, l.after[name], r, after)
	}
}

// busy is an upstream of one member, a, that has one connection at a time, and has it.
func busy(t *testing.T, q Queue) (*line, *node) {
	u := New(Config{Name: "app", Queue: q})
	a := &node{name: "a"}
	u.Add(Placed{Member: a, MaxConns: 1})
	l := newLine(u)
	t.Cleanup(l.all.Wait)
	l.join(t.Context(), "0")
	return l, a
}

func TestQueueIsServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := busy(t, Queue{Max: 3, Timeout: time.Minute})
		for _, name := range []string{"1", "2", "3"} {
			l.join(t.Context(), name)
		}
		if n := l.u.Waiting(); n != 3 {
			t.Errorf("%d wait, want 3", n)
		}
		l.want(t, "at first", "0")
		time.Sleep(2 * time.Second)
		l.leave("0")
		l.want(t, "one left", "0 1")
		l.wantErr(t, "1", "", 2*time.Second) // at once
		l.join(t.Context(), "4")
		l.leave("1")
		l.leave("2")
		l.leave("3")
		l.leave("4")
		l.want(t, "all left", "0 1 2 3 4")
		if p := l.u.Places()[0]; p.Open != 0 || p.Total != 5 || l.u.Waiting() != 0 {
			t.Errorf("%+v and %d waiting in the end, want 5 in total and none open", p, l.u.Waiting())
		}
	})
}

func TestQueueThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := busy(t, Queue{Max: 1, Timeout: time.Minute})
		l.join(t.Context(), "1")
		l.join(t.Context(), "2")
		l.want(t, "with room for one", "0 2")
		l.wantErr(t, "2", QueueFull, 0)
		l.leave("0")
		l.leave("1")
	})
}

func TestNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := busy(t, Queue{})
		l.join(t.Context(), "1")
		l.wantErr(t, "1", QueueFull, 0)
		if !l.u.Usable() {
			t.Error("an upstream without room is not usable")
		}
	})
}

func TestQueueTimesOut(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{0: 5 * time.Second, 2 * time.Second: 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var failed []Reason
			l, _ := busy(t, Queue{Max: 5, Timeout: timeout})
			l.u.Reconfigure(Config{Name: "app", Queue: Queue{Max: 5, Timeout: timeout}, OnFailedDial: func(m Member, r Reason) {
				if m != nil {
					t.Errorf("member %v failed", m)
				}
				failed = append(failed, r)
			}})
			l.join(t.Context(), "1")
			time.Sleep(want)
			synctest.Wait()
			l.wantErr(t, "1", QueueTimeout, want)
			if len(failed) != 1 || failed[0] != QueueTimeout {
				t.Errorf("heard of %v", failed)
			}
			l.leave("0")
			if got := visits(t, l.u, 1); got != "a" {
				t.Error("who timed out has the place")
			}
		})
	}
}

func TestVisitorThatLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := busy(t, Queue{Max: 5})
		ctx, leave := context.WithCancel(t.Context())
		l.join(ctx, "1")
		l.join(t.Context(), "2")
		leave()
		synctest.Wait()
		l.wantErr(t, "1", Canceled, 0)
		if n := l.u.Waiting(); n != 1 {
			t.Errorf("%d wait, want 1", n)
		}
		l.leave("0")
		l.want(t, "the place came free", "0 1 2")
		l.leave("2")
	})
}

// What makes room besides a connection's end.
func TestWaitersGetEveryRoom(t *testing.T) {
	for _, tt := range []struct {
		name string
		room func(u *Upstream, a *node)
	}{
		{"a member is added", func(u *Upstream, _ *node) { u.Add(Placed{Member: &node{name: "b"}}) }},
		{"its limit is raised", func(u *Upstream, a *node) { u.Update(Placed{Member: a, MaxConns: 2}) }},
		{"its limit is lifted", func(u *Upstream, a *node) { u.Update(Placed{Member: a}) }},
		{"another one comes up", func(u *Upstream, _ *node) {
			b := &node{name: "b"}
			u.Add(Placed{Member: b, Down: true})
			u.SetHealth(b, true, nil)
		}},
		{"another one is drained no more", func(u *Upstream, _ *node) {
			b := &node{name: "b"}
			u.Add(Placed{Member: b, Down: true})
			_ = u.SetDrain("b", true)
			u.SetHealth(b, true, nil)
			_ = u.SetDrain("b", false)
		}},
		{"the only one without room is down, and there is a backup", func(u *Upstream, a *node) {
			u.Add(Placed{Member: &node{name: "b"}, Backup: true})
			u.SetHealth(a, false, nil)
		}},
		{"a member's own word", func(u *Upstream, a *node) {
			b := &node{name: "b"}
			b.gone.Store(true)
			u.Add(Placed{Member: b})
			b.gone.Store(false)
			u.settle()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, a := busy(t, Queue{Max: 5})
				l.join(t.Context(), "1")
				tt.room(l.u, a)
				synctest.Wait()
				l.want(t, "with room", "0 1")
				l.wantErr(t, "1", "", 0)
			})
		})
	}
}

func TestWaitersOfWhatIsGone(t *testing.T) {
	for name, end := range map[string]func(u *Upstream, a *node){
		"removed": func(u *Upstream, a *node) { u.Remove(a) },
		"down":    func(u *Upstream, a *node) { u.SetHealth(a, false, nil) },
		"drained": func(u *Upstream, a *node) { _ = u.SetDrain("a", true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, a := busy(t, Queue{Max: 5})
				l.join(t.Context(), "1")
				l.join(t.Context(), "2")
				end(l.u, a)
				synctest.Wait()
				l.wantErr(t, "1", NoMember, 0)
				l.wantErr(t, "2", NoMember, 0)
				l.leave("0") // of a member that is none any more
			})
		})
	}
}

func TestEjectedMemberServesTheQueueWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Queue: Queue{Max: 5, Timeout: time.Minute}, Retries: 1})
		a, b := &node{name: "a"}, &node{name: "b"}
		u.Add(Placed{Member: a, MaxConns: 1})
		u.Add(Placed{Member: b, MaxConns: 1})
		b.broken.Store(true)
		visits(t, u, 6)
		b.broken.Store(false)
		l := newLine(u)
		l.join(t.Context(), "0")
		l.join(t.Context(), "1")
		l.want(t, "while it is ejected", "0")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		l.want(t, "then", "0 1")
		l.all.Wait()
	})
}

// A place that is given back between a visitor's look and its joining the queue wakes nobody; the visitor finds it itself.
func TestRoomThatComesJustBeforeTheQueue(t *testing.T) {
	u := New(Config{Name: "app", Queue: Queue{Max: 1, Timeout: time.Hour}})
	u.Add(Placed{Member: &node{name: "a"}, MaxConns: 1})
	d, err := u.Dial(t.Context(), &Visit{})
	if err != nil {
		t.Fatal(err)
	}
	u.Add(Placed{Member: &asked{node{name: "b"}, func() { d.Place.Release() }}}) // asked after a was looked at
	if d, err = u.Dial(t.Context(), &Visit{}); err != nil || d.Place.Member().Name() != "a" {
		t.Errorf("got %v, %v, want the place", d.Place, err)
	}
}

// asked is a member that is not usable, and does something when it is asked.
type asked struct {
	node
	do func()
}

func (a *asked) Usable() bool {
	a.do()
	return false
}

// A member that fails for who came from the queue gives its place to the next.
func TestFailedDialServesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a := busy(t, Queue{Max: 5})
		l.join(t.Context(), "1")
		l.join(t.Context(), "2")
		a.broken.Store(true)
		time.Sleep(time.Second)
		l.leave("0")
		l.wantErr(t, "1", Refused, time.Second)
		l.wantErr(t, "2", Refused, time.Second)
	})
}

func TestReleaseTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := busy(t, Queue{Max: 5})
		l.join(t.Context(), "1")
		l.join(t.Context(), "2")
		l.leave("0")
		l.leave("0")
		l.want(t, "after one place was given back twice", "0 1")
		if open := l.u.Places()[0].Open; open != 1 {
			t.Errorf("%d open, want 1", open)
		}
		l.leave("1")
		l.leave("2")
		(*Place)(nil).Release() // of a dial that failed
	})
}

func TestAdmitNext(t *testing.T) {
	u := New(Config{Name: "app", Retries: -1})
	for _, name := range []string{"a", "b", "c"} {
		u.Add(Placed{Member: &node{name: name}, MaxConns: 1})
	}
	first, err := u.Admit(t.Context(), &Visit{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := u.Admit(t.Context(), &Visit{}) // of b and c, as a has no room
	if err != nil {
		t.Fatal(err)
	}
	if second.Place.Member().Name() != "c" || !second.Next() || second.Place.Member().Name() != "b" {
		t.Fatalf("next is %s, want b", second.Place.Member().Name())
	}
	if second.Next() {
		t.Errorf("next is %s, but a has no room", second.Place.Member().Name())
	}
	open := ""
	for _, p := range u.Places() {
		open += fmt.Sprint(p.Open)
	}
	if open != "110" {
		t.Errorf("open are %s, want 110", open)
	}
	second.Place.Report(&DialError{Err: errors.New("no")})
	second.Place.Release()
	first.Place.Release()
	if p := state(u, "b"); p.Open != 0 || p.Failed != 1 {
		t.Errorf("b is %+v, want one failure and nothing open", p)
	}
}

// The first of those who wait finds out whether a member is well again; the others come when it is.
func TestTheQueueComesBehindTheTrialOfAnEjectedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Name: "app", Queue: Queue{Max: 9, Timeout: time.Minute}, Ejection: Ejection{After: 1}, Retries: -1})
		a, b := &node{name: "a"}, &node{name: "b"}
		u.Add(Placed{Member: a, MaxConns: 9})
		u.Add(Placed{Member: b, MaxConns: 1})
		l := newLine(u)
		a.broken.Store(true)
		l.join(t.Context(), "0") // a fails, b has it
		l.want(t, "the first", "0")
		a.broken.Store(false)
		for _, name := range []string{"1", "2", "3"} {
			l.join(t.Context(), name)
		}
		l.want(t, "while a is ejected and b is full", "0")
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		l.mu.Lock()
		if len(l.served) != 4 {
			t.Errorf("when a is well again: served %v, want everyone", l.served)
		}
		l.mu.Unlock()
		l.all.Wait()
	})
}

// A trial of which nothing is heard keeps nobody waiting for longer than it may last.
func TestTheQueueComesBehindATrialThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{Name: "app", Queue: Queue{Max: 9, Timeout: time.Minute}, Ejection: Ejection{After: 1}, Retries: -1})
		a, b := &node{name: "a"}, &node{name: "b"}
		u.Add(Placed{Member: a, MaxConns: 9})
		u.Add(Placed{Member: b, MaxConns: 1})
		l := newLine(u)
		a.broken.Store(true)
		l.join(t.Context(), "0") // a fails, b has it
		a.broken.Store(false)
		time.Sleep(11 * time.Second)
		trying, err := u.Admit(t.Context(), &Visit{ID: "trying"})
		if err != nil || trying.Place.Member() != Member(a) {
			t.Fatalf("got %v, %v, want a trial of a", trying.Place, err)
		}
		l.join(t.Context(), "1")
		trying.Place.Release() // without a word on how it went
		l.want(t, "during the trial", "0")
		time.Sleep(trialTime + time.Millisecond)
		synctest.Wait()
		l.want(t, "then", "0 1")
		l.all.Wait()
	})
}

// slowly is a member that takes its time, and in the end refuses if it is to.
type slowly struct {
	node
	takes time.Duration
}

func (s *slowly) Dial(ctx context.Context, v *Visit) (Dialed, error) {
	select {
	case <-time.After(s.takes):
		return s.node.Dial(ctx, v)
	case <-ctx.Done():
		return Dialed{}, &DialError{Member: s.name, Reason: ReasonOf(ctx.Err()), Err: ctx.Err()}
	}
}

// Visitors who leave at any moment, in the queue, in the first dial or in another, leave no place behind.
func TestVisitorsWhoLeaveAtAnyMoment(t *testing.T) {
	for leave := range 80 {
		synctest.Test(t, func(t *testing.T) {
			u := New(Config{Name: "app", Queue: Queue{Max: 4, Timeout: 30 * time.Millisecond}, Retries: 2, Ejection: Ejection{After: 2, For: 7 * time.Millisecond}})
			a, b := &slowly{node{name: "a"}, 10 * time.Millisecond}, &slowly{node{name: "b"}, 15 * time.Millisecond}
			a.broken.Store(true)
			u.Add(Placed{Member: a, MaxConns: 1})
			u.Add(Placed{Member: b, MaxConns: 2})
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(leave)*time.Millisecond)
			defer cancel()
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					d, err := u.Dial(ctx, &Visit{Elsewhere: i%2 == 0})
					if err != nil && d.Place != nil || err == nil && d.Place == nil {
						t.Errorf("place %v with error %v", d.Place, err)
					}
					time.Sleep(5 * time.Millisecond)
					d.Place.Release()
				})
			}
			all.Wait()
			for _, p := range u.Places() {
				if p.Open != 0 {
					t.Errorf("after %d ms %s has %d open", leave, p.Name, p.Open)
				}
			}
			if n := u.Waiting(); n != 0 {
				t.Errorf("after %d ms %d wait", leave, n)
			}
		})
	}
}
