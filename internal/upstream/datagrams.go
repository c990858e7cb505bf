package upstream

import (
	"context"
	"errors"
	"sync"

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
	c, err := udp.Dial(ctx, &d, s.cfg.Address)
	if err != nil {
		return Dialed{}, s.failure(ctx, err)
	}
	conn := &datagrams{Conn: c, member: s.cfg.Name}
	conn.header, conn.first = v.datagramHeader(s.cfg.ProxyProtocol)
	return Dialed{Conn: conn}, nil
}

// datagrams is a connected socket that tells why it failed.
type datagrams struct {
	*udp.Conn
	member string

	mu     sync.Mutex // orders writes that have a header
	header []byte     // stands before datagrams; nil if there is none
	first  bool       // before the first one alone
	buf    []byte     // header and datagram
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

func (c *datagrams) Write(p []byte) (int, error) {
	if c.header == nil {
		n, err := c.Conn.Write(p)
		return n, c.explain(err)
	}
	return c.writeBehind(p)
}

// writeBehind sends a datagram behind the header.
func (c *datagrams) writeBehind(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first && c.buf != nil {
		n, err := c.Conn.Write(p)
		return n, c.explain(err)
	}
	c.buf = append(append(c.buf[:0], c.header...), p...)
	if _, err := c.Conn.Write(c.buf); err != nil {
		return 0, c.explain(err)
	}
	if c.first { // no more is needed of it than that it is there
		c.buf = c.buf[:0:0]
	}
	return len(p), nil
}

func (c *datagrams) explain(err error) error {
	switch {
	case err == nil || errors.Is(err, udp.ErrDropped):
		return err
	case errors.Is(err, errRefused):
		return &DialError{Member: c.member, Reason: Refused, Err: err}
	}
	return err
}
