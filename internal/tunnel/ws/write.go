package ws

import "sync"

const chunk = 64 << 10 // bytes that Write puts into a frame

// Headroom is how many bytes WriteOwned needs before the payload.
func (c *conn) Headroom() int { return maxHeader }

// WriteOwned sends buf[Headroom():] as one message with one write of what is below, and overwrites all of buf.
func (c *conn) WriteOwned(buf []byte) error {
	if len(buf) <= maxHeader {
		return nil
	}
	c.writing.Lock()
	err := c.send(opBinary, buf)
	c.writing.Unlock()
	c.pay()
	return err
}

// Write sends p in messages of at most 64 KiB, all with one system call if it has less than 256 KiB.
func (c *conn) Write(p []byte) (total int, err error) {
	buf := frames.Get().(*[maxHeader + chunk]byte)
	defer frames.Put(buf)
	c.writing.Lock()
	c.cork.Cork()
	for total < len(p) && err == nil {
		n := copy(buf[maxHeader:], p[total:])
		if _, err = c.Conn.Write(frameUp(buf[:maxHeader+n], opBinary, c.client)); err == nil {
			total += n
		}
	}
	if uncorked := c.cork.Uncork(); err == nil && uncorked != nil {
		total, err = 0, uncorked // how many went out is not known
	}
	c.writing.Unlock()
	c.pay()
	return total, err
}

// send sends one frame, whose payload begins at buf[maxHeader]. The caller has the lock.
func (c *conn) send(opcode byte, buf []byte) error {
	c.cork.Cork()
	_, err := c.Conn.Write(frameUp(buf, opcode, c.client))
	if uncorked := c.cork.Uncork(); err == nil {
		err = uncorked
	}
	return err
}

// frames are buffers for a frame each, used while it is written.
var frames = sync.Pool{New: func() any { return new([maxHeader + chunk]byte) }}

// pongs is the answer that is owed to the peer's last ping. Earlier ones need none (RFC 6455, section 5.5.3).
type pongs struct {
	mu   sync.Mutex
	owed []byte // maxHeader bytes and the payload; nil if nothing is owed
}

func (o *pongs) owe(payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owed = append(make([]byte, maxHeader, maxHeader+maxControl), payload...)
}

func (o *pongs) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	owed := o.owed
	o.owed = nil
	return owed
}

func (o *pongs) any() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.owed != nil
}

// pay sends the answer that is owed, unless someone is writing, who then does it: reading does not wait for writers.
func (c *conn) pay() {
	for c.pongs.any() && c.writing.TryLock() {
		if buf := c.pongs.take(); buf != nil {
			_ = c.send(opPong, buf) // a failure shows in the next message
		}
		c.writing.Unlock()
	}
}
