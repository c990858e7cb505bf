package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Refusal is a result other than success. It certifies that none of the opener's bytes went anywhere.
type Refusal struct {
	Code   uint8 // the users' own, not 0; or TooManyStreams
	Detail string
}

func (r *Refusal) Error() string { return r.Detail }

// TooManyStreams is the code with which the mux itself refuses a stream.
const TooManyStreams = 255

// ErrLost is in the chain of errors of streams whose session or peer went away before the result.
var ErrLost = errors.New("stream lost")

// ErrReset is in the chain of errors of streams that the peer has reset, with syscall.ECONNRESET if its user wanted so.
var ErrReset = errors.New("stream reset by the peer")

// resetCode says why a stream was reset.
type resetCode uint8

const (
	resetCanceled resetCode = 0 // its user wanted so
	resetUnknown  resetCode = 1 // the sender knows no such stream
	resetStalled  resetCode = 3 // nobody read it, and memory was wanted
)

func (c resetCode) String() string {
	switch c {
	case resetCanceled:
		return "canceled"
	case resetUnknown:
		return "unknown to the peer"
	case resetStalled:
		return "nobody read it, and memory was wanted"
	default:
		return fmt.Sprintf("reason %d", uint8(c))
	}
}

// Stream is one stream of a session. It is a net.Conn whose directions close apart. One goroutine may read while another
// one writes; any may close.
type Stream struct {
	s    *Session
	id   uint64
	own  bool   // this side opened it
	meta []byte // of the OPEN; the opener's too until it is received

	writing sync.Mutex // one Write at a time

	// All below is guarded by the session's mutex.
	received  chan struct{} // the opener's wait for the peer; replaced by past, not to be held for the stream's life
	result    chan struct{}
	heard     bool  // received is past
	decided   bool  // result is past, or the acceptor has decided
	left      bool  // its user has closed it
	dropped   bool  // it is out of the session's table
	err       error // why it failed; nil while it goes on, and after an orderly end
	code      uint8 // the acceptor's decision
	resetCode resetCode
	text      string // beside code or resetCode

	link                  *link  // over which this side sends; nil while there is none
	lostLink              uint32 // the link whose loss it waits to hear about; 0: none
	said                  uint32 // the link over which it last spoke of itself, which has no acknowledgement; 0: none
	target                *link  // where it moves to once everything sent is acked; nil: nowhere
	queued                which
	owed                  owe
	nextUrgent, nextReady *Stream
	rate                  rate

	send    sendHalf
	receive receiveHalf
}

func newStream(s *Session, id uint64) *Stream {
	st := &Stream{s: s, id: id}
	st.send.room.L = &s.mu
	st.receive.readable.L = &s.mu
	st.receive.window = leastWindow
	if s.cfg.Budget.take(firstWindow) {
		st.receive.window = firstWindow
	} else {
		s.cfg.Budget.force(leastWindow)
	}
	st.receive.charged = st.receive.window
	st.receive.limit = uint64(st.receive.window)
	s.counters.streams.Add(1)
	return st
}

// Meta is what the opener sent along. The acceptor must not change it.
func (st *Stream) Meta() []byte { return st.meta }

// Received is closed when the peer's mux has the open.
func (st *Stream) Received() <-chan struct{} {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.received
}

// Decided is closed when the result is there, or the stream was lost before it.
func (st *Stream) Decided() <-chan struct{} {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.result
}

// past is the channel of what has happened.
var past = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// happened closes a channel that somebody may wait for, and lets go of it.
func happened(c *chan struct{}) {
	if *c != nil {
		close(*c)
	}
	*c = past
}

// Result waits for the peer's decision: nil when it accepted, a *Refusal, an error with ErrLost in its chain, or the
// context's error. Only a *Refusal certifies that no written byte went anywhere.
func (st *Stream) Result(ctx context.Context) error {
	select {
	case <-st.Decided():
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		if st.code == 0 && st.decided {
			return nil
		}
		return st.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Confirm tells the opener that its stream is accepted. The acceptor calls it before it writes.
func (st *Stream) Confirm() error { return st.decide(0, "") }

// Refuse tells the opener that nothing of what it sent was used, and ends the stream.
// The code must not be zero; detail is cut at 1,024 bytes.
func (st *Stream) Refuse(code uint8, detail string) error {
	if code == 0 {
		return errors.New("refuse stream: code 0 means accepted")
	}
	return st.decide(code, detail[:min(len(detail), maxDetail)])
}

func (st *Stream) decide(code uint8, detail string) error {
	st.s.mu.Lock()
	if st.err != nil || st.decided {
		err := st.err
		if code != 0 {
			st.leave()
		}
		st.s.mu.Unlock()
		return err
	}
	st.decided, st.code, st.text = true, code, detail
	l := st.link
	st.owes(oweResult)
	if code != 0 {
		st.leave()
		st.fail(net.ErrClosed)
	}
	l = l.claim()
	st.s.mu.Unlock()
	l.flush()
	return nil
}

// Read reads the peer's bytes. At the opener it waits for the result first.
func (st *Stream) Read(p []byte) (int, error) {
	h := &st.receive
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for {
		if h.queue.head != nil {
			n := h.read(p)
			st.consumed(n)
			return n, nil
		}
		undecided := st.own && !st.decided // it will be, with the session's end at the latest
		switch {
		case h.discard:
			return 0, net.ErrClosed
		case undecided && !h.deadline.over:
		case !undecided && h.ended():
			st.consumeFin()
			return 0, io.EOF
		case st.err != nil:
			return 0, noEOF(st.err)
		case h.deadline.over:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		}
		h.readable.Wait()
	}
}

// Write sends p. It waits while the stream is further ahead of its link than it may be. The opener may write at once: the
// peer's mux takes 32 KiB before it has the open, and its user nothing that it has refused.
func (st *Stream) Write(p []byte) (int, error) {
	st.writing.Lock()
	defer st.writing.Unlock()
	total := 0
	for {
		n := min(len(p), chunkLarge)
		if err := st.enqueue(p[:n], nil); err != nil {
			return total, err
		}
		total += n
		if p = p[n:]; len(p) == 0 {
			return total, nil
		}
	}
}

// enqueue takes p, or the chunk c, to be sent, once there is room. A chunk is released if it fails.
func (st *Stream) enqueue(p []byte, c *chunk) error {
	s := st.s
	s.mu.Lock()
	if err := st.awaitRoom(); err != nil {
		s.mu.Unlock()
		if c != nil {
			c.release()
		}
		return err
	}
	if c != nil {
		st.send.take(c)
	} else {
		st.send.queue(p)
	}
	st.send.charge(s.cfg.Budget)
	st.blocked()
	st.schedule()
	l := st.link.claim()
	s.mu.Unlock()
	l.flush()
	return nil
}

// awaitRoom waits until the stream takes more. The caller holds the session's mutex.
func (st *Stream) awaitRoom() error {
	h := &st.send
	for {
		switch {
		case st.err != nil:
			return noEOF(st.err)
		case h.fin:
			return net.ErrClosed
		case st.send.deadline.over:
			return os.ErrDeadlineExceeded
		case !h.full(st.s.cfg.Budget):
			return nil
		}
		h.room.Wait()
	}
}

// CloseWrite ends what this side sends; the peer reads EOF behind everything that was written.
func (st *Stream) CloseWrite() error {
	st.s.mu.Lock()
	if st.err != nil {
		defer st.s.mu.Unlock()
		return noEOF(st.err)
	}
	l := st.closeWrite()
	st.s.mu.Unlock()
	l.flush()
	return nil
}

func (st *Stream) closeWrite() *link {
	st.send.fin = true
	st.send.room.Broadcast()
	st.schedule()
	return st.link.claim()
}

// Close ends the stream. After CloseWrite and a read of EOF that is its orderly end; before, it resets the stream, so
// that the peer never takes a cut for an end.
func (st *Stream) Close() error {
	st.s.mu.Lock()
	if !st.send.fin || !st.receive.over {
		st.s.mu.Unlock()
		return st.Reset()
	}
	st.leave()
	st.s.mu.Unlock()
	return nil
}

// End ends what this side sends and drops what the peer still sends: it reads EOF after all that was written.
func (st *Stream) End() error {
	st.s.mu.Lock()
	st.leave()
	if st.err != nil {
		defer st.s.mu.Unlock()
		return noEOF(st.err)
	}
	st.ignore()
	l := st.closeWrite()
	st.s.mu.Unlock()
	l.flush()
	return nil
}

// Reset aborts both directions. The peer's reads and writes fail.
func (st *Stream) Reset() error {
	st.s.mu.Lock()
	st.leave()
	l := st.reset(resetCanceled, "", net.ErrClosed)
	st.s.mu.Unlock()
	l.flush()
	return nil
}

// reset fails the stream and tells the peer. It gives the link to flush. The caller holds the session's mutex.
func (st *Stream) reset(code resetCode, text string, cause error) *link {
	if st.err != nil || st.dropped {
		return nil
	}
	st.resetCode, st.text = code, text
	l := st.link
	st.owes(oweReset)
	st.fail(cause)
	return l.claim()
}

// leave takes the stream out of the session's count, once. The caller holds the session's mutex.
func (st *Stream) leave() {
	if st.left {
		return
	}
	st.left = true
	st.s.counters.streams.Add(-1)
	if !st.dropped {
		st.s.table.leaving++
	}
}

// fail ends both directions of the stream for this side. What came before the peer's end of a direction can still be
// read. The caller holds the session's mutex.
func (st *Stream) fail(cause error) {
	if st.err != nil {
		return
	}
	st.err = cause
	st.unblocked()
	st.send.drop()
	st.send.settle(st.s.cfg.Budget)
	st.toLink(nil)
	if !st.receive.complete() {
		st.receive.queue.clear()
	}
	st.receive.readable.Broadcast()
	st.answer()
	st.pushOn()
}

// failed says that the stream has ended with an error, for this side.
func (st *Stream) failed() bool { return st.err != nil }

// answer closes the opener's channels when the stream has failed. The caller holds the session's mutex.
func (st *Stream) answer() {
	if !st.own || st.decided {
		return
	}
	st.decided = true
	if st.code == 0 {
		st.code = 1                                    // whatever the cause is, it is no acceptance
		if _, refused := st.err.(*Refusal); !refused { //nolint:errorlint // an own error, as it was made
			st.err = fmt.Errorf("%w: %w", ErrLost, noEOF(st.err))
		}
	}
	happened(&st.result)
}

// answeredOpen says whether the peer's mux has the open, or nobody waits for that any more.
func (st *Stream) answeredOpen() bool { return st.heard || st.err != nil }

// noEOF keeps the end of a connection from being taken for the end of a stream, which io.EOF in an error's chain says to
// whoever copies.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("connection broke off")
	}
	return err
}

// LocalAddr is the address of this side of the session's first link.
func (st *Stream) LocalAddr() net.Addr { return st.s.local }

// RemoteAddr is the address of the peer's side of the session's first link.
func (st *Stream) RemoteAddr() net.Addr { return st.s.peer }

// deadline makes waits end at a time.
type deadline struct {
	timer *time.Timer
	over  bool
}

// set is called with the session's mutex held.
func (d *deadline) set(s *Session, t time.Time, wake *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.over = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.over = true
		wake.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.timer == timer {
			d.over = true
			wake.Broadcast()
		}
	})
	d.timer = timer
}

// SetDeadline sets both deadlines.
func (st *Stream) SetDeadline(t time.Time) error {
	return errors.Join(st.SetReadDeadline(t), st.SetWriteDeadline(t))
}

// SetReadDeadline makes reads fail from t on; the zero time means never.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.receive.deadline.set(st.s, t, &st.receive.readable)
	return nil
}

// SetWriteDeadline makes writes fail from t on; the zero time means never. A write that has failed may have sent a part.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.send.deadline.set(st.s, t, &st.send.room)
	return nil
}

// Await waits until Read would not: there are bytes, an end or an error to tell. At the opener it waits for the result
// first. It needs no buffer, and next to no stack.
func (st *Stream) Await() error {
	h := &st.receive
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for h.queue.head == nil && !h.discard && st.err == nil && !h.deadline.over && (st.own && !st.decided || !h.ended()) {
		h.readable.Wait()
	}
	return nil
}

// TryWrite sends the pieces, one behind the other, or says that it cannot without waiting; then it has sent nothing. It is
// for what is worth nothing later.
func (st *Stream) TryWrite(pieces ...[]byte) (sent bool, err error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	switch {
	case st.err != nil:
		return false, noEOF(st.err)
	case st.send.fin:
		return false, net.ErrClosed
	case st.send.full(st.s.cfg.Budget):
		return false, nil
	}
	for _, p := range pieces {
		st.send.queue(p)
	}
	st.send.charge(st.s.cfg.Budget)
	st.blocked()
	st.schedule()
	st.link.flushLate() // a flush waits for the link
	return true, nil
}
