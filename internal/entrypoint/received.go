package entrypoint

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
)

// receivedConn is a connection of HTTP that is received when it is first asked for its address or for a byte, whichever
// comes first: http.Server does both in the connection's own goroutine, so nobody else waits.
type receivedConn struct {
	*openConn
	receive sync.Once
	visitor Visitor
	err     error // why it was refused

	// Of the goroutine that reads.
	unread []byte // what was read of it already
	said   []byte // what the guard has seen; nothing of it is passed on before that is certain
}

func (c *receivedConn) received() {
	c.receive.Do(func() {
		r := c.h.reception
		c.visitor, c.err = r.Receive(c.TCPConn)
		if c.err == nil {
			if c.unread = c.visitor.First; c.visitor.Guard != nil && len(c.unread) > 0 {
				c.unread = nil
				c.judge(c.visitor.First)
			}
			return
		}
		if errors.Is(c.err, ErrProbe) {
			c.err = io.EOF
			return
		}
		c.refuse()
	})
}

// refuse makes the connection one that ends by a reset. http.Server answers nothing to an error of this kind.
func (c *receivedConn) refuse() {
	source := c.TCPConn.RemoteAddr()
	c.h.ln.log.Debug("connection refused", "source", source, "reason", c.err)
	_ = c.SetLinger(0) // fails only if it is closed already
	c.err = &net.OpError{Op: "read", Net: "tcp", Addr: source, Err: c.err}
}

// RemoteAddr is the visitor, as far as it is known.
func (c *receivedConn) RemoteAddr() net.Addr {
	c.received()
	return addrOf(c.visitor.Source, c.TCPConn.RemoteAddr())
}

// LocalAddr is the address that the visitor connected to.
func (c *receivedConn) LocalAddr() net.Addr {
	c.received()
	return addrOf(c.visitor.Destination, c.TCPConn.LocalAddr())
}

func addrOf(told netip.AddrPort, own net.Addr) net.Addr {
	if !told.IsValid() {
		return own
	}
	return net.TCPAddrFromAddrPort(told)
}

func (c *receivedConn) Read(p []byte) (int, error) {
	c.received()
	for {
		if c.err != nil {
			return 0, c.err
		}
		if len(c.unread) > 0 && c.visitor.Guard == nil {
			n := copy(p, c.unread)
			c.unread = c.unread[n:]
			return n, nil
		}
		n, err := c.TCPConn.Read(p)
		if c.visitor.Guard == nil || n == 0 {
			return n, err
		}
		c.judge(p[:n])
	}
}

// judge has the guard look at what the visitor has said so far.
func (c *receivedConn) judge(p []byte) {
	c.said = append(c.said, p...)
	more, err := c.visitor.Guard(c.said)
	switch {
	case err != nil:
		c.err = err
		c.refuse()
	case !more:
		c.unread, c.said, c.visitor.Guard = c.said, nil, nil
	}
}
