package upstream

import (
	"context"
	"errors"

	"culvert/internal/udp"
)

// dialDatagrams makes a connected socket. That asks nobody: a service that is not there is told by the first Read or Write
// after a datagram was sent, as a *DialError.
func (s *Static) dialDatagrams(ctx context.Context) (Dialed, error) {
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
	return Dialed{Conn: &datagrams{Conn: c, member: s.cfg.Name}}, nil
}

// datagrams is a connected socket that tells why it failed.
type datagrams struct {
	*udp.Conn
	member string
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
	n, err := c.Conn.Write(p)
	return n, c.explain(err)
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
