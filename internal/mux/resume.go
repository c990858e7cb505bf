package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// After the loss of a link each side tells the other one, over another link, which links are lost and what of every
// stream it has. Streams that sent over a lost link wait for the peer's word and go on from there.

// entry is what RESUME says about one stream.
type entry struct {
	decided  bool   // the acceptor has accepted it
	received uint64 // the FIN counts as one
	limit    uint64
}

const (
	resumeLast    = 1 // flag of the last fragment
	resumeKnown   = 1 // flags of an entry
	resumeDecided = 2
	maxLosses     = 1024 // links in one RESUME
)

// resume sends what a lost link leaves to be said, over l: the frames that ended streams, and RESUME. The caller holds the
// session's mutex.
func (s *Session) resume(l *link) {
	if len(s.lost) == 0 {
		return
	}
	l.control = append(l.control, s.goodbyes...)
	l.control = s.appendResume(l.control)
	l.barrier.after.frames = append(l.barrier.after.frames, s.goodbyes...)
	l.barrier.after.losses = append(l.barrier.after.losses, s.lost...)
	s.goodbyes, s.lost = nil, nil
}

// appendResume makes the fragments of a RESUME about all streams.
func (s *Session) appendResume(b []byte) []byte {
	lost := s.lost[max(0, len(s.lost)-maxLosses):]
	at := len(b)
	begin := func() {
		at = len(b)
		b = append(appendHeader(b, typeResume, 0, 0), 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(lost)))
		for _, n := range lost {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	end := func(flags byte) {
		n := len(b) - at - headerSize
		b[at+1], b[at+2], b[at+3] = byte(n>>16), byte(n>>8), byte(n)
		b[at+headerSize] = flags
	}
	begin()
	for _, st := range s.table.all {
		if st.err != nil {
			continue
		}
		if len(b)-at > maxBody-64 {
			end(0)
			begin()
		}
		b = st.appendEntry(b)
	}
	end(resumeLast)
	return b
}

func (st *Stream) appendEntry(b []byte) []byte {
	h := &st.receive
	flags, received := uint64(resumeKnown), h.received
	if !st.own && st.decided && st.code == 0 {
		flags |= resumeDecided
	}
	if h.complete() {
		received++
	}
	b = binary.AppendUvarint(b, st.id)
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, received)
	return binary.AppendUvarint(b, h.limit)
}

// resumeSet is what has come of a RESUME in fragments. Entries of streams that this side does not know are not kept, so it
// is no larger than the table.
type resumeSet struct {
	lost    []uint32
	entries map[uint64]entry
}

// parseResume reads one fragment and calls take for each entry.
func parseResume(body []byte, take func(id uint64, e entry)) (last bool, lost []uint32, err error) {
	if len(body) < 3 {
		return false, nil, fmt.Errorf("%w: RESUME of %d bytes", errFrame, len(body))
	}
	last = body[0]&resumeLast != 0
	n := int(binary.BigEndian.Uint16(body[1:]))
	body = body[3:]
	if n > maxLosses || len(body) < 4*n {
		return false, nil, fmt.Errorf("%w: RESUME with %d links", errFrame, n)
	}
	for ; n > 0; n-- {
		lost = append(lost, binary.BigEndian.Uint32(body))
		body = body[4:]
	}
	for len(body) > 0 {
		var v [4]uint64 // id, flags, received, limit
		for i := range v {
			x, size := binary.Uvarint(body)
			if size <= 0 || x > maxOffset {
				return false, nil, fmt.Errorf("%w: RESUME entry", errFrame)
			}
			v[i], body = x, body[size:]
		}
		take(v[0], entry{v[1]&resumeDecided != 0, v[2], v[3]})
	}
	return last, lost, nil
}

// resumed takes a fragment of the peer's RESUME, and acts on the last one. The caller holds the session's mutex.
func (s *Session) resumed(l *link, body []byte) error {
	set := &l.resuming
	if set.entries == nil {
		set.entries = make(map[uint64]entry)
	}
	last, lost, err := parseResume(body, func(id uint64, e entry) {
		if s.table.all[id] != nil {
			set.entries[id] = e
		}
	})
	if err != nil {
		return err
	}
	if slices.Contains(lost, l.number) {
		return errors.New("RESUME over a link that it calls lost")
	}
	set.lost = lost
	if !last {
		return nil
	}
	entries := set.entries
	l.resuming = resumeSet{}
	for _, n := range lost {
		s.loseNumber(n)
	}
	if !l.live {
		return nil
	}
	resumed := false
	for _, st := range s.table.all {
		if st.link != nil || st.err != nil || !slices.Contains(lost, st.lostLink) {
			continue
		}
		if !resumed {
			resumed = true
			s.counters.resumes++
		}
		e, known := entries[st.id]
		if err := st.resume(e, known); err != nil {
			return err
		}
	}
	return nil
}

var errPeerLost = errors.New("the peer has lost the link")

// loseNumber loses a link that the peer has lost, be it one that is not here yet.
func (s *Session) loseNumber(n uint32) {
	if _, ok := s.joining[n]; ok {
		s.joining[n] = true
		return
	}
	if !s.dialler {
		s.last = max(s.last, n) // its ATTACH may still be on the way
	}
	for _, l := range s.links {
		if l.number == n {
			s.lose(l, errPeerLost)
			return
		}
	}
}

// resume has a stream go on from what the peer has of it.
func (st *Stream) resume(e entry, known bool) error {
	s, h := st.s, &st.send
	switch {
	case !known && st.own && !st.heard: // the peer never heard of it
		st.toLink(s.pick())
		st.link.opens = append(st.link.opens, opened{st, s.now()})
		s.counters.retransmitted += h.rewind(0)
		st.owes(oweOpen)
	case !known:
		st.fail(fmt.Errorf("%w: %s", ErrReset, resetUnknown))
		s.drop(st)
		return nil
	case e.received > h.sent && (!h.finSent || e.received != h.sent+1), e.received < h.acked:
		return fmt.Errorf("stream %d: it has %d bytes, %d were sent", st.id, e.received, h.sent)
	default:
		st.toLink(s.pick())
		if st.own {
			st.wasReceived()
			if e.decided {
				st.wasDecided(0, "")
			}
		}
		h.limit = max(h.limit, e.limit)
		h.ack(e.received)
		h.charge(s.cfg.Budget)
		s.counters.retransmitted += h.rewind(h.acked)
		st.restate()
	}
	st.lostLink = 0
	st.schedule()
	st.dropIfOver()
	return nil
}

// restate sends again what a stream says of itself besides its bytes: all of it may be heard twice.
func (st *Stream) restate() {
	if st.err != nil {
		return
	}
	st.owes(st.owed | oweWindow)
	if !st.own {
		st.owes(oweReceived)
		if st.decided && st.code == 0 {
			st.owes(oweResult)
		}
	}
}

// unbind takes all streams off a lost link. Those that sent over it wait for the peer's RESUME. The caller holds the
// session's mutex.
func (s *Session) unbind(l *link) {
	for _, st := range s.table.all {
		if st.target == l {
			st.target = nil
		}
		if st.said == l.number {
			st.said = 0
			if st.link != nil && st.link != l { // it moved, and what it last said may not have arrived
				st.restate()
			}
		}
		if st.link == l {
			st.toLink(nil)
			st.lostLink = l.number
		}
	}
	for st := l.ready.pop(); st != nil; st = l.ready.pop() {
		st.schedule()
	}
	for st := l.urgent.pop(); st != nil; st = l.urgent.pop() {
		owed := st.owed
		st.owed = 0
		for o := oweOpen; o <= oweReset; o <<= 1 {
			if owed&o != 0 {
				st.owes(o)
			}
		}
	}
}
