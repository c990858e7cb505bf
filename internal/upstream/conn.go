package upstream

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
)

// halfCloser is what TCP and Unix connections have in common.
type halfCloser = interface {
	net.Conn
	CloseWrite() error
}

// FromTCP makes a Conn of a TCP or Unix connection: Reset sends RST where the network has one.
//
// Its Read tells a reset from an end also when a concurrent Write was the one to hear of the reset; there the kernel
// reports the error once, and an end of data to everyone after that.
func FromTCP(c interface {
	net.Conn
	CloseWrite() error
},
) Conn {
	return &tcpConn{halfCloser: c, raw: descriptor(c)}
}

type tcpConn struct {
	halfCloser
	raw   syscall.RawConn // nil if there is no descriptor
	ended atomic.Bool     // CloseWrite was called
}

func (c *tcpConn) Read(p []byte) (int, error) {
	n, err := c.halfCloser.Read(p)
	if errors.Is(err, io.EOF) {
		err = c.EndOfRead()
	}
	return n, err
}

// EndOfRead says what an end of data is that was read from the descriptor: io.EOF, or that the connection was reset.
func (c *tcpConn) EndOfRead() error {
	// Asked again afterwards: an end of this side, meanwhile, is what may have completed the close.
	if !c.ended.Load() && c.wasReset() && !c.ended.Load() {
		return &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: syscall.ECONNRESET}
	}
	return io.EOF
}

func (c *tcpConn) CloseWrite() error {
	c.ended.Store(true)
	if done, err := c.shutWrite(); done {
		return err
	}
	return c.halfCloser.CloseWrite()
}

func (c *tcpConn) Reset() error {
	abortive(c.halfCloser)
	return c.Close()
}

// SyscallConn gives the connection's descriptor, to wait for it without a buffer. An end of data that is read from it
// may be a reset: EndOfRead tells.
func (c *tcpConn) SyscallConn() (syscall.RawConn, error) {
	if c.raw == nil {
		return nil, errors.ErrUnsupported
	}
	return c.raw, nil
}

// NetConn is the connection underneath, for socket options and for the kernel's own copying.
func (c *tcpConn) NetConn() net.Conn { return c.halfCloser }

// abortive makes the Close of c discard what is unsent and send RST, where c can do that.
func abortive(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0) // fails only if the connection is closed already
	}
}
