package mux

import "time"

// lateAfter is how long an acknowledgement may wait for company.
const lateAfter = 100 * time.Millisecond

// lateWork is what a session does a little later: acknowledge small amounts, and ask a peer that leaves data unanswered.
// Its timer runs only while there is something of that. It is guarded by the session's mutex.
type lateWork struct {
	timer   *time.Timer
	armed   bool
	stopped bool
	streams []*Stream
}

func (w *lateWork) add(st *Stream) {
	w.streams = append(w.streams, st)
	w.arm(st.s)
}

func (w *lateWork) arm(s *Session) {
	if w.armed || w.stopped {
		return
	}
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(lateAfter, s.doLate)
		return
	}
	w.timer.Reset(lateAfter)
}

func (w *lateWork) stop() {
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.streams = nil
}

func (s *Session) doLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.late
	w.armed = false
	if w.stopped {
		return
	}
	for i, st := range w.streams {
		w.streams[i] = nil
		h := &st.receive
		h.late = false
		if h.consumed > h.told && !st.dropped && st.err == nil {
			st.owes(oweWindow)
		}
	}
	w.streams = w.streams[:0]
	now := s.now()
	for _, l := range s.links {
		if l.unanswered() {
			if now-l.health.asked >= leastPatience && l.health.pinged == 0 {
				l.ping()
			}
			w.arm(s)
		}
	}
	for _, l := range s.links {
		l.flushSoon()
	}
}

// unanswered says that nothing was heard since something was sent.
func (l *link) unanswered() bool { return l.health.asked != 0 && l.lastHeard() < l.health.asked }
