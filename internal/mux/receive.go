package mux

import (
	"fmt"
	"sync"
	"time"
)

// receiveHalf is the direction of a stream that the peer sends. consumed <= received <= limit. It is guarded by the
// session's mutex.
type receiveHalf struct {
	queue    chunkQueue // from consumed, or a little before, to received
	readable sync.Cond
	deadline deadline

	received uint64 // all below came
	consumed uint64 // all below was taken by the user
	told     uint64 // what the peer was last told of that
	limit    uint64 // what the peer was told it may send up to
	finAt    uint64 // where the direction ends, once fin
	fin      bool
	over     bool // the user has the end
	discard  bool // the user wants no more of it

	window  int64 // what the peer may be ahead of consumed
	charged int64 // to the budget
	epoch   epoch
	late    bool // an acknowledgement is due
	push    *push

	stalledAt   uint64        // what this side's reader and the peer had taken, together, at the last look for stalled ones
	stalledFrom time.Duration // when it was that first; 0: it was not
}

// epoch measures how fast the user takes a window's worth.
type epoch struct {
	began time.Duration
	from  uint64
}

// acked is what the peer is told: the FIN counts as one.
func (h *receiveHalf) acked() uint64 {
	h.told = h.consumed
	if h.over {
		h.told++
	}
	return h.told
}

// complete says that everything up to the peer's end is here.
func (h *receiveHalf) complete() bool { return h.fin && h.received == h.finAt }

// ended says that the user has taken everything up to the peer's end.
func (h *receiveHalf) ended() bool { return h.complete() && h.consumed == h.finAt }

// read copies what is queued, as much as fits.
func (h *receiveHalf) read(p []byte) (n int) {
	at := h.consumed
	for n < len(p) && h.queue.head != nil {
		c := h.queue.head
		m := copy(p[n:], c.buf[at-c.off:])
		n += m
		if at += uint64(m); at == c.end() {
			h.queue.pop().release()
		}
	}
	return n
}

// data takes a piece of a DATA frame. What is there already is dropped. The read loop calls it, with p in its own buffer.
func (s *Session) data(l *link, id, off uint64, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.live {
		return nil // the peer sends it again
	}
	st, err := s.table.find(id)
	if st == nil || st.failed() {
		return err
	}
	l.carried = true
	h := &st.receive
	end := off + uint64(len(p))
	switch {
	case off > h.received:
		return fmt.Errorf("stream %d: a gap before offset %d", id, off)
	case end > h.limit:
		return fmt.Errorf("stream %d: more than it may send", id)
	case h.fin && end > h.finAt:
		return fmt.Errorf("stream %d: bytes behind the end", id)
	case end <= h.received:
		return nil
	}
	p = p[h.received-off:]
	off, h.received = h.received, end
	switch {
	case h.discard:
		st.dropRest()
	case h.push != nil && h.push.direct(st):
		s.pushDirect(st, off, p)
	default:
		h.queue.append(off, p)
		h.readable.Signal()
		st.pushOn()
	}
	return nil
}

// consumed counts what the user took, and tells the peer when it is worth it. The caller holds the session's mutex.
func (st *Stream) consumed(n int) {
	h := &st.receive
	h.consumed += uint64(n)
	if st.dropped || st.err != nil {
		return
	}
	if h.fin { // the peer sends no more
		st.ackLate()
		return
	}
	if h.consumed+uint64(h.window) >= h.limit+st.worthTelling() {
		st.adapt()
		h.limit = max(h.limit, h.consumed+uint64(h.window))
		st.charge()
		st.owes(oweWindow)
		st.link.flushLate()
		return
	}
	st.ackLate()
}

// worthTelling is how much credit is returned at a time: a quarter of the window, so that a long path does not run dry
// while a burst is on its way; half of it where the round trip is nothing, and each WINDOW costs what many bytes do.
func (st *Stream) worthTelling() uint64 {
	if st.s.leastRTT() < shortTrip {
		return uint64(st.receive.window) / 2
	}
	return uint64(st.receive.window) / 4
}

// shortTrip is a round trip within a machine or a room.
const shortTrip = time.Millisecond

// flushLate is flushSoon for a link that may not be there.
func (l *link) flushLate() {
	if l != nil {
		l.flushSoon()
	}
}

// ackLate has what was consumed acknowledged soon, together with that of others, so that the peer need not keep it.
func (st *Stream) ackLate() {
	if h := &st.receive; !h.late && h.consumed > h.told {
		h.late = true
		st.s.late.add(st)
	}
}

// adapt makes the window fit: larger if the path has room for more than it within a round trip and the user keeps up,
// smaller if memory is short.
func (st *Stream) adapt() {
	h, s := &st.receive, st.s
	now := s.now()
	if s.cfg.Budget.short() {
		h.window = max(leastWindow, h.window/2)
		h.epoch = epoch{now, h.consumed}
		return
	}
	if h.epoch.began == 0 {
		h.epoch = epoch{now, h.consumed}
		return
	}
	if h.consumed-h.epoch.from < uint64(h.window) {
		return
	}
	if took := now - h.epoch.began; took < 2*s.leastRTT() && h.window < maxWindow && s.cfg.Budget.take(h.window) {
		h.charged += h.window
		h.window *= 2
	}
	h.epoch = epoch{now, h.consumed}
}

// charge gives the budget back what is not granted any more: a grant cannot be taken back before it is used.
func (st *Stream) charge() {
	h := &st.receive
	if granted := max(h.window, int64(h.limit-h.consumed)); granted < h.charged {
		st.s.cfg.Budget.give(h.charged - granted)
		h.charged = granted
	}
}

// leastRTT is the shortest round trip that was seen. The caller holds the session's mutex.
func (s *Session) leastRTT() time.Duration {
	var least time.Duration
	for _, l := range s.links {
		if r := l.health.least; r != 0 && (least == 0 || r < least) {
			least = r
		}
	}
	return least
}

// fin takes the peer's end of a direction. The caller holds the session's mutex.
func (st *Stream) finish(at uint64) error {
	h := &st.receive
	switch {
	case st.failed(): // what was dropped must not look complete
		return nil
	case h.fin && h.finAt != at, !h.fin && at != h.received:
		return fmt.Errorf("stream %d: its end is at %d, %d came", st.id, at, h.received)
	case h.fin:
		return nil
	}
	h.fin, h.finAt = true, at
	if h.discard {
		st.dropRest()
		return nil
	}
	h.readable.Broadcast()
	st.pushOn()
	return nil
}

// consumeFin marks that the user has the end, and tells the peer. The caller holds the session's mutex.
func (st *Stream) consumeFin() {
	h := &st.receive
	if h.over || !h.ended() {
		return
	}
	h.over = true
	if st.err == nil && !st.dropped {
		st.owes(oweWindow)
		st.link.flushLate()
	}
}

// ignore drops what has come and what comes. The caller holds the session's mutex.
func (st *Stream) ignore() {
	h := &st.receive
	h.discard = true
	h.queue.clear()
	h.readable.Broadcast()
	st.dropRest()
	st.pushOn()
}

// dropRest counts what nobody wants as consumed. What a push is writing at the moment counts itself.
func (st *Stream) dropRest() {
	h := &st.receive
	if !h.discard || h.push != nil && h.push.busy {
		return
	}
	if n := h.received - h.consumed; n > 0 {
		st.consumed(int(n))
	}
	st.consumeFin()
}

// stalledTime is how long a user may leave bytes untouched while memory is short.
const stalledTime = 60 * time.Second

// resetStalled ends, while memory is short, the streams whose users, here or at the peer, have taken nothing of what is there
// for stalledTime.
// The caller holds the session's mutex.
func (s *Session) resetStalled(now time.Duration) {
	short := s.cfg.Budget.short() || s.cfg.Budget.full()
	if !short && !s.wasShort {
		return
	}
	s.wasShort = short
	for _, st := range s.table.all {
		h := &st.receive
		waits := h.consumed != h.received || st.send.acked != st.send.sent
		taken := h.consumed + st.send.acked
		switch {
		case !short:
			h.stalledFrom = 0
		case st.err != nil || !waits || taken != h.stalledAt || h.stalledFrom == 0:
			h.stalledAt, h.stalledFrom = taken, max(1, now)
		case now-h.stalledFrom >= stalledTime:
			if l := st.reset(resetStalled, "", fmt.Errorf("%w: %s", ErrReset, resetStalled)); l != nil {
				go l.flusher()
			}
		}
	}
}
