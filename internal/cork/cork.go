// Package cork makes connections whose writes can be held back and sent with one system call, and which borrow a read
// buffer only while bytes come.
//
// It stands below TLS, which makes a record of each 16 KiB and reads records one by one: with it a flush of many
// records costs one system call, and so does the reading of as many as have come. An idle connection holds no buffer.
// It sets no deadline and starts no goroutine.
package cork

import (
	"net"
	"sync"
	"syscall"
)

const (
	readAhead = 128 << 10 // bytes asked for at a time
	// straight is the size of a caller's buffer from which on bytes are read into it. TLS asks for a record at most.
	straight = 48 << 10
	// gathered is how much is held back: messages of 128 KiB and what TLS adds fit twice.
	gathered = 264 << 10
)

// Conn is a connection over another one, which it owns. One goroutine reads at a time; writes, Cork and Uncork may be
// called by others meanwhile. Deadlines and Close reach through, and wake whoever waits.
type Conn struct {
	net.Conn
	in input

	writing sync.Mutex
	out     output
	corked  bool
	held    *[gathered]byte // nil unless something is held back
	holds   int             // bytes of it
	failed  error           // why no more can be written: some of it may be missing
}

// New makes a connection over c. If c is a syscall.Conn on a system that has readiness, reads wait without a buffer;
// otherwise they go to c as they are.
func New(c net.Conn) *Conn {
	k := &Conn{Conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			k.in.open(raw, c)
			k.out.open(raw, c)
		}
	}
	return k
}

// Under gives the Conn that c is, or that it stands on by way of NetConn methods, as *tls.Conn has one; nil if there is
// none.
func Under(c net.Conn) *Conn {
	for c != nil {
		if k, ok := c.(*Conn); ok {
			return k
		}
		above, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = above.NetConn()
	}
	return nil
}

// NetConn is the connection underneath. Bytes that were read ahead do not come from it any more.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read reads what was read ahead, or else as much as there is, up to a buffer, with one system call.
func (c *Conn) Read(p []byte) (int, error) {
	if c.in.wait == nil {
		return c.Conn.Read(p)
	}
	return c.in.read(p)
}

// Pending is how many bytes were read ahead. It is for the goroutine that reads.
func (c *Conn) Pending() int { return c.in.end - c.in.begin }

// Cork holds back what is written until Uncork. A nil Conn holds back nothing.
func (c *Conn) Cork() {
	if c == nil {
		return
	}
	c.writing.Lock()
	c.corked = true
	c.writing.Unlock()
}

// Uncork sends what was held back. An error is final: some may be on its way, and nothing is written behind a gap.
func (c *Conn) Uncork() error {
	if c == nil {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.corked = false
	return c.flush()
}

// Write writes p, or keeps a copy of it while the connection is corked. Beyond about 256 KiB it sends what it holds.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.corked {
		return c.send(p)
	}
	if c.holds+len(p) > gathered {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if len(p) > gathered {
			return c.send(p)
		}
	}
	if c.held == nil {
		c.held = holding.Get().(*[gathered]byte)
	}
	c.holds += copy(c.held[c.holds:], p)
	return len(p), nil
}

// flush sends what is held back. The caller has the lock.
func (c *Conn) flush() error {
	if c.held == nil {
		return c.failed
	}
	_, err := c.send(c.held[:c.holds])
	holding.Put(c.held)
	c.held, c.holds = nil, 0
	return err
}

// send writes p. The caller has the lock.
func (c *Conn) send(p []byte) (n int, err error) {
	switch {
	case c.failed != nil:
	case c.out.wait == nil:
		n, c.failed = c.Conn.Write(p)
	default:
		n, c.failed = c.out.write(p)
	}
	return n, c.failed
}

// Buffers, each for as long as something is in it.
var (
	holding = sync.Pool{New: func() any { return new([gathered]byte) }}
	reading = sync.Pool{New: func() any { return new([readAhead]byte) }}
)
