package udp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// buffers holds no state, only memory to use again.
var buffers = sync.Pool{New: func() any { return new([MaxDatagram]byte) }}

// Conn is a connected socket: one Read or Write is one datagram. A Write does not wait. An ICMP error of the other side is
// the error of the next Read or Write, which sends nothing then.
//
// One goroutine may read while others write.
type Conn struct {
	*net.UDPConn
	raw  syscall.RawConn
	recv receiving

	sending sync.Mutex
	send    sending
}

// receiving is the state of Next: an attempt, and what came of it.
type receiving struct {
	buf *[MaxDatagram]byte // borrowed; nil while there is nothing
	n   int
	err error
	try func(uintptr) bool
}

type sending struct {
	p   []byte
	err error
	try func(uintptr) bool
}

// Dial makes a connected socket to host:port. It sends nothing.
func Dial(ctx context.Context, d *net.Dialer, addr string) (*Conn, error) {
	c, err := dial(ctx, d, addr)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil, &net.OpError{Op: "dial", Net: "udp", Err: errors.ErrUnsupported}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		_ = u.Close()
		return nil, err
	}
	conn := &Conn{UDPConn: u, raw: raw}
	conn.recv.try, conn.send.try = conn.receive, conn.sendNow
	return conn, nil
}

// dial spares an address what looking up a name takes: of strangers' flows there are many.
func dial(ctx context.Context, d *net.Dialer, addr string) (net.Conn, error) {
	if to, err := netip.ParseAddrPort(addr); err == nil && d.LocalAddr == nil {
		return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	}
	return d.DialContext(ctx, "udp", addr)
}

// Next waits for a datagram and gives it, without holding a buffer while there is none. It is valid until the next call.
func (c *Conn) Next() ([]byte, error) {
	c.Release()
	r := &c.recv
	if !descriptors {
		r.buf = buffers.Get().(*[MaxDatagram]byte)
		n, err := c.UDPConn.Read(r.buf[:])
		return r.buf[:n], err
	}
	r.n, r.err = 0, nil
	if err := c.raw.Read(r.try); err != nil { // closed, or out of time
		return nil, c.failed("read", err)
	}
	if r.err != nil {
		return nil, c.failed("read", os.NewSyscallError("read", r.err))
	}
	return r.buf[:r.n], nil
}

// Release gives the buffer of Next back.
func (c *Conn) Release() {
	if c.recv.buf != nil {
		buffers.Put(c.recv.buf)
		c.recv.buf = nil
	}
}

// receive reads what is there, with a buffer that it keeps only then. It says whether the wait is over.
func (c *Conn) receive(fd uintptr) bool {
	r := &c.recv
	r.buf = buffers.Get().(*[MaxDatagram]byte)
	var again bool
	if r.n, again, r.err = receiveFrom(fd, r.buf[:]); again || r.err != nil {
		c.Release()
	}
	return !again
}

// Write sends a datagram, or drops it with ErrDropped if the kernel's buffer is full, or with ErrTooLong.
func (c *Conn) Write(p []byte) (int, error) {
	if !descriptors {
		return c.UDPConn.Write(p)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	s := &c.send
	s.p, s.err = p, nil
	err := c.raw.Write(s.try)
	s.p = nil
	switch {
	case err != nil:
		return 0, c.failed("write", err)
	case s.err != nil:
		return 0, s.err
	}
	return len(p), nil
}

func (c *Conn) sendNow(fd uintptr) bool {
	s := &c.send
	if s.err = sendOrDrop(fd, s.p); s.err != nil && !errors.Is(s.err, ErrDropped) {
		s.err = c.failed("write", s.err)
	}
	return true
}

// sendOrDrop sends a datagram, or gives ErrDropped if it cannot go now, or not this way.
func sendOrDrop(fd uintptr, p []byte) error {
	again, err := sendTo(fd, p)
	switch {
	case again, errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EPERM):
		return ErrDropped // EPERM is a firewall's word
	case errors.Is(err, syscall.EMSGSIZE):
		return ErrTooLong
	case err != nil:
		return os.NewSyscallError("write", err)
	}
	return nil
}

func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// CloseWrite does nothing: a datagram socket has no end to tell.
func (c *Conn) CloseWrite() error { return nil }

// Reset closes.
func (c *Conn) Reset() error { return c.Close() }

// Stream is the byte stream under a Framed.
type Stream interface {
	net.Conn
	CloseWrite() error
	Reset() error
	// End ends what this side sends and drops what the other side still sends.
	End() error
	// Await waits until there is something to read: bytes, an end or an error.
	Await() error
	// TryWrite sends all the pieces, one behind the other, or says that it cannot without waiting.
	TryWrite(pieces ...[]byte) (sent bool, err error)
}

// Framed is datagrams on a byte stream: a length of two bytes, big endian, and the datagram. One Read or Write is one
// datagram. A Write does not wait: late datagrams are worth less than none.
//
// One goroutine may read while others write.
type Framed struct {
	Stream
	buf      *[frameBuffer]byte // borrowed; nil while there is nothing
	from, to int                // of buf: what was read and not given
}

// frameBuffer holds a frame of the longest datagram.
const frameBuffer = HeaderSize + MaxDatagram

var frameBuffers = sync.Pool{New: func() any { return new([frameBuffer]byte) }}

// NewFramed makes a Framed, which owns the stream.
func NewFramed(s Stream) *Framed { return &Framed{Stream: s} }

// Next waits for a datagram and gives it, without holding a buffer while there is none. It is valid until the next call.
// An end within a datagram is io.ErrUnexpectedEOF.
func (f *Framed) Next() ([]byte, error) {
	for {
		if f.buf != nil {
			p, n, whole := Cut(f.buf[f.from:f.to])
			if f.from += n; whole {
				return p, nil
			}
		}
		if f.from == f.to {
			f.Release()
			if err := f.Await(); err != nil {
				return nil, err
			}
			f.buf, f.from, f.to = frameBuffers.Get().(*[frameBuffer]byte), 0, 0
		} else if f.from > 0 {
			f.to = copy(f.buf[:], f.buf[f.from:f.to])
			f.from = 0
		}
		n, err := f.Stream.Read(f.buf[f.to:])
		f.to += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && f.to > 0 {
				err = io.ErrUnexpectedEOF
			}
			f.Release()
			return nil, err
		}
	}
}

// Release gives the buffer of Next back, unless more datagrams wait in it.
func (f *Framed) Release() {
	if f.buf != nil && f.from == f.to {
		frameBuffers.Put(f.buf)
		f.buf = nil
	}
	if f.buf == nil {
		f.from, f.to = 0, 0
	}
}

// Read gives a datagram, cut if p is too short for it.
func (f *Framed) Read(p []byte) (int, error) {
	d, err := f.Next()
	return copy(p, d), err
}

// Write sends a datagram, or drops it with ErrDropped if the stream takes nothing at the moment.
func (f *Framed) Write(p []byte) (int, error) {
	if len(p) > MaxDatagram {
		return 0, ErrTooLong
	}
	head := Header(len(p))
	sent, err := f.TryWrite(head[:], p)
	switch {
	case err != nil:
		return 0, err
	case !sent:
		return 0, ErrDropped
	}
	return len(p), nil
}

// Reset aborts the stream.
func (f *Framed) Reset() error { return f.Stream.Reset() }

// Close ends the stream. A datagram that comes meanwhile is lost, as datagrams may be.
func (f *Framed) Close() error { return f.End() }

// SetDeadline sets both deadlines.
func (f *Framed) SetDeadline(t time.Time) error { return f.Stream.SetDeadline(t) }
