package tls

import (
	"crypto/tls"
	"net"
	"sync"

	"culvert/internal/cork"
)

// conn is a TLS connection whose writes go out with one system call each, if it is corked below.
type conn struct {
	*tls.Conn
	cork    *cork.Conn
	writing sync.Mutex
}

// Accept makes a connection of one whose token was taken.
func Accept(c *tls.Conn) net.Conn { return newConn(c) }

func newConn(c *tls.Conn) *conn { return &conn{Conn: c, cork: cork.Under(c)} }

// Write sends p with one system call if it has less than 256 KiB.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.cork.Cork()
	n, err := c.Conn.Write(p)
	if uncorked := c.cork.Uncork(); err == nil && uncorked != nil {
		return 0, uncorked // how many went out is not known
	}
	return n, err
}

// Pending is how many bytes, as they are below TLS, were read ahead; 0 means that it is not known. It is for the
// goroutine that reads.
func (c *conn) Pending() int {
	if c.cork == nil {
		return 0
	}
	return c.cork.Pending()
}

// Close closes the connection. A write that is under way ends at once.
func (c *conn) Close() error {
	if c.writing.TryLock() {
		c.writing.Unlock()
	} else if c.cork != nil {
		_ = c.cork.Close() // else TLS would wait for its turn to say goodbye
	}
	return c.Conn.Close()
}
