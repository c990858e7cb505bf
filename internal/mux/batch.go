package mux

// quantum is what a bulk stream may put into a batch before the next one has its turn.
const quantum = 16 << 10

// batch appends what the link is to send next: its own frames, then what streams owe, then bytes, each stream in its turn.
// The caller holds the session's mutex.
func (l *link) batch(b []byte) []byte {
	start := len(b)
	b = l.takeControl(b, start) // begins with ATTACHED, on a link that has sent nothing yet
	if l.health.pongOwed {
		l.health.pongOwed = false
		b = appendPing(b, typePong, l.health.pongOf)
	}
	for l.urgent.head != nil && len(b)-start < batchSize {
		b = l.urgent.pop().appendOwed(b, l)
	}
	b = l.appendData(b, start)
	return b
}

// takeControl moves the link's own frames over, whole frames as far as they fit: RESUME may be long.
func (l *link) takeControl(b []byte, start int) []byte {
	n := 0
	for n < len(l.control) {
		size := headerSize + (int(l.control[n+1])<<16 | int(l.control[n+2])<<8 | int(l.control[n+3]))
		if n > 0 && len(b)-start+n+size > batchSize {
			break
		}
		n += size
	}
	b = append(b, l.control[:n]...)
	switch {
	case n < len(l.control):
		l.control = l.control[n:]
	case cap(l.control) > maxDetail:
		l.control = nil
	default:
		l.control = l.control[:0]
	}
	return b
}

func (l *link) appendData(b []byte, start int) []byte {
	sources := 0
	l.solo = l.ready.head
	for l.ready.head != nil {
		room := batchSize - dataHeaderSize - l.headroom - (len(b) - start)
		if room <= 0 {
			break
		}
		st := l.ready.pop()
		if st.link != l { // it has moved
			st.schedule()
			st.link.flushLate()
			continue
		}
		if l.ready.head != nil || sources > 0 {
			room = min(room, quantum)
		}
		if sources++; sources > 1 {
			l.solo = nil
		}
		b = st.appendData(b, room)
		st.schedule()
	}
	if sources > 0 {
		l.carried = true
		l.asks()
	}
	return b
}

// asks marks that something is on its way that the peer answers.
func (l *link) asks() {
	if l.unanswered() {
		return
	}
	l.health.asked = max(1, l.s.clock)
	l.s.late.arm(l.s)
}

// appendOwed appends the frames that a stream owes. The caller holds the session's mutex.
func (st *Stream) appendOwed(b []byte, l *link) []byte {
	owed := st.owed
	st.owed = 0
	st.said = l.number
	if owed&oweReset != 0 {
		at := len(b)
		b = appendCoded(b, typeReset, st.id, uint8(st.resetCode), st.text)
		l.remember(b[at:])
		st.s.drop(st)
		return b
	}
	if owed&oweOpen != 0 {
		b = appendOpen(b, st.id, st.receive.limit, st.meta)
		l.asks()
	}
	if owed&oweReceived != 0 {
		b = appendReceived(b, st.id, st.receive.limit)
	}
	if owed&oweResult != 0 {
		at := len(b)
		b = appendCoded(b, typeResult, st.id, st.code, st.text)
		if st.code != 0 {
			l.remember(b[at:])
			st.s.drop(st)
			return b
		}
	}
	if owed&oweWindow != 0 {
		at := len(b)
		b = appendWindow(b, st.id, st.receive.acked(), st.receive.limit)
		if st.receive.over {
			l.remember(b[at:])
		}
		st.dropIfOver()
	}
	return b
}

// remember keeps a frame that ends a stream until it is known to have arrived.
func (l *link) remember(frame []byte) {
	f := &l.barrier.after.frames
	*f = append(*f, frame...)
	if len(*f) > manyGoodbyes && l.health.pinged == 0 && l.live {
		l.ping()
	}
}

// appendData appends at most room bytes of what the stream may send, and its FIN if that is next.
func (st *Stream) appendData(b []byte, room int) []byte {
	h := &st.send
	n := min(room, h.sendable(st.s.cfg.Budget))
	if n > 0 {
		b = appendDataHeader(b, st.id, h.sent, n)
		b = h.copySent(b, n)
		st.measure(n)
		h.room.Broadcast()
	}
	if h.finDue() {
		b = appendFin(b, st.id, h.queuedTo)
		h.finSent, h.finOnce = true, true
	}
	return b
}

// schedule puts the stream into its link's queue if it may send. The caller holds the session's mutex.
func (st *Stream) schedule() {
	if st.link == nil || st.moving() {
		return
	}
	if st.send.sendable(st.s.cfg.Budget) > 0 || st.send.finDue() {
		st.link.ready.push(inReady, st)
	}
}

// owes has the stream send a frame. Without a link only what ends the stream is kept for the next one; RESUME says the
// rest. The caller holds the session's mutex.
func (st *Stream) owes(o owe) {
	st.owed |= o
	if st.link != nil {
		st.link.urgent.push(inUrgent, st)
		return
	}
	if o == oweReset || o == oweResult && st.code != 0 || o == oweWindow && st.receive.over {
		st.s.sayGoodbye(st)
	}
}

// sayGoodbye sends what ends a stream that has no link: over any link, or over the next. The caller holds the session's
// mutex.
func (s *Session) sayGoodbye(st *Stream) {
	keep := &link{s: s}
	st.appendOwed(nil, keep)
	frames := keep.barrier.after.frames
	if len(s.links) == 0 {
		s.goodbyes = append(s.goodbyes, frames...)
		return
	}
	l := s.pick()
	l.control = append(l.control, frames...)
	l.remember(frames)
	l.flushSoon()
}
