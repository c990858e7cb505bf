package mux

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// ownedWriter is a connection that frames what it sends in place: the payload is behind Headroom bytes of buf, and all of
// buf may be overwritten.
type ownedWriter interface {
	Headroom() int
	WriteOwned(buf []byte) error
}

// readAhead is a connection that knows how many bytes a Read gives without waiting, at least.
type readAhead interface{ Pending() int }

// link is one connection of a session. Two goroutines use it: its reader, and whoever flushes, one at a time.
type link struct {
	s        *Session
	conn     net.Conn
	number   uint32
	headroom int
	owned    ownedWriter // nil if conn is none
	ahead    readAhead   // nil if conn is none

	heard   atomic.Int64 // when the last byte came, by Session.now
	in, out atomic.Int64 // bytes

	// All below is guarded by s.mu.
	flusher  func()  // flushAll, made once
	live     bool    // neither lost nor closing
	greeted  bool    // the peer's ATTACHED is in, or not to come
	flushing bool    // somebody builds and writes batches
	final    bool    // the batch that is written is the last one
	solo     *Stream // the one whose bytes the last batch had; nil: it had several's, or none
	timer    *time.Timer

	control []byte      // frames of the link and the session, ready to be sent
	urgent  streamQueue // streams that owe frames
	ready   streamQueue // streams with bytes that may be sent
	bulk    int         // bulk streams that send over the link

	carried  bool          // data, since the last heartbeat
	idleFrom time.Duration // since when it carries none

	health  health
	opens   []opened // without an answer, the oldest first; answered ones are removed late
	barrier barrier

	resuming resumeSet // what has come of the peer's RESUME
}

// opened is an open that waits for its RECEIVED.
type opened struct {
	st *Stream
	at time.Duration
}

func newLink(s *Session, conn net.Conn, number uint32) *link {
	l := &link{s: s, conn: conn, number: number, greeted: true}
	if o, ok := conn.(ownedWriter); ok && o.Headroom() <= maxHeadroom {
		l.owned, l.headroom = o, o.Headroom()
	}
	l.ahead, _ = conn.(readAhead)
	l.flusher = l.flushAll
	return l
}

// add takes a link into use: it starts its reader and sends what waits for one. The caller holds s.mu.
func (s *Session) add(l *link) {
	l.live = true
	l.idleFrom = s.now()
	l.heard.Store(int64(l.idleFrom))
	s.links = append(s.links, l)
	if len(s.links) == 1 {
		s.up = make(chan struct{})
		if s.resumeEnd != nil {
			s.resumeEnd.Stop()
		}
	}
	notify(s.changed)
	_ = l.conn.SetReadDeadline(time.Now().Add(s.cfg.Dead)) // the reader looks at every failure
	s.wait.Go(l.read)
	l.timer = time.AfterFunc(s.beatPause(), l.beat)
	l.ping()
	s.resume(l)
	l.flushSoon()
}

// claim makes the caller the one who flushes, if there is none: it must call flush on the result, after it has released
// s.mu. The caller holds s.mu.
func (l *link) claim() *link {
	if l == nil || l.flushing || !l.live || !l.hasWork() {
		return nil
	}
	l.flushing = true
	l.s.wait.Add(1)
	return l
}

// unclaim ends what claim began. The caller holds s.mu.
func (l *link) unclaim() {
	l.flushing = false
	if l.final {
		l.s.wait.Go(l.close)
	}
	l.s.wait.Done()
}

// flushSoon has somebody else flush, for callers that must not write. The caller holds s.mu.
func (l *link) flushSoon() {
	if l = l.claim(); l != nil {
		go l.flusher()
	}
}

func (l *link) hasWork() bool {
	return len(l.control) > 0 || l.urgent.head != nil || l.ready.head != nil || l.health.pongOwed
}

// inlineRounds is how many batches a writer of a stream sends for everybody before it has a goroutine go on.
const inlineRounds = 4

// flush sends what waits, as the one who claimed the link. It is for writers of streams, who have work of their own.
// A peer that was not heard lately may not read, and must not hold a writer who has a deadline.
func (l *link) flush() {
	if l != nil && l.flushRounds(inlineRounds) {
		go l.flusher()
	}
}

func (l *link) flushAll() { l.flushRounds(-1) }

// flushRounds sends so many batches at most, all if most is negative, and says whether there is more; then the link is
// still claimed.
func (l *link) flushRounds(most int) (more bool) {
	buf := batches.Get().(*batchBuffer)
	defer batches.Put(buf)
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; most != 0; most-- {
		s.clock = s.now()
		if most > 0 && s.clock-l.lastHeard() > leastPatience {
			return true
		}
		if st := l.ready.head; st != nil && st != l.solo {
			// Those who are about to write join the batch. With one busy stream there is nobody to wait for.
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
		p := buf.b[:l.headroom]
		if l.live {
			p = l.batch(p)
		} else if l.final {
			p = append(p, l.control...)
			l.control = nil
		}
		if len(p) == l.headroom {
			l.unclaim()
			return false
		}
		if l.barrier.size() > maxGoodbyes {
			s.lose(l, errors.New("the peer does not answer pings"))
			l.unclaim()
			return false
		}
		l.health.writing = s.clock
		s.mu.Unlock()
		err := l.write(p)
		s.mu.Lock()
		l.health.writing = 0
		if err != nil {
			l.control = nil
			s.lose(l, fmt.Errorf("write: %w", err))
			l.unclaim()
			return false
		}
	}
	return true
}

// write sends a batch, which is behind the carrier's headroom.
func (l *link) write(p []byte) error {
	l.out.Add(int64(len(p) - l.headroom))
	if l.owned != nil {
		return l.owned.WriteOwned(p)
	}
	_, err := l.conn.Write(p)
	return err
}

// bye makes the link send what waits and a CLOSE as its last, and close then, within goodbyeTime. The caller holds s.mu.
func (l *link) bye(code closeCode, text string) {
	l.control = appendCoded(l.batch(nil), typeClose, 0, uint8(code), text)
	l.retire()
	l.final = true
	l.timer = time.AfterFunc(goodbyeTime, func() { _ = l.conn.Close() })
	if !l.flushing {
		l.flushing = true
		l.s.wait.Add(1)
		go l.flusher()
	}
}

// retire takes the link out of use. The caller holds s.mu.
func (l *link) retire() {
	l.live = false
	l.timer.Stop()
	l.s.counters.in += l.in.Load()
	l.s.counters.out += l.out.Load()
}

// close ends the connection; it may take a moment where TLS says goodbye.
func (l *link) close() {
	_ = l.conn.Close()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.timer.Stop()
}

// lose takes a link out of use that failed. Its streams go on over another one, at once or when there is one.
// The caller holds s.mu.
func (s *Session) lose(l *link, cause error) {
	if !l.live {
		return
	}
	s.cfg.Log.Debug("link lost", "link", l.number, "err", cause)
	l.retire()
	s.wait.Go(l.close)
	s.links = remove(s.links, l)
	s.lost = append(s.lost, l.barrier.losses()...)
	s.lost = append(s.lost, l.number)
	s.goodbyes = append(s.goodbyes, l.barrier.goodbyes()...)
	s.unbind(l)
	notify(s.changed)
	if len(s.links) > 0 {
		m := s.pick()
		s.resume(m)
		m.flushSoon()
		return
	}
	s.pause(cause)
}

// pause waits for a link for as long as streams may wait. The caller holds s.mu.
func (s *Session) pause(cause error) {
	s.counters.pauses++
	close(s.up)
	notify(s.wants)
	if !errors.Is(cause, ErrDead) {
		cause = fmt.Errorf("%w: %w", ErrCut, noEOF(cause))
	}
	s.resumeEnd = time.AfterFunc(max(0, s.cfg.Resume), func() { s.abandon(cause) })
}

// abandon ends a session that still has no link.
func (s *Session) abandon(cause error) {
	s.mu.Lock()
	paused := len(s.links) == 0
	s.mu.Unlock()
	if paused {
		s.end(cause, closeLost)
	}
}

func remove(links []*link, l *link) []*link {
	kept := make([]*link, 0, len(links))
	for _, x := range links {
		if x != l {
			kept = append(kept, x)
		}
	}
	return kept
}

// pick chooses the link for a stream: one that answers before one that does not, then the one with the fewest bulk
// streams. The caller holds s.mu and knows that there is one.
func (s *Session) pick() *link {
	now := s.now()
	best := s.links[0]
	for _, l := range s.links[1:] {
		if a, b := best.suspect(now), l.suspect(now); a != b {
			if a {
				best = l
			}
			continue
		}
		if l.bulk < best.bulk {
			best = l
		}
	}
	return best
}
