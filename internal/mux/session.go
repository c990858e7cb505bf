// Package mux carries many streams over one connection between two peers.
//
// Each stream opens with metadata, is acknowledged by the peer's mux (received) and then accepted or refused by the
// peer's user (result), carries bytes both ways under a flow control of its own, and ends by direction (half-close)
// or at once (reset). A peer from which nothing comes for Config.Dead is lost, and its streams with it.
//
// This is the mux's first form: one link, over the yamux framing. It knows only net.Conn.
package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// Config sets a session's limits. The zero value means the defaults.
type Config struct {
	MaxStreams int           // streams that the peer may have open at a time; 16,384
	MaxMeta    int           // bytes of an open's metadata; 4,096
	Heartbeat  time.Duration // how often a byte is made to flow each way; 3 s
	Dead       time.Duration // silence after which the peer is lost; 7 s
	Budget     *Budget       // memory for windows beyond each stream's first 256 KiB; shared by sessions; nil means none
	Log        *slog.Logger  // nil discards
}

func (c Config) withDefaults() Config {
	if c.MaxStreams == 0 {
		c.MaxStreams = 16384
	}
	if c.MaxMeta == 0 {
		c.MaxMeta = 4096
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 3 * time.Second
	}
	if c.Dead == 0 {
		c.Dead = 7 * time.Second
	}
	if c.Budget == nil {
		c.Budget = NewBudget(0)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// openTimeout bounds how long a stream that the peer has opened may keep its metadata back.
const openTimeout = 5 * time.Second

// writeTimeout is how long a write may make no headway; yamux may take half of it for the whole.
const writeTimeout = 10 * time.Second

// Session is one peer's relation to the other. It owns its connection. Its methods are safe for concurrent use.
type Session struct {
	cfg      Config
	conn     *countedConn
	yamux    *yamux.Session
	accepted chan *Stream
	streams  atomic.Int64   // that are open, as their users see it
	ended    chan struct{}  // closed once err is set
	done     chan struct{}  // closed once the connection is closed and no goroutine is left
	wait     sync.WaitGroup // accept holds it until err is set

	mu  sync.Mutex
	err error // why the session ended; set once
}

// Client starts a session on a connection that this side dialled. The session owns conn from here on.
func Client(conn net.Conn, cfg Config) (*Session, error) { return start(conn, cfg, yamux.Client) }

// Server starts a session on a connection that this side accepted. The session owns conn from here on.
func Server(conn net.Conn, cfg Config) (*Session, error) { return start(conn, cfg, yamux.Server) }

type newYamux = func(net.Conn, *yamux.Config, func() (yamux.MemoryManager, error)) (*yamux.Session, error)

func start(conn net.Conn, cfg Config, open newYamux) (*Session, error) {
	cfg = cfg.withDefaults()
	s := &Session{
		cfg:      cfg,
		conn:     newCountedConn(conn),
		accepted: make(chan *Stream),
		ended:    make(chan struct{}),
		done:     make(chan struct{}),
	}
	y := yamux.DefaultConfig()
	y.EnableKeepAlive = false // watch judges by any byte, not by the answer to a ping that bulk data may delay
	y.MeasureRTTInterval = cfg.Heartbeat
	y.ConnectionWriteTimeout = writeTimeout
	y.MaxIncomingStreams = uint32(cfg.MaxStreams)
	y.MaxStreamWindowSize = 4 << 20
	y.ReadBufSize = 16 << 10
	y.LogOutput = logWriter{cfg.Log}
	ys, err := open(s.conn, y, cfg.Budget.span)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start session: %w", err)
	}
	s.yamux = ys
	s.wait.Go(s.accept)
	s.wait.Go(s.watch)
	s.wait.Go(s.beat)
	go func() {
		s.wait.Wait()
		close(s.done)
	}()
	return s, nil
}

// accept receives the peer's opens. Each waits for its metadata on its own, so that a slow one delays nobody.
func (s *Session) accept() {
	for {
		ys, err := s.yamux.AcceptStream()
		if err != nil {
			s.end(noEOF(err))
			return
		}
		s.wait.Go(func() {
			st, err := receive(s, ys)
			if err != nil {
				_ = ys.Reset()
				s.cfg.Log.Debug("stream dropped before its metadata came", "err", err)
				return
			}
			select {
			case s.accepted <- st:
			case <-s.ended:
			}
		})
	}
}

// watch ends the session when nothing has come from the peer for Config.Dead.
func (s *Session) watch() {
	tick := time.NewTicker(s.cfg.Heartbeat / 3)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case now := <-tick.C:
			if silence := now.Sub(s.conn.lastRead()); silence > s.cfg.Dead {
				s.end(fmt.Errorf("%w: nothing heard for %s", ErrDead, silence.Round(time.Second)))
				return
			}
		}
	}
}

// beat makes a byte flow each Heartbeat. yamux sends pings too, but waits for the answer to one before it sends the next,
// and behind bulk data on a slow link an answer may take longer than a peer may be silent.
func (s *Session) beat() {
	tick := time.NewTicker(s.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
			s.conn.beat(s.cfg.Heartbeat)
		}
	}
}

// spawn runs f in a goroutine that Close waits for, unless the session has ended.
func (s *Session) spawn(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.wait.Go(f)
	}
	return s.err
}

// ErrDead ends a session whose peer has fallen silent.
var ErrDead = errors.New("peer is dead")

// ErrCut ends a session whose peer has closed the connection.
var ErrCut = errors.New("connection closed by the peer")

// noEOF keeps the end of the connection from being taken for the end of a stream, which io.EOF in an error's chain
// says to whoever copies.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}

// ErrClosed ends a session that was closed by this side.
var ErrClosed = errors.New("session closed")

// Open starts a stream and sends its metadata. It returns without waiting for the peer; Received and Result do that.
// The context bounds only the call.
func (s *Session) Open(ctx context.Context, meta []byte) (*Stream, error) {
	if len(meta) > s.cfg.MaxMeta {
		return nil, fmt.Errorf("open stream: %d bytes of metadata, at most %d", len(meta), s.cfg.MaxMeta)
	}
	ys, err := s.yamux.OpenStream(ctx)
	if err != nil {
		return nil, s.notOpened(ctx, err)
	}
	st, err := request(ctx, s, ys, meta)
	if err != nil {
		_ = ys.Reset()
		return nil, s.notOpened(ctx, err)
	}
	return st, nil
}

// notOpened names the cause behind a failed open: the caller's context, the session's end, else err.
func (s *Session) notOpened(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("open stream: %w", s.cause(err))
}

// Accept returns the next stream that the peer has opened and that has been acknowledged to it as received.
// The caller must end it by Refuse, Close or Reset.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	select {
	case st := <-s.accepted:
		return st, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ended:
		return nil, s.Err()
	}
}

// Close ends the session and resets its streams. The cause, if not nil, becomes this side's Err.
// It waits until no goroutine of the session is left.
func (s *Session) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	s.end(cause)
	<-s.done
}

func (s *Session) end(cause error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = cause
		close(s.ended)
	}
	s.mu.Unlock()
	// The connection first: yamux waits for its own loops, which may be blocked in it.
	s.conn.Close()
	_ = s.yamux.Close() // reports nothing
}

// cause prefers the session's own reason over the library's consequence of it.
func (s *Session) cause(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return err
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Err says why the session ended; nil while it lives.
func (s *Session) Err() error { return s.cause(nil) }

// RTT is the last measured round-trip time, zero before the first measurement.
func (s *Session) RTT() time.Duration { return s.yamux.RTT() }

// Streams is how many streams are open, both sides' together. It waits for nobody, unlike yamux's own count.
func (s *Session) Streams() int { return int(s.streams.Load()) }

// Bytes is what the connection has carried in each direction, framing included.
func (s *Session) Bytes() (in, out int64) { return s.conn.in.Load(), s.conn.out.Load() }

// countedConn counts what passes and remembers when the peer was last heard.
type countedConn struct {
	net.Conn
	started time.Time
	heard   atomic.Int64 // nanoseconds since started, on the monotonic clock
	in, out atomic.Int64
	once    sync.Once
	closed  error

	writing sync.Mutex // each Write of yamux is one frame or several
	wrote   time.Time
}

func newCountedConn(c net.Conn) *countedConn { return &countedConn{Conn: c, started: time.Now()} }

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.in.Add(int64(n))
		c.heard.Store(int64(time.Since(c.started)))
	}
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.write(p)
}

func (c *countedConn) write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote = time.Now()
	c.out.Add(int64(n))
	return n, err
}

// pingFrame is a ping of yamux with a number that yamux comes to after 4 billion of its own; nobody waits for the answer.
var pingFrame = [12]byte{0, 2, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}

// beat sends a ping if nothing else has been sent for so long. A Write that is stuck needs no ping.
func (c *countedConn) beat(pause time.Duration) {
	if !c.writing.TryLock() {
		return
	}
	defer c.writing.Unlock()
	if time.Since(c.wrote) < pause {
		return
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // yamux's own may be over
	_, _ = c.write(pingFrame[:])                              // a connection that fails, fails yamux too
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.closed = c.Conn.Close() })
	return c.closed
}

func (c *countedConn) lastRead() time.Time { return c.started.Add(time.Duration(c.heard.Load())) }

// logWriter passes yamux's own complaints on, at debug: each is about one stream or repeats the session's error.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("yamux", "says", string(p))
	return len(p), nil
}
