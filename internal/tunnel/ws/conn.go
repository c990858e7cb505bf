package ws

import (
	"errors"
	"io"
	"net"
	"sync"

	"culvert/internal/cork"
)

// conn is a byte stream over the binary messages of a WebSocket. It holds no buffer: reads unframe in the caller's, and
// a message may be framed in place (WriteOwned). One goroutine may read while others write.
type conn struct {
	net.Conn            // what is below
	cork     *cork.Conn // below that, if there is one: a message is sent with one system call
	in       []byte     // bytes that came with the handshake and have not been read yet
	client   bool       // this side masks what it sends, and the other one does not

	head    header   // of the next frame, as far as it has come
	cur     frame    // the frame that is being read; its length is what is still to come
	pos     int      // in its key
	control *control // nil but for a control frame that is being read
	err     error    // how reading has ended

	writing sync.Mutex // one message at a time
	pongs   pongs
}

// control is a control frame's payload, as far as it has come.
type control struct {
	buf [maxControl]byte
	has int
}

func newConn(below net.Conn, early []byte, client bool) *conn {
	return &conn{Conn: below, cork: cork.Under(below), in: early, client: client}
}

// Read reads the payloads of binary messages. A close frame is io.EOF; an end without one is not.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.err == nil {
		n, err := c.fill(p)
		n, c.err = c.unframe(p[:n])
		switch {
		case c.err != nil || err == nil:
		case isTimeout(err): // the next read goes on
			return n, err
		case errors.Is(err, io.EOF):
			c.err = io.ErrUnexpectedEOF
		default:
			c.err = err
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// fill reads bytes as they are on the wire.
func (c *conn) fill(p []byte) (int, error) {
	if len(c.in) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.in)
	if c.in = c.in[n:]; len(c.in) == 0 {
		c.in = nil // its memory is not needed any more
	}
	return n, nil
}

// unframe turns the wire's bytes in p into those of the stream, in place, and returns how many these are. What is behind
// an error or a close frame is dropped.
func (c *conn) unframe(p []byte) (n int, err error) {
	for rest := p; len(rest) > 0; {
		if c.cur.length == 0 {
			var whole bool
			if rest, whole = c.head.take(rest); !whole {
				break
			}
			if err := c.begin(); err != nil {
				return n, err
			}
			continue
		}
		part := rest[:min(uint64(len(rest)), c.cur.length)]
		rest = rest[len(part):]
		c.cur.length -= uint64(len(part))
		if c.cur.masked {
			c.pos = applyMask(part, c.cur.key, c.pos)
		}
		if c.control == nil {
			n += copy(p[n:], part)
			continue
		}
		c.control.has += copy(c.control.buf[c.control.has:], part)
		if c.cur.length == 0 {
			payload := c.control.buf[:c.control.has]
			c.control = nil
			if err := c.obey(payload); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// begin begins the frame whose header has come.
func (c *conn) begin() (err error) {
	c.cur, err = c.head.frame()
	c.head.has, c.pos = 0, 0
	switch {
	case err != nil:
		return err
	case c.cur.masked == c.client:
		return errMasking
	case c.cur.opcode < opClose:
		return nil
	case c.cur.length == 0:
		return c.obey(nil)
	default:
		c.control = new(control)
		return nil
	}
}

// obey does what a control frame asks for.
func (c *conn) obey(payload []byte) error {
	switch c.cur.opcode {
	case opClose:
		return io.EOF
	case opPing:
		c.pongs.owe(payload)
		c.pay()
	}
	return nil
}

// Pending is how many bytes of the wire were read ahead; 0 means that it is not known. It is for the goroutine that
// reads.
func (c *conn) Pending() int {
	if c.cork == nil {
		return 0
	}
	return c.cork.Pending()
}

// Close closes the connection, without a close frame. A write that is under way ends at once.
func (c *conn) Close() error {
	if c.writing.TryLock() {
		c.writing.Unlock()
	} else if c.cork != nil {
		_ = c.cork.Close() // else TLS would wait for its turn to say goodbye
	}
	return c.Conn.Close()
}
