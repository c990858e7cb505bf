// Package mux carries many streams between two peers over one or more links, which may die under them.
//
// Each stream opens with metadata, is acknowledged by the peer's mux (received) and then accepted or refused by the
// peer's user (result), carries bytes both ways under a flow control of its own, and ends by direction (half-close) or at
// once (reset). Every byte is delivered once and in order, or the stream ends with an error on both sides. A link that is
// lost pauses its streams until they go on over another one, at the exact byte; a session that has none for Config.Resume
// ends, and its streams with it. docs/protocol.md has the frames.
//
// The package knows only net.Conn. It does no authentication: who may attach a link to a session is the acceptor's
// business, beyond the proof of the session's secret.
package mux

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Config sets a session's limits. The zero value means the defaults.
type Config struct {
	MaxStreams int           // streams that the peer may have open at a time; 16,384
	MaxMeta    int           // bytes of an open's metadata; 4,096
	MaxLinks   int           // links that the session asks for under load; 4
	Heartbeat  time.Duration // how often each link is pinged; 3 s, two thirds of it while streams are open
	Dead       time.Duration // silence after which a link is lost; 7 s
	Resume     time.Duration // how long the session stays without a link; 30 s, negative: not at all
	Budget     *Budget       // memory of windows; shared by sessions; nil means 64 MiB for this one
	Log        *slog.Logger  // nil discards
}

func (c Config) withDefaults() Config {
	if c.MaxStreams == 0 {
		c.MaxStreams = 16384
	}
	if c.MaxMeta == 0 {
		c.MaxMeta = 4096
	}
	c.MaxMeta = min(c.MaxMeta, maxMetaLimit)
	if c.MaxLinks == 0 {
		c.MaxLinks = 4
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 3 * time.Second
	}
	if c.Dead == 0 {
		c.Dead = 7 * time.Second
	}
	if c.Resume == 0 {
		c.Resume = 30 * time.Second
	}
	if c.Budget == nil {
		c.Budget = NewBudget(defaultBudget)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// SessionID names a session for links that join it. It is no secret.
type SessionID [16]byte

// Session is one peer's relation to the other. It owns its links' connections. Its methods are safe for concurrent use.
type Session struct {
	cfg         Config
	id          SessionID
	secret      [32]byte // proves that a link which joins comes from the session's dialler
	dialler     bool
	started     time.Time
	local, peer net.Addr // of the first link

	wants     chan struct{}  // a link is wanted; holds one
	changed   chan struct{}  // the number of links changed; holds one
	arrivals  chan struct{}  // accepted is not empty; holds one
	ended     chan struct{}  // closed once err is set
	wait      sync.WaitGroup // goroutines and connections, and the session until its end
	resumeEnd *time.Timer    // ends a session that has no link; runs while there is none

	mu    sync.Mutex // guards all below, the links' and the streams' state; never held over I/O
	err   error      // why the session ended; set once
	table streamTable
	links []*link       // in use
	clock time.Duration // when a batch was last begun
	last  uint32        // the highest link number so far

	up       chan struct{}   // closed while there is no link
	lost     []uint32        // links whose loss the peer is still to be told
	goodbyes []byte          // frames that ended streams and may not have arrived; sent before the next RESUME
	joining  map[uint32]bool // links that Attach is about to add, and whether the peer has lost them already
	wasShort bool            // memory was short at the last heartbeat
	late     lateWork        // acknowledgements that wait for company
	counters counters
}

// newSession makes a session without a link.
func newSession(cfg Config, dialler bool, conn net.Conn) *Session {
	s := &Session{
		cfg: cfg.withDefaults(), dialler: dialler, started: time.Now(),
		local: conn.LocalAddr(), peer: conn.RemoteAddr(),
		wants: make(chan struct{}, 1), changed: make(chan struct{}, 1), arrivals: make(chan struct{}, 1),
		joining: make(map[uint32]bool), ended: make(chan struct{}), up: make(chan struct{}),
	}
	s.table.init(s)
	s.wait.Add(1) // until end
	return s
}

// Client starts a session on a connection that this side dialled. The session owns conn from here on.
func Client(conn net.Conn, cfg Config) (*Session, error) {
	s := newSession(cfg, true, conn)
	_, _ = rand.Read(s.id[:]) // never fails
	_, _ = rand.Read(s.secret[:])
	l := newLink(s, conn, 1)
	l.control = s.attach(1, false).append(nil)
	l.greeted = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = 1
	s.add(l)
	return s, nil
}

func (s *Session) attach(number uint32, join bool) attach {
	return attach{join: join, link: number, session: s.id, secret: s.secret, maxStreams: uint32(s.cfg.MaxStreams)}
}

// Server starts a session on a connection that this side accepted and on which the peer's Client begins one.
// The session owns conn from here on.
func Server(conn net.Conn, cfg Config) (*Session, error) {
	g, err := Greet(conn, greetTimeout)
	if err != nil {
		return nil, err
	}
	if _, joins := g.Joins(); joins {
		g.Refuse(UnknownSession, "no such session here")
		return nil, errors.New("start session: the peer wants to join another one")
	}
	return g.Start(cfg)
}

// ErrDead is in the chain of a session's error when its last link fell silent.
var ErrDead = errors.New("peer is dead")

// ErrCut ends a session that the peer has closed, or whose last connection broke and did not come back.
var ErrCut = errors.New("connection closed by the peer")

// ErrClosed ends a session that was closed by this side.
var ErrClosed = errors.New("session closed")

// ErrUnknownSession ends a session that the peer does not know any more: it was restarted, or gave the session up.
var ErrUnknownSession = errors.New("the peer does not know the session")

// ErrProtocol ends a session whose peer broke the protocol.
var ErrProtocol = errors.New("peer broke the protocol")

// closeCode is the code of a CLOSE frame.
type closeCode uint8

const (
	closeDone     closeCode = 0 // its user wanted so
	closeProtocol closeCode = 1 // this side broke the protocol
	closeLost     closeCode = 2 // no link for too long
)

// Close ends the session and resets its streams. The cause, if not nil, becomes this side's Err. What was written before
// is sent if the links take it within a second. Close waits until nothing of the session is left.
func (s *Session) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	s.end(cause, closeDone)
	s.wait.Wait()
}

// goodbyeTime is what links get to take a session's last bytes.
const goodbyeTime = time.Second

// end ends the session for the first cause that it is given.
func (s *Session) end(cause error, code closeCode) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = cause
	text := ""
	if code == closeProtocol {
		text = cause.Error()
	}
	for _, l := range s.links {
		l.bye(code, text[:min(len(text), maxText)])
	}
	if len(s.links) > 0 {
		close(s.up)
	}
	s.links = nil
	if s.resumeEnd != nil {
		s.resumeEnd.Stop()
	}
	s.late.stop()
	s.table.failAll(cause)
	close(s.ended)
	s.mu.Unlock()
	s.wait.Done()
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Err says why the session ended; nil while it lives.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// ID names the session to links that join it.
func (s *Session) ID() SessionID { return s.id }

// Open starts a stream. It returns without waiting for the peer; Received and Result do that. A session without a link
// opens nothing. A *Refusal with the code TooManyStreams says that the peer takes no more at the moment.
func (s *Session) Open(ctx context.Context, meta []byte) (*Stream, error) {
	if len(meta) > s.cfg.MaxMeta {
		return nil, fmt.Errorf("open stream: %d bytes of metadata, at most %d", len(meta), s.cfg.MaxMeta)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	s.mu.Lock()
	st, err := s.open(meta)
	var l *link
	if err == nil {
		l = st.link.claim()
	}
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	l.flush()
	return st, nil
}

// open makes a stream and schedules its OPEN. The caller holds s.mu.
func (s *Session) open(meta []byte) (*Stream, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case len(s.links) == 0:
		return nil, fmt.Errorf("%w: no link to the peer at the moment", ErrLost)
	case s.table.full():
		return nil, &Refusal{Code: TooManyStreams, Detail: "the peer takes no more streams"}
	}
	st := newStream(s, s.table.nextID())
	st.own, st.meta = true, meta
	st.received, st.result = make(chan struct{}), make(chan struct{})
	st.send.limit = earlyCredit
	st.link = s.pick()
	s.table.add(st)
	st.link.opens = append(st.link.opens, opened{st, s.now()})
	st.owes(oweOpen)
	return st, nil
}

// Accept returns the next stream that the peer has opened and that has been acknowledged to it as received.
// The caller must end it by Refuse, Close or Reset.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	for {
		s.mu.Lock()
		st, more := s.table.accept()
		s.mu.Unlock()
		if more {
			notify(s.arrivals)
		}
		if st != nil {
			return st, nil
		}
		select {
		case <-s.arrivals:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.ended:
			return nil, s.Err()
		}
	}
}

// notify leaves a signal in a channel that holds one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// now is the time since the session's start, on the monotonic clock.
func (s *Session) now() time.Duration { return time.Since(s.started) }

// Streams is how many streams are open, both sides' together, as their users see it.
func (s *Session) Streams() int { return int(s.counters.streams.Load()) }

// Wants has a signal when this side, which dials, should Attach a link: none is left, or there is need of more.
func (s *Session) Wants() <-chan struct{} { return s.wants }

// Want asks for a link, as the session itself does: an attempt to Attach one has failed.
func (s *Session) Want() { notify(s.wants) }

// Changed has a signal when the number of links has changed.
func (s *Session) Changed() <-chan struct{} { return s.changed }

// Live is how many links are in use. A session without one is paused.
func (s *Session) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}

// Paused is closed when the session has no link, or ends. One that has is asked anew: the channel is of one pause.
func (s *Session) Paused() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

// Settle waits until the peer's users have consumed everything in the streams that this side has closed, until the
// session ends, or until the context does.
func (s *Session) Settle(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.table.settled.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && ctx.Err() == nil && s.table.leaving > 0 {
		s.table.settled.Wait()
	}
}

// sameSecret compares in constant time.
func (s *Session) sameSecret(secret [32]byte) bool {
	return subtle.ConstantTimeCompare(s.secret[:], secret[:]) == 1
}
