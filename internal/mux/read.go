package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// idleRead is what a link reads into while it has little to say. A read that fills it is followed by larger ones.
const idleRead = 512

// oneRecord is more than a TLS record holds: with so much read ahead below, a read does not wait.
const oneRecord = 17 << 10

// reader is a link's read loop. It owns its buffer and never waits for anything but the connection.
type reader struct {
	l     *link
	idle  [idleRead]byte
	large *[readSize]byte // nil while the link has little to say
	buf   []byte          // idle or large
	r, w  int             // what is read and not used yet

	// Of the DATA frame that is being read.
	stream, off uint64
	left        int

	skip int // bytes left of a frame that this side does not know
}

// read is a link's reading goroutine.
func (l *link) read() {
	r := &reader{l: l}
	r.buf = r.idle[:]
	err := r.run()
	if r.large != nil {
		readBuffers.Put(r.large)
	}
	l.s.failed(l, err)
}

// failed takes a link out of use that cannot be read, or ends the session if the peer broke the protocol.
func (s *Session) failed(l *link, err error) {
	s.mu.Lock()
	broken := l.live && errors.Is(err, ErrProtocol)
	if !broken {
		s.lose(l, err)
	}
	s.mu.Unlock()
	if broken {
		s.end(err, closeProtocol)
	}
}

// run ends with an error: the connection's, or one with ErrProtocol in its chain.
func (r *reader) run() error {
	for {
		n, err := r.fill()
		if n > 0 {
			r.l.heard.Store(int64(r.l.s.now()))
			r.l.in.Add(int64(n))
			if err := r.use(); err != nil {
				return fmt.Errorf("%w: %w", ErrProtocol, err)
			}
			r.l.answer()
			r.fit(n)
		}
		if err != nil && !r.goesOn(err) {
			return err
		}
	}
}

// fill reads once, and on while that does not wait.
func (r *reader) fill() (n int, err error) {
	n, err = r.l.conn.Read(r.buf[r.w:])
	r.w += n
	for err == nil && r.large != nil && r.l.ahead != nil && len(r.buf)-r.w >= oneRecord && r.l.ahead.Pending() >= oneRecord {
		var m int
		m, err = r.l.conn.Read(r.buf[r.w:])
		r.w += m
		n += m
	}
	return n, err
}

// goesOn says whether a failed read was but the end of a time in which the peer was heard.
func (r *reader) goesOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	s := r.l.s
	until := r.l.lastHeard() + s.cfg.Dead
	if s.now() >= until {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lose(r.l, r.l.silence(s.now()))
		return false
	}
	return r.l.conn.SetReadDeadline(s.started.Add(until)) == nil
}

// fit chooses the buffer for the next read, after one of n bytes.
func (r *reader) fit(n int) {
	rest := r.buf[r.r:r.w]
	switch {
	case r.large == nil && (n == idleRead || len(rest) > 0):
		r.large = readBuffers.Get().(*[readSize]byte)
		r.buf = r.large[:]
	case r.large != nil && n <= idleRead && len(rest) == 0:
		readBuffers.Put(r.large)
		r.large, r.buf = nil, r.idle[:]
	}
	r.w = copy(r.buf, rest)
	r.r = 0
}

// use takes all that is whole, and of DATA all that is there.
func (r *reader) use() error {
	for {
		b := r.buf[r.r:r.w]
		if r.skip > 0 {
			n := min(r.skip, len(b))
			if n == 0 {
				return nil
			}
			r.r += n
			r.skip -= n
			continue
		}
		if r.left > 0 {
			n := min(r.left, len(b))
			if n == 0 {
				return nil
			}
			if err := r.l.s.data(r.l, r.stream, r.off, b[:n]); err != nil {
				return err
			}
			r.r += n
			r.left -= n
			r.off += uint64(n)
			continue
		}
		if len(b) < headerSize {
			return nil
		}
		h, err := parseHeader(b)
		if err != nil {
			return err
		}
		if h.kind != typeAttached && !r.l.isGreeted() {
			return fmt.Errorf("%w: type %#x in place of ATTACHED", errFrame, byte(h.kind))
		}
		if h.kind.unknown() && h.kind&skippable != 0 {
			r.r += headerSize
			r.skip = h.length
			continue
		}
		if h.kind == typeData {
			if len(b) < dataHeaderSize {
				return nil
			}
			off, _, err := numbers(b[headerSize:dataHeaderSize], 1)
			if err != nil {
				return err
			}
			r.stream, r.off, r.left = h.stream, off, h.length-8
			r.r += dataHeaderSize
			continue
		}
		if len(b) < headerSize+h.length {
			return nil
		}
		if err := r.l.handle(h, b[headerSize:headerSize+h.length]); err != nil {
			return err
		}
		r.r += headerSize + h.length
	}
}

// answer has what the read frames gave rise to be sent. The read loop itself never writes, so that two full directions
// cannot block each other.
func (l *link) answer() {
	l.s.mu.Lock()
	l.flushSoon()
	l.s.mu.Unlock()
}

func (l *link) isGreeted() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.greeted || !l.live // of a lost link nothing counts
}

// handle takes a whole frame other than DATA.
func (l *link) handle(h header, body []byte) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.live {
		return nil
	}
	if !l.greeted {
		return l.greet(h, body)
	}
	if h.kind >= typeOpen && h.kind <= typeReset {
		return s.handleStream(l, h, body)
	}
	switch h.kind {
	case typePing, typePong:
		opaque, err := opaqueOf(body)
		if err != nil {
			return err
		}
		if h.kind == typePong {
			l.ponged(opaque)
		} else {
			l.health.pongOwed, l.health.pongOf = true, opaque
		}
	case typeClose:
		code, text, err := coded(body, maxText)
		if err != nil {
			return err
		}
		s.closedByPeer(closeCode(code), text)
	case typeResume:
		return s.resumed(l, body)
	case typeMore:
		if s.dialler && len(s.links) < s.cfg.MaxLinks {
			notify(s.wants)
		}
	default:
		return fmt.Errorf("%w: unexpected type %#x", errFrame, byte(h.kind))
	}
	return nil
}

// closedByPeer ends the session as the peer has. The caller holds the session's mutex.
func (s *Session) closedByPeer(code closeCode, text string) {
	err := ErrCut
	switch code {
	case closeProtocol:
		err = fmt.Errorf("%w: it says that this side broke the protocol: %q", ErrCut, text)
	case closeLost:
		err = fmt.Errorf("%w: it waited too long for a link", ErrCut)
	}
	s.wait.Go(func() { s.end(err, closeDone) })
}

// handleStream takes a frame of a stream, which may have ended here. The caller holds the session's mutex.
func (s *Session) handleStream(l *link, h header, body []byte) error {
	if h.kind == typeOpen {
		return s.opened(l, h.stream, body)
	}
	if h.kind == typeReset {
		code, text, err := coded(body, maxText)
		if err != nil {
			return err
		}
		return s.wasReset(l, h.stream, resetCode(code), text)
	}
	st, err := s.table.find(h.stream)
	if st == nil {
		return err
	}
	switch h.kind {
	case typeReceived:
		limit, _, err := numbers(body, 1)
		if err != nil || !st.own {
			return errors.Join(err, wrongSide(st, !st.own))
		}
		st.wasReceived()
		st.credit(st.send.acked, limit)
	case typeResult:
		code, detail, err := coded(body, maxDetail)
		if err != nil || !st.own {
			return errors.Join(err, wrongSide(st, !st.own))
		}
		st.wasReceived()
		st.wasDecided(code, detail)
	case typeWindow:
		acked, limit, err := numbers(body, 2)
		if err != nil {
			return err
		}
		return st.wasAcked(acked, limit)
	case typeFin:
		at, _, err := numbers(body, 1)
		if err != nil {
			return err
		}
		return st.finish(at)
	}
	return nil
}

func wrongSide(st *Stream, wrong bool) error {
	if wrong {
		return fmt.Errorf("stream %d: an answer to its opener", st.id)
	}
	return nil
}

// opened takes a peer's OPEN. The caller holds the session's mutex.
func (s *Session) opened(l *link, id uint64, body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("%w: OPEN of %d bytes", errFrame, len(body))
	}
	limit, _, err := numbers(body[:8], 1)
	if err != nil {
		return err
	}
	if len(body)-8 > s.cfg.MaxMeta {
		return fmt.Errorf("stream %d: %d bytes of metadata, at most %d", id, len(body)-8, s.cfg.MaxMeta)
	}
	fresh, err := s.table.sawOpen(id)
	if err != nil {
		return err
	}
	if !fresh {
		return s.openedAgain(l, id)
	}
	if s.table.crowded() {
		return s.refuse(l, id)
	}
	s.table.refused = 0
	st := newStream(s, id)
	st.meta = append([]byte(nil), body[8:]...)
	st.send.limit = limit
	st.link = l
	s.table.add(st)
	s.table.arrived(st)
	st.owes(oweReceived)
	notify(s.arrivals)
	return nil
}

// openedAgain answers an OPEN that came already, over a link that was lost.
func (s *Session) openedAgain(l *link, id uint64) error {
	st := s.table.all[id]
	if st == nil {
		return l.say(typeReset, id, uint8(resetUnknown))
	}
	st.owes(oweReceived)
	if st.decided && st.code == 0 {
		st.owes(oweResult)
	}
	return nil
}

// refusedSlack is how many opens beyond its limit a peer may try.
const refusedSlack = 64

// refuse answers an OPEN that is one too many. A peer that goes on regardless is cut off.
func (s *Session) refuse(l *link, id uint64) error {
	s.table.refused++
	if s.table.refused > 2*s.cfg.MaxStreams+refusedSlack {
		return fmt.Errorf("%d streams opened beyond the %d that it may have", s.table.refused, s.cfg.MaxStreams)
	}
	return l.say(typeResult, id, TooManyStreams)
}

// maxControl is how much of the mux's own answers may wait for a peer that does not read them.
const maxControl = 1 << 20

var errUnread = errors.New("it does not read the answers that it asks for")

// say sends a frame of a stream that is not there.
func (l *link) say(kind frameType, id uint64, code uint8) error {
	if len(l.control) > maxControl {
		return errUnread
	}
	at := len(l.control)
	l.control = appendCoded(l.control, kind, id, code, "")
	l.remember(l.control[at:])
	return nil
}

// wasReset ends a stream as the peer has. What the stream owed stays where it is until the link sends. The caller holds the
// session's mutex.
func (s *Session) wasReset(l *link, id uint64, code resetCode, text string) error {
	st := s.table.all[id]
	if st == nil {
		_, err := s.table.sawOpen(id) // an OPEN that comes later is void
		return err
	}
	if t := &s.table; l.urgent.n > t.own+2*t.peersMax+1024 {
		return errUnread
	}
	why := error(syscall.ECONNRESET) // what a TCP connection would say of it
	switch {
	case text != "":
		why = fmt.Errorf("%s: %s", code, text)
	case code != resetCanceled:
		why = errors.New(code.String())
	}
	st.fail(fmt.Errorf("%w: %w", ErrReset, why))
	s.drop(st)
	return nil
}

// wasReceived marks that the peer's mux has the open.
func (st *Stream) wasReceived() {
	if st.heard || st.err != nil {
		return
	}
	st.heard = true
	st.meta = nil
	happened(&st.received)
	st.moveIfQuiet()
}

// wasDecided takes the result.
func (st *Stream) wasDecided(code uint8, detail string) {
	if st.decided {
		return
	}
	if code == 0 {
		st.decided = true
		happened(&st.result)
		st.receive.readable.Broadcast()
		return
	}
	st.code = code
	st.fail(&Refusal{Code: code, Detail: detail})
	st.s.drop(st)
}

// credit takes the peer's limit, and sends on if that lets it.
func (st *Stream) credit(acked, limit uint64) {
	h := &st.send
	h.limit = max(h.limit, limit)
	h.ack(acked)
	h.charge(st.s.cfg.Budget)
	h.grow(st.s.cfg.Budget)
	if h.sendable(st.s.cfg.Budget) > 0 {
		st.unblocked()
		st.schedule()
		st.link.flushLate() // it may be another link than the one that is read
	}
}

// wasAcked takes a WINDOW.
func (st *Stream) wasAcked(acked, limit uint64) error {
	h := &st.send
	if acked > h.sent && (!h.finOnce || acked != h.queuedTo+1) {
		return fmt.Errorf("stream %d: %d bytes acknowledged, %d were sent", st.id, acked, h.sent)
	}
	st.credit(acked, limit)
	st.moveIfQuiet()
	st.dropIfOver()
	return nil
}

// opaqueOf reads the body of a PING or PONG.
func opaqueOf(body []byte) (uint64, error) {
	if len(body) != 8 {
		return 0, fmt.Errorf("%w: ping of %d bytes", errFrame, len(body))
	}
	return binary.BigEndian.Uint64(body), nil
}
