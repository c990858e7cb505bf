package upstream

import "time"

func (u *Upstream) succeeded(s *seat) {
	if s.row.Load() == 0 && s.ejected.Load() == 0 { // each time, but after a failure
		return
	}
	u.mu.Lock()
	u.forgive(s)
	u.mu.Unlock()
	u.wake() // those who waited for the end of its trial
}

// trialTime is for how long one visitor alone may try a member whose ejection is over, if nothing is heard of it.
const trialTime = 5 * time.Second

// alone is until when a member has no visitors because it is ejected, or because one of them finds out how it is; 0 if it is
// not ejected.
func (s *seat) alone() time.Duration {
	until := s.ejected.Load()
	if until != 0 {
		until = max(until, s.trial.Load())
	}
	return time.Duration(until)
}

// tryAgain has a member whose ejection is over ranked as before for all but the visitor who takes a place now: if it is still
// a black hole, one visitor waits for it and not everyone of that moment.
//
// Services of datagrams may never answer: that none has refused by the end of its trial is as good as a success.
func (s *seat) tryAgain(u *Upstream, datagrams bool) {
	until := time.Duration(s.ejected.Load())
	if until == 0 {
		return
	}
	now, trial := u.now(), s.trial.Load()
	if now < until || now < time.Duration(trial) || !s.trial.CompareAndSwap(trial, int64(now+trialTime)) {
		return
	}
	failures := s.row.Load()
	time.AfterFunc(trialTime, func() {
		if datagrams && s.row.Load() == failures {
			u.succeeded(s)
		}
		u.wake()
	})
}

// failedAt notes that a member did not give a connection, and may eject it. Elsewhere is as the visit has it.
func (u *Upstream) failedAt(s *seat, err *DialError, elsewhere bool) {
	s.failed.Add(1)
	s.trouble.Store(&trouble{time.Now(), err.Err})
	e := u.cfg.Load().Ejection
	if row := s.row.Add(1); e.After < 0 || row < int64(e.After) {
		return
	}
	u.mu.Lock()
	// Who fails at once costs a visitor with another upstream nothing, and so does who is well again as soon as it is.
	u.eject(s, e, err.Reason, elsewhere && err.Reason == TimedOut)
	u.mu.Unlock()
	u.told.tell()
}

// eject leaves a member alone for a while. Unless it may be the last one, that is not done when half of them are left alone
// already or no other is usable. The caller holds mu.
func (u *Upstream) eject(s *seat, e Ejection, why Reason, last bool) {
	now := u.now()
	if now < time.Duration(s.ejected.Load()) { // dials that began before it was ejected
		return
	}
	usable, ejected := 0, 1
	present := false
	for _, other := range u.set.Load().seats {
		present = present || other == s
		if !other.usable(other.terms()) {
			continue
		}
		usable++
		if other != s && now < other.alone() {
			ejected++
		}
	}
	if !present || !last && 2*ejected > usable {
		return
	}
	spell := e.Most
	if shift := min(s.spells, 30); e.For <= e.Most>>shift {
		spell = e.For << shift
	}
	s.spells++
	s.ejected.Store(int64(now + spell))
	if t := *s.terms(); u.cfg.Load().SlowStart > 0 {
		t.back = now + spell
		s.now.Store(&t)
	}
	time.AfterFunc(spell, u.wake) // it may have room for who waits
	if told := u.cfg.Load().OnEjected; told != nil {
		until := time.Now().Add(spell)
		u.told.add(func() { told(s.member, why, until) })
	}
}
