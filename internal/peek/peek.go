// Package peek reads the first bytes that a stranger sends, under one deadline and one limit, to find out what they are,
// and the host that a TLS ClientHello asks for.
//
// It takes no byte away from whoever serves the connection: all that was read is given back. It writes nothing, and it
// decrypts and ends no TLS.
package peek

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Match is what is known of bytes that may not be whole yet.
type Match uint8

// The answers of a matcher.
const (
	More Match = iota // not certain before more is there
	Yes
	No
)

// Errors of Until, besides those of the connection.
var (
	ErrTimeout = errors.New("nothing certain before the deadline")
	ErrTooLong = errors.New("nothing certain within the limit")
	// ErrEnded means that the stranger ended its side in an orderly way before it was certain what it says.
	ErrEnded = errors.New("ended before anything was certain")
)

// firstRead is room for a PROXY header or a ClientHello of the usual size. More is made when more comes.
const firstRead = 2 << 10

// Reader reads a connection's first bytes. It is for one goroutine, and the read side of the connection is its own until
// Done.
type Reader struct {
	conn     net.Conn
	max      int
	buf      []byte
	deadline time.Time // that the connection has; zero for none
	end      error     // why nothing more can be read
}

// New makes a Reader that holds at most max bytes at a time. Nothing is read before Until.
func New(conn net.Conn, max int) *Reader { return &Reader{conn: conn, max: max} }

// Until reads until match is certain of the bytes from the first on, and gives its answer. match sees all of them each
// time, also when none is there yet. After a timeout it can be called again.
func (r *Reader) Until(deadline time.Time, match func([]byte) Match) (Match, error) {
	for {
		if m := match(r.buf); m != More {
			return m, nil
		}
		switch {
		case r.end != nil:
			return More, r.end
		case len(r.buf) >= r.max:
			return More, ErrTooLong
		}
		if err := r.read(deadline); err != nil {
			return More, err
		}
	}
}

// read reads once. An end is kept for the next call, because bytes may have come with it.
func (r *Reader) read(deadline time.Time) error {
	if !r.deadline.Equal(deadline) {
		if err := r.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		r.deadline = deadline
	}
	if len(r.buf) == cap(r.buf) {
		grown := make([]byte, len(r.buf), min(max(firstRead, 2*cap(r.buf)), max(r.max, len(r.buf)+1)))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := r.conn.Read(r.buf[len(r.buf):min(cap(r.buf), r.max)])
	r.buf = r.buf[:len(r.buf)+n]
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if n == 0 {
			return ErrTimeout
		}
	case errors.Is(err, io.EOF):
		r.end = ErrEnded
	case err != nil:
		r.end = err
	}
	return nil
}

// Discard drops the first n bytes of what was read, which the caller has used up.
func (r *Reader) Discard(n int) {
	r.buf = append([]byte(nil), r.buf[n:]...)
}

// Bytes is what was read and not discarded. It must not be changed.
func (r *Reader) Bytes() []byte { return r.buf }

// Done lifts the deadline and gives the connection's read side back.
func (r *Reader) Done() error {
	if r.deadline.IsZero() {
		return nil
	}
	return r.conn.SetReadDeadline(time.Time{})
}
