package mux

import (
	"net"
	"syscall"

	"culvert/internal/nowait"
)

// push is a stream's bytes on their way to a connection.
type push struct {
	dst   net.Conn
	moved func(int)
	done  func(readErr, writeErr error)
	try   *tryWriter // nil if dst cannot be written without waiting

	busy   bool  // somebody writes to dst
	failed error // of dst: it takes no more
	told   bool  // done was called, or is about to be
	drain  func()
}

// Push makes the session write to dst what comes on the stream, without a goroutine while dst keeps up. It returns at
// once. moved is called with the size of each write, one at a time. done is called once, from a goroutine that must not be
// held: with nil and nil when the peer has ended its direction and dst has all of it, else with why the stream failed or
// why dst took no more. Nobody may read the stream from here on. At the opener nothing comes before the result.
func (st *Stream) Push(dst net.Conn, moved func(int), done func(readErr, writeErr error)) {
	p := &push{dst: dst, moved: moved, done: done, try: newTryWriter(dst)}
	p.drain = func() { st.s.drain(st) }
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	h := &st.receive
	h.push = p
	if c := h.queue.head; c != nil && p.try != nil && c.next == nil && !h.discard && st.err == nil {
		st.s.pushFirst(st, h.queue.pop())
	}
	st.pushOn()
}

// pushFirst writes what has come before the push, as much as goes without waiting. The caller holds the session's mutex,
// which is released meanwhile.
func (s *Session) pushFirst(st *Stream, c *chunk) {
	from := max(st.receive.consumed, c.off)
	s.pushDirect(st, from, c.buf[from-c.off:])
	c.release()
}

// direct says whether the read loop may write to dst itself.
func (p *push) direct(st *Stream) bool {
	return p.try != nil && !p.busy && p.failed == nil && st.receive.queue.head == nil
}

// pushDirect writes to dst from the read loop's buffer as much as goes without waiting, and queues the rest. The caller
// holds the session's mutex, which is released meanwhile.
func (s *Session) pushDirect(st *Stream, off uint64, data []byte) {
	h, p := &st.receive, st.receive.push
	p.busy = true
	s.mu.Unlock()
	n, err := p.try.write(data)
	if n > 0 && p.moved != nil {
		p.moved(n)
	}
	s.mu.Lock()
	p.busy = false
	if err != nil {
		p.failed = err
	}
	if n < len(data) && err == nil && !h.discard && (st.err == nil || h.complete()) {
		h.queue.unshift(off+uint64(n), data[n:])
	}
	st.consumed(n)
	st.dropRest()
	st.pushOn()
}

// pushOn sees that a stream with a push goes on: by a goroutine if bytes wait, or to its end. The caller holds the
// session's mutex.
func (st *Stream) pushOn() {
	h, p := &st.receive, st.receive.push
	if p == nil || p.told {
		return
	}
	switch {
	case p.failed != nil:
		h.queue.clear()
		p.tell(nil, p.failed)
	case h.discard, st.err != nil && !h.complete():
		err := st.err
		if err == nil {
			err = net.ErrClosed
		}
		p.tell(noEOF(err), nil)
	case p.busy:
	case h.ended():
		st.consumeFin()
		p.tell(nil, nil)
	case h.queue.head != nil:
		p.busy = true
		go p.drain() // until done
	}
}

func (p *push) tell(readErr, writeErr error) {
	p.told = true
	go p.done(readErr, writeErr) // its caller waits for that, not the session: a stream may be pushed after its end
}

// drain writes what is queued to the push's connection until nothing is left.
func (s *Session) drain(st *Stream) {
	h, p := &st.receive, st.receive.push
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		p.busy = false
		st.dropRest()
		st.pushOn()
	}()
	for h.queue.head != nil && p.failed == nil && !p.told {
		c := h.queue.pop()
		data := c.buf[max(h.consumed, c.off)-c.off:]
		s.mu.Unlock()
		n, err := p.dst.Write(data)
		if n > 0 && p.moved != nil {
			p.moved(n)
		}
		c.release()
		s.mu.Lock()
		p.failed = err
		st.consumed(n)
	}
}

// tryWriter writes to a connection as much as goes without waiting. It is used by one goroutine at a time.
type tryWriter struct {
	raw syscall.RawConn
	p   []byte
	n   int
	err error
	f   func(fd uintptr) bool
}

// newTryWriter is nil for a connection that has no descriptor.
func newTryWriter(c net.Conn) *tryWriter {
	sc, ok := c.(syscall.Conn)
	if !ok || !nowait.Works {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &tryWriter{raw: raw}
	w.f = func(fd uintptr) bool {
		w.n, _, w.err = nowait.Write(fd, w.p)
		return true
	}
	return w
}

// write gives how much went, which may be nothing.
func (w *tryWriter) write(p []byte) (int, error) {
	w.p, w.n, w.err = p, 0, nil
	err := w.raw.Write(w.f)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}
