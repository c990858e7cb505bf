//go:build unix

package cork

import (
	"io"
	"net"
	"os"
	"syscall"

	"culvert/internal/nowait"
)

// open makes the input read the descriptor of raw, which belongs to conn.
func (in *input) open(raw syscall.RawConn, conn net.Conn) {
	in.wait, in.conn = raw, conn
	in.try = in.attempt // made once, so that reads allocate nothing
}

// attempt reads once, without waiting; false means that there is nothing yet. The buffer is borrowed for the call and
// kept only if something came.
func (in *input) attempt(fd uintptr) bool {
	into, borrowed := in.into, (*[readAhead]byte)(nil)
	if into == nil {
		borrowed = reading.Get().(*[readAhead]byte)
		into = borrowed[:]
	}
	n, again, err := nowait.Read(fd, into)
	if borrowed != nil {
		if n > 0 {
			in.ahead, in.begin, in.end = borrowed, 0, n
		} else {
			reading.Put(borrowed)
		}
	}
	switch {
	case again:
		return false
	case err != nil:
		in.err = &net.OpError{
			Op: "read", Net: in.conn.LocalAddr().Network(), Source: in.conn.LocalAddr(), Addr: in.conn.RemoteAddr(),
			Err: os.NewSyscallError("read", err),
		}
	case n == 0:
		in.err = io.EOF
	default:
		in.n = n
	}
	return true
}
