package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"culvert/internal/mux"
)

// HelloTimeout bounds how long either side waits for the other's part of the handshake.
const HelloTimeout = 5 * time.Second

// Session is a client's session with a server, after the hello. Its first stream, which the client opened, carries
// control messages; every other one is a connection of a visitor, opened by the server.
type Session struct {
	*mux.Session
	control *mux.Stream
	gone    chan GoAway   // the peer's first go-away
	health  chan Health   // of a client's services; nil on the client's side
	ended   chan Ended    // of the client's tunnels; nil on the server's side
	reading chan struct{} // closed when the reader of control messages has ended

	write sync.Mutex // one control message at a time
}

// Connect makes the client's side of a session: it sends the hello and waits for the welcome.
// On failure the mux session is closed; an error that is a *GoAway is the server's refusal.
func Connect(ctx context.Context, m *mux.Session, h Hello) (*Session, Welcome, error) {
	ctx, cancel := helloContext(ctx, m)
	defer cancel()
	var w Welcome
	s, err := connect(ctx, m, h, &w)
	if err != nil {
		m.Close(err)
		return nil, Welcome{}, fmt.Errorf("hello: %w", err)
	}
	return s, w, nil
}

// helloContext bounds a handshake, which is not worth a wait for another link.
func helloContext(ctx context.Context, m *mux.Session) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, HelloTimeout)
	lost := m.Paused()
	go func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func connect(ctx context.Context, m *mux.Session, h Hello, w *Welcome) (*Session, error) {
	st, err := m.Open(ctx, []byte{metaControl})
	if err != nil {
		return nil, err
	}
	if err := st.Result(ctx); err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Unix(1, 0)) })()
	h.Version = Version
	if err := writeMessage(st, msgHello, h); err != nil {
		return nil, err
	}
	if err := expect(st, msgWelcome, maxWelcome, w); err != nil {
		return nil, err
	}
	if len(w.Answers) != len(h.Offers) {
		return nil, fmt.Errorf("%d answers to %d offers", len(w.Answers), len(h.Offers))
	}
	return newSession(m, st, nil, make(chan Ended)), nil
}

// Accept makes the server's side of a session: it waits for the client's hello. The caller answers with Welcome, or
// with GoAway and Close. On failure the mux session is closed.
func Accept(ctx context.Context, m *mux.Session) (*Session, Hello, error) {
	ctx, cancel := helloContext(ctx, m)
	defer cancel()
	var h Hello
	st, err := acceptControl(ctx, m)
	if err == nil {
		defer context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Unix(1, 0)) })() // at its deadline, too
		err = expect(st, msgHello, maxHello, &h)
	}
	if err != nil {
		m.Close(err)
		return nil, Hello{}, fmt.Errorf("hello: %w", err)
	}
	return newSession(m, st, make(chan Health), nil), h, nil
}

func acceptControl(ctx context.Context, m *mux.Session) (*mux.Stream, error) {
	st, err := m.Accept(ctx)
	if err != nil {
		return nil, err
	}
	if meta := st.Meta(); len(meta) != 1 || meta[0] != metaControl {
		return nil, errors.New("first stream is not for control")
	}
	return st, st.Confirm()
}

func newSession(m *mux.Session, control *mux.Stream, health chan Health, ended chan Ended) *Session {
	_ = control.SetDeadline(time.Time{})
	s := &Session{Session: m, control: control, gone: make(chan GoAway, 1), health: health, ended: ended, reading: make(chan struct{})}
	go s.readControl()
	return s
}

// ErrFinished ends a session that the peer has finished with.
var ErrFinished = errors.New("finished by the peer")

// readControl ends with the session, at the latest. It delivers the peer's first go-away and, on the server's side, what the
// client says of its services, on the client's what the server has ended; it skips what else comes.
func (s *Session) readControl() {
	defer close(s.reading)
	heard := false
	for {
		kind, body, err := readMessage(s.control, maxControl)
		if err != nil {
			s.Session.Close(overBy(err))
			return
		}
		switch {
		case kind == msgHealth && s.health != nil:
			deliver(s, s.health, body)
		case kind == msgEnded && s.ended != nil:
			deliver(s, s.ended, body)
		case kind == msgGoAway && !heard:
			var g GoAway
			if err := json.Unmarshal(body, &g); err != nil {
				continue
			}
			heard = true
			s.gone <- g // has room for one
		}
	}
}

// deliver hands on a message. The peer waits with further ones until it is taken.
func deliver[T any](s *Session, to chan<- T, body []byte) {
	var message T
	if err := json.Unmarshal(body, &message); err != nil {
		return
	}
	select {
	case to <- message:
	case <-s.Done():
	}
}

// overBy is why a session is over whose control stream can be read no more. A peer that ends or garbles it has no use for
// the session.
func overBy(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrFinished
	}
	return fmt.Errorf("control stream: %w", err)
}

// Welcome answers the client's hello.
func (s *Session) Welcome(w Welcome) error {
	w.Version = Version
	return s.send(msgWelcome, w)
}

// GoAway tells the peer that this side is going.
func (s *Session) GoAway(g GoAway) error { return s.send(msgGoAway, g) }

// Health tells the server how one of the client's services is.
func (s *Session) Health(h Health) error { return s.send(msgHealth, h) }

// HealthChanged delivers what the client says of its services, on the server's side. Whoever holds the session must take
// it: a go-away waits behind it.
func (s *Session) HealthChanged() <-chan Health { return s.health }

// End tells the client that one of its tunnels is not up any more.
func (s *Session) End(e Ended) error { return s.send(msgEnded, e) }

// TunnelEnded delivers what the server has ended, on the client's side. Whoever holds the session must take it: a go-away
// waits behind it.
func (s *Session) TunnelEnded() <-chan Ended { return s.ended }

// send gives up after HelloTimeout: a peer that reads no control messages must not hold its caller.
func (s *Session) send(kind byte, v any) error {
	s.write.Lock()
	defer s.write.Unlock()
	_ = s.control.SetWriteDeadline(time.Now().Add(HelloTimeout))
	return writeMessage(s.control, kind, v)
}

// GoneAway delivers the peer's first go-away.
func (s *Session) GoneAway() <-chan GoAway { return s.gone }

// Open asks the peer for a connection. It returns without waiting for an answer: the stream's Received and Result do.
func (s *Session) Open(ctx context.Context, o Open) (*mux.Stream, error) {
	return s.Session.Open(ctx, o.encode())
}

// AcceptOpen returns the next connection that the peer asks for. Malformed ones are refused on the way.
func (s *Session) AcceptOpen(ctx context.Context) (*mux.Stream, Open, error) {
	for {
		st, err := s.Accept(ctx)
		if err != nil {
			return nil, Open{}, err
		}
		o, err := decodeOpen(st.Meta())
		if err == nil {
			return st, o, nil
		}
		_ = st.Refuse(uint8(NotAllowed), err.Error())
	}
}

// Finish ends the session once the peer's users have all that was sent in streams that have ended: then it ends the
// control stream and waits for the peer to close. It closes without more ado when the context ends.
func (s *Session) Finish(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { s.Close(nil) })
	defer stop()
	s.Settle(ctx)
	s.write.Lock()
	err := s.control.CloseWrite()
	s.write.Unlock()
	if err == nil {
		<-s.Done()
	}
	s.Close(nil)
}

// Close ends the session with all its streams and waits until nothing of it is left.
func (s *Session) Close(cause error) {
	s.Session.Close(cause)
	<-s.reading
}
