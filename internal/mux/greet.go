package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// greetTimeout bounds the first frames of a link where the user sets no other time.
const greetTimeout = 5 * time.Second

// Greeting is a link that a peer dialled, before it is known what becomes of it. It owns the connection until Start or
// Join; Refuse closes it.
type Greeting struct {
	conn  net.Conn
	frame attach
}

// Greet reads a dialler's first frame, and nothing behind it. It costs no more than that frame. On failure it closes the
// connection.
func Greet(conn net.Conn, within time.Duration) (*Greeting, error) {
	_ = conn.SetReadDeadline(time.Now().Add(within)) // a failure shows in the read
	a, err := readAttach(conn)
	if err != nil {
		if errors.Is(err, errVersion) {
			_ = conn.SetWriteDeadline(time.Now().Add(goodbyeTime))
			_, _ = conn.Write(attached{status: WrongVersion, text: err.Error()}.append(nil))
		}
		_ = conn.Close()
		return nil, fmt.Errorf("greet: %w", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &Greeting{conn, a}, nil
}

func readAttach(r io.Reader) (attach, error) {
	var b [headerSize + attachSize]byte
	if _, err := io.ReadFull(r, b[:headerSize+1]); err != nil {
		return attach{}, err
	}
	h, err := parseHeader(b[:])
	if err != nil {
		return attach{}, err
	}
	if h.kind != typeAttach {
		return attach{}, fmt.Errorf("%w: type %#x in place of ATTACH", errFrame, byte(h.kind))
	}
	if b[headerSize] == protocolVersion && h.length == attachSize {
		if _, err := io.ReadFull(r, b[headerSize+1:]); err != nil {
			return attach{}, err
		}
		return parseAttach(b[headerSize:])
	}
	return parseAttach(b[headerSize : headerSize+1])
}

// Joins says which session the link wants to join; ok is false for a new one.
func (g *Greeting) Joins() (id SessionID, ok bool) { return g.frame.session, g.frame.join }

// Start makes a new session of the link.
func (g *Greeting) Start(cfg Config) (*Session, error) {
	if g.frame.join {
		g.Refuse(UnknownSession, "no such session here")
		return nil, errors.New("start session: the link wants to join another one")
	}
	s := newSession(cfg, false, g.conn)
	s.id, s.secret, s.last = g.frame.session, g.frame.secret, g.frame.link
	s.table.ownMax = int(min(g.frame.maxStreams, 1<<30))
	l := newLink(s, g.conn, g.frame.link)
	l.control = attached{maxStreams: uint32(s.cfg.MaxStreams)}.append(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(l)
	return s, nil
}

// Join adds the link to a session, or refuses it if it does not prove that it is the session's.
func (g *Greeting) Join(s *Session) error {
	if !s.sameSecret(g.frame.secret) {
		g.Refuse(WrongSecret, "not the session's secret")
		return errors.New("join session: wrong secret")
	}
	s.mu.Lock()
	if s.err != nil || g.frame.link <= s.last || len(s.links) >= maxLiveLinks {
		err := s.err
		s.mu.Unlock()
		if err != nil {
			g.Refuse(UnknownSession, "the session has ended")
			return fmt.Errorf("join session: %w", err)
		}
		g.Refuse(WrongSecret, "the link's number is not new, or there are too many")
		return fmt.Errorf("join session: link %d is not new, or one too many", g.frame.link)
	}
	defer s.mu.Unlock()
	s.last = g.frame.link
	l := newLink(s, g.conn, g.frame.link)
	l.control = attached{maxStreams: uint32(s.cfg.MaxStreams)}.append(nil)
	s.add(l)
	s.spreadAll()
	return nil
}

// maxLiveLinks is how many links a peer may have in one session, with those that it knows to be dead.
const maxLiveLinks = 64

// Refuse answers the dialler and closes the connection.
func (g *Greeting) Refuse(status Status, text string) {
	_ = g.conn.SetWriteDeadline(time.Now().Add(goodbyeTime))
	_, _ = g.conn.Write(attached{status: status, text: text}.append(nil))
	_ = g.conn.Close()
}

// Attach adds a link to a session of this side's making: one more, or the one on which its streams go on. It owns conn.
// An error with ErrUnknownSession in its chain means that whoever
// answered does not know the session, which has ended with that if it had no other link.
func (s *Session) Attach(ctx context.Context, conn net.Conn) error {
	s.mu.Lock()
	s.last++
	number := s.last
	s.joining[number] = false
	s.mu.Unlock()
	a, err := s.join(ctx, conn, number)
	s.mu.Lock()
	if err == nil {
		err = s.joined(conn, number, a)
	}
	delete(s.joining, number)
	if err != nil {
		s.neverHad(number)
	}
	s.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("attach link: %w", err)
	}
	return nil
}

// neverHad tells the peer, which may take the link for one of the session's, that it is lost. The caller holds s.mu.
func (s *Session) neverHad(number uint32) {
	if s.err != nil {
		return
	}
	s.lost = append(s.lost, number)
	if len(s.links) > 0 {
		l := s.pick()
		s.resume(l)
		l.flushSoon()
	}
}

// joined takes a link into use that the peer has accepted. The caller holds s.mu.
func (s *Session) joined(conn net.Conn, number uint32, a attached) error {
	switch {
	case s.err != nil:
		return s.err
	case s.joining[number]:
		return errPeerLost
	}
	s.table.ownMax = int(min(a.maxStreams, 1<<30))
	s.add(newLink(s, conn, number))
	s.spreadAll()
	return nil
}

// join does the handshake.
func (s *Session) join(ctx context.Context, conn net.Conn, number uint32) (attached, error) {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetDeadline(time.Now().Add(greetTimeout)) // a failure shows in what follows
	if _, err := conn.Write(s.attach(number, true).append(nil)); err != nil {
		return attached{}, err
	}
	a, err := readAttached(conn)
	if err != nil {
		return attached{}, err
	}
	if err := a.refusal(); err != nil {
		if errors.Is(err, ErrUnknownSession) && s.Live() == 0 { // else it may have been another server's word
			s.end(err, closeLost)
		}
		return attached{}, err
	}
	_ = conn.SetDeadline(time.Time{})
	return a, nil
}

func readAttached(r io.Reader) (attached, error) {
	var b [headerSize + 5 + maxText]byte
	if _, err := io.ReadFull(r, b[:headerSize]); err != nil {
		return attached{}, err
	}
	h, err := parseHeader(b[:])
	if err != nil {
		return attached{}, err
	}
	if h.kind != typeAttached || h.length > 5+maxText {
		return attached{}, fmt.Errorf("%w: type %#x in place of ATTACHED", errFrame, byte(h.kind))
	}
	if _, err := io.ReadFull(r, b[headerSize:headerSize+h.length]); err != nil {
		return attached{}, err
	}
	return parseAttached(b[headerSize : headerSize+h.length])
}

// refusal is the error that an answer to a link means; nil if it is accepted.
func (a attached) refusal() error {
	switch a.status {
	case Attached:
		return nil
	case UnknownSession:
		return fmt.Errorf("%w: %s", ErrUnknownSession, a.text)
	default:
		return fmt.Errorf("the peer refused the link: %s", a.text)
	}
}

// greet takes the acceptor's first frame on a session's first link. The caller holds the session's mutex.
func (l *link) greet(h header, body []byte) error {
	if h.kind != typeAttached {
		return fmt.Errorf("%w: type %#x in place of ATTACHED", errFrame, byte(h.kind))
	}
	a, err := parseAttached(body)
	if err != nil {
		return err
	}
	if a.status != Attached {
		l.s.wait.Go(func() { l.s.end(a.refusal(), closeLost) })
		return nil
	}
	l.greeted = true
	l.s.table.ownMax = int(min(a.maxStreams, 1<<30))
	return nil
}
