package cork

import (
	"net"
	"os"
	"syscall"

	"culvert/internal/nowait"
)

// output writes to a socket. One goroutine uses it at a time.
type output struct {
	wait syscall.RawConn // nil: the connection gives no descriptor
	conn net.Conn        // for the addresses in errors
	try  func(fd uintptr) bool

	rest []byte // between write and attempt
	err  error
}

// open makes the output write to the descriptor of raw, which belongs to conn.
func (o *output) open(raw syscall.RawConn, conn net.Conn) {
	if nowait.Works {
		o.wait, o.conn = raw, conn
		o.try = o.attempt // made once, so that writes allocate nothing
	}
}

// write writes all of p, or fails with the deadline, the connection, or the socket.
func (o *output) write(p []byte) (int, error) {
	o.rest, o.err = p, nil
	err := o.wait.Write(o.try)
	n := len(p) - len(o.rest)
	o.rest = nil
	if err == nil {
		err = o.err
	}
	return n, err
}

// attempt writes what the socket takes; false means that there is more, for which it has to wait.
func (o *output) attempt(fd uintptr) bool {
	for len(o.rest) > 0 {
		n, again, err := nowait.Write(fd, o.rest)
		o.rest = o.rest[n:]
		if again {
			return false
		}
		if err != nil {
			o.err = &net.OpError{
				Op: "write", Net: o.conn.LocalAddr().Network(), Source: o.conn.LocalAddr(), Addr: o.conn.RemoteAddr(),
				Err: os.NewSyscallError("write", err),
			}
			return true
		}
	}
	return true
}
