package upstream

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"culvert/internal/nowait"
)

// MaxRead is the most that a Reader gives at once, in bytes.
const MaxRead = 32 << 10

// buffers is shared by all Readers; it holds no state, only memory to use again.
var buffers = sync.Pool{New: func() any { return new([MaxRead]byte) }}

// Reader reads a connection without holding a buffer while there is nothing to read. That takes a connection that gives
// its descriptor (syscall.Conn); with another one a buffer is held for as long as Next waits.
//
// It is for one goroutine. Nothing but buffers is owned: the connection stays the caller's.
type Reader struct {
	conn  net.Conn
	limit int
	raw   syscall.RawConn    // nil if there is no descriptor
	try   func(uintptr) bool // attempt, bound once

	once bool           // attempt does not wait
	buf  *[MaxRead]byte // borrowed; nil while there is none
	n    int            // what an attempt read into it, or
	err  error          // why it did not
}

// NewReader makes a Reader that gives at most limit and MaxRead bytes at once.
func NewReader(conn net.Conn, limit int) *Reader {
	r := new(Reader)
	r.init(conn, limit)
	return r
}

func (r *Reader) init(conn net.Conn, limit int) {
	r.conn, r.limit, r.raw = conn, min(max(limit, 1), MaxRead), descriptor(conn)
	r.try = r.attempt
}

// Next waits for bytes and gives what is there, or the error that a Read of the connection gives. The bytes are valid
// until the next call of a method.
func (r *Reader) Next() ([]byte, error) {
	if r.raw == nil {
		r.borrow()
		n, err := r.conn.Read(r.buf[:r.limit])
		return r.buf[:n], err
	}
	return r.read(false)
}

// Now gives what is there already, bytes or an error; nil and nil if nothing is, or if it cannot be told without waiting.
func (r *Reader) Now() ([]byte, error) {
	if r.raw == nil {
		return nil, nil
	}
	return r.read(true)
}

// Release gives the buffer back. It may be called at any time between calls of the other methods.
func (r *Reader) Release() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf = nil
	}
}

func (r *Reader) read(once bool) ([]byte, error) {
	r.Release()
	r.once, r.n, r.err = once, 0, nil
	switch err := r.raw.Read(r.try); {
	case err != nil: // closed, or out of time
		return nil, err
	case r.err != nil:
		return nil, &net.OpError{
			Op: "read", Net: r.conn.LocalAddr().Network(), Source: r.conn.LocalAddr(), Addr: r.conn.RemoteAddr(),
			Err: os.NewSyscallError("read", r.err),
		}
	case r.buf == nil: // nothing there
		return nil, nil
	case r.n == 0:
		return nil, EndOfRead(r.conn)
	}
	return r.buf[:r.n], nil
}

// Await waits until there is something to read of c: bytes, an end or an error, which is for the next Read to tell. It
// needs next to no stack. It returns at once if c gives no descriptor, and with an error if c is closed or out of time.
func Await(c net.Conn) error {
	raw := descriptor(c)
	if raw == nil {
		return nil
	}
	return raw.Read(readable)
}

// Awaitable says whether Await waits for c.
func Awaitable(c net.Conn) bool { return descriptor(c) != nil }

// EndOfRead says what an end of data is that was read from c's descriptor: io.EOF, or that c was reset.
func EndOfRead(c net.Conn) error {
	if e, ok := c.(interface{ EndOfRead() error }); ok {
		return e.EndOfRead()
	}
	return io.EOF
}

// attempt reads what is there, with a buffer that it keeps only then. It says whether the wait is over.
func (r *Reader) attempt(fd uintptr) bool {
	r.borrow()
	var again bool
	if r.n, again, r.err = nowait.Receive(fd, r.buf[:r.limit]); again {
		r.Release()
		return r.once
	}
	return true
}

func (r *Reader) borrow() {
	if r.buf == nil {
		r.buf = buffers.Get().(*[MaxRead]byte)
	}
}
