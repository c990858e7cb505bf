package mux

import (
	"sync/atomic"
	"time"
)

// counters are a session's. All but streams are guarded by its mutex.
type counters struct {
	streams       atomic.Int64 // open, as their users see it
	pauses        int64
	resumes       int64
	retransmitted int64
	windowLimited time.Duration
	asked         time.Duration // when this side last asked for a link; 0: never
	in, out       int64         // of links that are gone
}

// Stats is what a session has done so far, and how it is.
type Stats struct {
	Links         []LinkStats   // in use
	Streams       int           // open, both sides' together
	In, Out       int64         // bytes that all links have carried, framing included
	Retransmitted int64         // bytes sent again after the loss of a link
	Resumes       int64         // losses of links that streams have survived
	Pauses        int64         // times without any link
	WindowLimited time.Duration // that streams have waited for their peer's window, added up
	Held          int64         // bytes of memory for data on its way, both directions
	Granted       int64         // bytes that the peer may send before anybody reads them, over all streams
}

// RTT is the round-trip time of the fastest link, zero before the first measurement.
func (s Stats) RTT() time.Duration {
	var best time.Duration
	for _, l := range s.Links {
		if l.RTT != 0 && (best == 0 || l.RTT < best) {
			best = l.RTT
		}
	}
	return best
}

// LinkStats is one link's part.
type LinkStats struct {
	Number  uint32
	RTT     time.Duration
	In, Out int64 // bytes
}

// Stats asks for everything at once.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counters
	st := Stats{
		Streams: s.Streams(), In: c.in, Out: c.out, Retransmitted: c.retransmitted, Resumes: c.resumes, Pauses: c.pauses,
		WindowLimited: c.windowLimited,
	}
	for _, l := range s.links {
		ls := LinkStats{Number: l.number, RTT: l.health.rtt, In: l.in.Load(), Out: l.out.Load()}
		st.Links = append(st.Links, ls)
		st.In += ls.In
		st.Out += ls.Out
	}
	for _, x := range s.table.all {
		st.Held += x.send.kept.held + x.receive.queue.held
		st.Granted += int64(x.receive.limit - x.receive.consumed)
	}
	return st
}

// Bytes is what the links have carried in each direction, framing included.
func (s *Session) Bytes() (in, out int64) {
	st := s.Stats()
	return st.In, st.Out
}
