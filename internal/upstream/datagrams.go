package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"culvert/internal/udp"
)

// dialDatagrams makes a connected socket. That asks nobody: a service that is not there is told by the first Read or Write
// after a datagram was sent, as a *DialError.
func (s *Static) dialDatagrams(ctx context.Context, v *Visit) (Dialed, error) {
	d := s.dialer
	d.ControlContext = nil // which is for connections
	d.Timeout = s.cfg.ConnectTimeout
	if s.cfg.Network != "udp" && s.cfg.Network != "tcp" {
		return Dialed{}, &DialError{
			Member: s.cfg.Name, Reason: Unreachable, Err: errors.New(s.cfg.Network + " carries no datagrams: give HOST:PORT"),
		}
	}
	if to, err := netip.ParseAddrPort(s.cfg.Address); v.Poller != nil && err == nil && to.Addr().Zone() == "" {
		c, err := v.Poller.Dial(to)
		if err == nil {
			conn := &attended{conn: c, to: to}
			conn.init(c, s, v)
			return Dialed{Conn: conn}, nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return Dialed{}, s.failure(ctx, err)
		}
	}
	c, err := udp.Dial(ctx, &d, s.cfg.Address)
	if err != nil {
		return Dialed{}, s.failure(ctx, err)
	}
	conn := &datagrams{Conn: c}
	conn.init(c, s, v)
	return Dialed{Conn: conn}, nil
}

// datagrams is a connected socket that tells why it failed.
type datagrams struct {
	*udp.Conn
	writes
}

// Next waits for a datagram without holding a buffer. It is valid until the next call.
func (c *datagrams) Next() ([]byte, error) {
	p, err := c.Conn.Next()
	return p, c.explain(err)
}

func (c *datagrams) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.explain(err)
}

func (c *datagrams) Write(p []byte) (int, error) { return c.writes.Write(p) }

// attended is a connected socket whose datagrams are handed over. It tells why it failed, too.
type attended struct {
	writes
	conn *udp.Polled
	to   netip.AddrPort
}

func (c *attended) Attend(handle func(p []byte, err error)) error {
	return c.conn.Attend(func(p []byte, err error) { handle(p, c.explain(err)) })
}

func (c *attended) Close() error      { return c.conn.Close() }
func (c *attended) CloseWrite() error { return nil } // a datagram socket has no end to tell
func (c *attended) Reset() error      { return c.conn.Close() }

func (c *attended) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.to) }
func (c *attended) LocalAddr() net.Addr  { return &net.UDPAddr{} } // nobody asks

// It is not read, and a write does not wait.

func (c *attended) Read([]byte) (int, error)         { return 0, errors.ErrUnsupported }
func (c *attended) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *attended) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *attended) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// writes are those of a flow, behind a header if there is to be one.
type writes struct {
	to     io.Writer
	member string

	mu     sync.Mutex // orders writes that have a header
	header []byte     // stands before datagrams; nil if there is none
	first  bool       // before the first one alone
	buf    []byte     // header and datagram
}

func (w *writes) init(to io.Writer, s *Static, v *Visit) {
	w.to, w.member = to, s.cfg.Name
	w.header, w.first = v.datagramHeader(s.cfg.ProxyProtocol)
}

func (w *writes) Write(p []byte) (int, error) {
	if w.header == nil {
		n, err := w.to.Write(p)
		return n, w.explain(err)
	}
	return w.behind(p)
}

// behind sends a datagram behind the header.
func (w *writes) behind(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first && w.buf != nil {
		n, err := w.to.Write(p)
		return n, w.explain(err)
	}
	w.buf = append(append(w.buf[:0], w.header...), p...)
	if _, err := w.to.Write(w.buf); err != nil {
		return 0, w.explain(err)
	}
	if w.first { // no more is needed of it than that it is there
		w.buf = w.buf[:0:0]
	}
	return len(p), nil
}

func (w *writes) explain(err error) error {
	switch {
	case err == nil || errors.Is(err, udp.ErrDropped):
		return err
	case errors.Is(err, errRefused):
		return &DialError{Member: w.member, Reason: Refused, Err: err}
	}
	return err
}
