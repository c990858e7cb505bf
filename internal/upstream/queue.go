package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Admitted is a visitor that has a place at a member, and whom else could be asked.
type Admitted struct {
	Candidates Candidates
	At         int           // which of the candidates has the place
	Place      *Place        // to be released by whoever has it
	Queued     time.Duration // how long the visitor waited for it
}

// Next gives the place back and takes one at the next candidate that has room; if none has, the place stays.
func (a *Admitted) Next() bool {
	place, at := a.Candidates.Claim(a.At + 1)
	if place == nil {
		return false
	}
	a.Place.Release()
	a.Place, a.At = place, at
	return true
}

// queue is the visitors that wait for a place, the first come first.
type queue struct {
	length atomic.Int64

	mu      sync.Mutex
	waiting []*waiter
}

type waiter struct {
	visit    *Visit
	served   chan struct{} // closed when one of the following is there
	admitted Admitted
	failed   *DialError
}

// nobody is the failure of a visit for which there are no candidates.
func (u *Upstream) nobody(c *Candidates) *DialError {
	if c.ejected {
		return &DialError{Reason: Ejected, Err: fmt.Errorf("all members of upstream %s are ejected", u.Name())}
	}
	return &DialError{Reason: NoMember, Err: fmt.Errorf("upstream %s has no usable member", u.Name())}
}

// Admit finds a place for the visit, and waits for one while all members have as many connections as they may. Nobody
// overtakes who waits. The error is a *DialError: that no member is usable, that too many wait, or that it took too long.
func (u *Upstream) Admit(ctx context.Context, v *Visit) (Admitted, error) {
	var a Admitted
	err := u.admit(ctx, v, &a)
	return a, err
}

func (u *Upstream) admit(ctx context.Context, v *Visit, a *Admitted) error {
	if u.queue.length.Load() == 0 {
		a.Candidates = u.Candidates(v)
		if a.Place, a.At = a.Candidates.Claim(0); a.Place != nil {
			return nil
		}
		if a.Candidates.Len() == 0 && !a.Candidates.full {
			return u.turned(u.nobody(&a.Candidates))
		}
	}
	return u.wait(ctx, v, a)
}

func (u *Upstream) wait(ctx context.Context, v *Visit, a *Admitted) error {
	cfg := u.cfg.Load().Queue
	w := &waiter{visit: v, served: make(chan struct{})}
	if !u.queue.join(w, cfg.Max) {
		return u.turned(&DialError{Reason: QueueFull, Err: fmt.Errorf(
			"all members of upstream %s have as many connections as they may, and its queue of %d is full", u.Name(), cfg.Max)})
	}
	begun := time.Now()
	u.wake() // what came free meanwhile
	timeout := time.NewTimer(cfg.Timeout)
	defer timeout.Stop()
	var failed *DialError
	select {
	case <-w.served:
	case <-ctx.Done():
		failed = &DialError{Reason: ReasonOf(ctx.Err()), Err: fmt.Errorf("in the queue of upstream %s: %w", u.Name(), ctx.Err())}
	case <-timeout.C:
		failed = &DialError{Reason: QueueTimeout, Err: fmt.Errorf("no member of upstream %s had room within %s", u.Name(), cfg.Timeout)}
	}
	if failed == nil || !u.queue.leave(w) { // who is served with the time over as well has the place: who leaves ends the dial that follows
		failed = w.failed
	}
	if failed != nil {
		failed.Queued = time.Since(begun)
		return u.turned(failed)
	}
	*a = w.admitted
	a.Queued = time.Since(begun)
	return nil
}

// turned tells of a visitor for whom no member was asked.
func (u *Upstream) turned(err *DialError) error {
	u.failed(nil, err.Reason)
	return err
}

func (q *queue) join(w *waiter, most int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= most {
		return false
	}
	q.waiting = append(q.waiting, w)
	q.length.Add(1)
	return true
}

// leave takes a visitor out; false if it has been served.
func (q *queue) leave(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, w)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.length.Add(-1)
	return true
}

// wake serves who waits, as far as there are places. It is called after everything that may have made one.
func (u *Upstream) wake() {
	if u.queue.length.Load() == 0 {
		return
	}
	q := &u.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		w := q.waiting[0]
		a := &w.admitted
		a.Candidates = Candidates{}
		u.rank(&a.Candidates, w.visit)
		if a.Place, a.At = a.Candidates.Claim(0); a.Place == nil {
			if a.Candidates.full || a.Candidates.Len() > 0 {
				return
			}
			w.failed = u.nobody(&a.Candidates)
		}
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.length.Add(-1)
		close(w.served)
	}
}
