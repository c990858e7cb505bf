package mux

import "time"

// rate tells whether a stream is bulk: many bytes in an epoch, or never drained in one.
type rate struct {
	began   time.Duration
	bytes   int
	drained bool
	bulk    bool

	blockedFrom time.Duration // since when the peer's window holds bytes back; 0: it does not
}

const (
	rateEpoch  = 250 * time.Millisecond
	bulkBytes  = 512 << 10 // in an epoch
	bulkBehind = 64 << 10  // in an epoch in which the link never caught up
)

// measure counts n bytes that were sent. The caller holds the session's mutex.
func (st *Stream) measure(n int) {
	r, now := &st.rate, st.s.clock
	if now-r.began > 2*rateEpoch {
		st.setBulk(false)
		r.began, r.bytes, r.drained = now, 0, false
	}
	r.bytes += n
	if st.send.sent == st.send.queuedTo {
		r.drained = true
	}
	bulk := r.bytes >= bulkBytes
	if now-r.began >= rateEpoch {
		bulk = bulk || !r.drained && r.bytes >= bulkBehind
		st.setBulk(bulk)
		r.began, r.bytes, r.drained = now, 0, false
	} else if bulk {
		st.setBulk(true)
	}
	if !st.send.dropped && st.send.queuedTo > st.send.sent && st.send.sendable(st.s.cfg.Budget) == 0 && r.blockedFrom == 0 {
		r.blockedFrom = max(1, now)
	}
}

// blocked marks since when a stream with bytes to send waits for its peer's window. The caller holds the session's mutex.
func (st *Stream) blocked() {
	if st.rate.blockedFrom == 0 && st.send.sendable(st.s.cfg.Budget) == 0 && st.send.queuedTo > st.send.sent {
		st.rate.blockedFrom = max(1, st.s.now())
	}
}

// unblocked ends what blocked began.
func (st *Stream) unblocked() {
	if from := st.rate.blockedFrom; from != 0 {
		st.s.counters.windowLimited += st.s.now() - from
		st.rate.blockedFrom = 0
	}
}

// setBulk marks what kind of stream it is. A bulk one gets a link of its own, as far as there are links.
func (st *Stream) setBulk(bulk bool) {
	if st.rate.bulk == bulk {
		return
	}
	st.rate.bulk = bulk
	if st.link == nil {
		return
	}
	if !bulk {
		st.link.bulk--
		return
	}
	st.link.bulk++
	st.spread()
}

// toLink binds what the stream sends to a link, nil for none. The caller holds the session's mutex.
func (st *Stream) toLink(l *link) {
	if st.rate.bulk {
		if st.link != nil {
			st.link.bulk--
		}
		if l != nil {
			l.bulk++
		}
	}
	st.link, st.target = l, nil
}

// spread moves a bulk stream away from the first link, which is everybody's, and asks for another link if all are taken.
func (st *Stream) spread() {
	s := st.s
	bulk := 0
	var best *link
	for i, l := range s.links {
		bulk += l.bulk
		if i > 0 && (best == nil || l.bulk < best.bulk) {
			best = l
		}
	}
	if bulk >= len(s.links) {
		s.wantLink()
	}
	if best == nil || best == st.link {
		return
	}
	if st.link != s.links[0] && best.bulk+1 >= st.link.bulk {
		return
	}
	st.target = best
	st.moveIfQuiet()
}

// spreadAll gives bulk streams the chance of a new link.
func (s *Session) spreadAll() {
	for _, st := range s.table.all {
		if st.rate.bulk && st.link != nil && st.target == nil {
			st.spread()
		}
	}
}

// wantLink asks for one more link: the side that dials does so itself.
func (s *Session) wantLink() {
	if len(s.links) >= s.cfg.MaxLinks {
		return
	}
	if s.dialler {
		notify(s.wants)
		return
	}
	if now := s.now(); s.counters.asked == 0 || now-s.counters.asked > time.Second {
		s.counters.asked = max(1, now)
		l := s.links[0]
		l.control = appendHeader(l.control, typeMore, 0, 0)
		l.flushSoon()
	}
}

// moving says that the stream waits for everything sent to be acked, its OPEN too, so that it can go on over another link.
func (st *Stream) moving() bool {
	return st.target != nil && (st.send.sent != st.send.acked || st.own && !st.heard)
}

// moveIfQuiet completes a move.
func (st *Stream) moveIfQuiet() {
	l := st.target
	if l == nil || st.moving() || st.send.finSent {
		return
	}
	if !l.live {
		st.target = nil
	} else {
		st.toLink(l)
	}
	st.schedule()
	if st.link != nil {
		st.link.flushSoon()
	}
}
