package mux

import (
	"errors"
	"fmt"
	"time"
)

// health is what a link's heartbeat knows. It is guarded by the session's mutex.
type health struct {
	pinged   time.Duration // when the ping was sent that has no answer; 0: there is none
	opaque   uint64        // of that ping
	pongOwed bool
	pongOf   uint64
	asked    time.Duration // the first send since the last byte was heard; 0: none
	writing  time.Duration // when the write began that goes on; 0: none does
	rtt      time.Duration // the last
	least    time.Duration // the least so far
	samples  int           // up to firstPings
}

// firstPings is how many pings follow each other at a link's beginning, while no bytes are in their way: the windows that a
// link needs are judged by the shortest round trip.
const firstPings = 4

// leastPatience is the least time after which an unanswered question makes a link suspect.
const leastPatience = 250 * time.Millisecond

// stuckWrite is how long one write may take. A peer that reads nothing for so long is as good as dead.
const stuckWrite = 15 * time.Second

// beatPause is the time between two heartbeats.
func (s *Session) beatPause() time.Duration {
	if s.counters.streams.Load() > 1 {
		return s.cfg.Heartbeat * 2 / 3
	}
	return s.cfg.Heartbeat
}

// beat pings the peer, and gives the link up if it is dead.
func (l *link) beat() {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.live {
		return
	}
	now := s.now()
	switch {
	case now-l.lastHeard() >= s.cfg.Dead:
		s.lose(l, l.silence(now))
		return
	case l.health.writing != 0 && now-l.health.writing > stuckWrite:
		s.lose(l, fmt.Errorf("the peer has read nothing for %s", (now-l.health.writing).Round(time.Second)))
		return
	}
	if s.outgrown(l) {
		s.lose(l, errOutgrown)
		return
	}
	s.resetStalled(now)
	l.ping()
	l.flushSoon()
	l.timer.Reset(s.beatPause())
}

// outgrownTime is how long a link beyond the first one stays without carrying data.
const outgrownTime = time.Minute

var errOutgrown = errors.New("not needed any more")

// outgrown says whether a link was added for a load that is over. Only the side that adds links takes them away.
func (s *Session) outgrown(l *link) bool {
	if l.carried {
		l.carried, l.idleFrom = false, s.now()
	}
	return s.dialler && l != s.links[0] && s.now()-l.idleFrom >= outgrownTime
}

func (l *link) silence(now time.Duration) error {
	return fmt.Errorf("%w: nothing heard for %s", ErrDead, (now - l.lastHeard()).Round(time.Second))
}

func (l *link) lastHeard() time.Duration { return time.Duration(l.heard.Load()) }

// ping asks for a sign of life, unless an answer is outstanding: then bytes of the peer do, and there is nothing to learn.
// The caller holds s.mu.
func (l *link) ping() {
	if l.health.pinged != 0 {
		// Still a byte for the peer's sake, whose clock for this side's death runs.
		l.control = appendPing(l.control, typePing, l.health.opaque)
		return
	}
	l.health.pinged = max(1, l.s.now())
	l.health.opaque++
	l.barrier.ask()
	l.control = appendPing(l.control, typePing, l.health.opaque)
}

// ponged takes the answer to a ping. The caller holds s.mu.
func (l *link) ponged(opaque uint64) {
	h := &l.health
	if h.pinged == 0 || opaque != h.opaque {
		return
	}
	h.rtt = max(1, l.s.now()-h.pinged)
	if h.least == 0 || h.rtt < h.least {
		h.least = h.rtt
	}
	h.pinged = 0
	l.barrier.answered()
	if h.samples < firstPings {
		h.samples++
		l.ping()
	}
}

// patience is how long the answer to a question may take before it is worth a doubt.
func (l *link) patience() time.Duration { return max(leastPatience, 4*l.health.rtt) }

// suspect says whether a question has been without its answer for too long. The caller holds s.mu.
func (l *link) suspect(now time.Duration) bool {
	patience := l.patience()
	if p := l.health.pinged; p != 0 && now-p > patience {
		return true
	}
	for len(l.opens) > 0 && l.opens[0].st.answeredOpen() {
		l.opens[0] = opened{}
		l.opens = l.opens[1:]
	}
	if len(l.opens) == 0 {
		l.opens = nil
		return false
	}
	return now-l.opens[0].at > patience
}

// Suspect says that the peer owes an answer for longer than max(250 ms, four round trips) on every link, or that there is
// none: other peers are to be preferred.
func (s *Session) Suspect() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, l := range s.links {
		if !l.suspect(now) {
			return false
		}
	}
	return true
}

// Fresh says that the peer was heard within max(250 ms, four round trips), so that it is worth sending early data.
func (s *Session) Fresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, l := range s.links {
		if now-l.lastHeard() <= l.patience() && !l.suspect(now) {
			return true
		}
	}
	return false
}

// RTT is the last measured round-trip time of the fastest link, zero before the first measurement.
func (s *Session) RTT() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best time.Duration
	for _, l := range s.links {
		if r := l.health.rtt; r != 0 && (best == 0 || r < best) {
			best = r
		}
	}
	return best
}
