package proxy

import (
	"sync/atomic"

	"culvert/internal/udp"
	"culvert/internal/upstream"
)

// place is a flow's connection to a member.
type place struct {
	*upstream.Place
	upstream *upstream.Upstream
	route    int
	conn     upstream.Conn
	dead     bool        // it has failed; guarded by the flow
	answered atomic.Bool // the member has said something
}

func (p *place) close() {
	if p != nil {
		_ = p.conn.Close()
		p.Release()
	}
}

// attendTo has the answers of a new place sent to the visitor: by the poller, or in a goroutine of its own, whose stack
// stays small.
func (f *udpFlow) attendTo(at *place) {
	c, ok := at.conn.(upstream.Attended)
	if !ok {
		f.udp.work.Go(func() { f.attend(at) })
		return
	}
	err := c.Attend(func(p []byte, err error) {
		if err != nil {
			f.failed(at, err)
			return
		}
		f.answer(at, p)
	})
	if err != nil {
		f.failed(at, err)
	}
}

// attend sends the visitor the answers of a place until that fails.
func (f *udpFlow) attend(at *place) {
	s := sourceOf(at.conn)
	for {
		p, err := s.Next()
		if err != nil {
			s.Release()
			f.failed(at, err)
			return
		}
		f.answer(at, p)
	}
}

// source gives one datagram after the other and holds no memory while it waits.
type source interface {
	Next() ([]byte, error)
	Release()
}

func sourceOf(c upstream.Conn) source {
	if s, ok := c.(source); ok {
		return s
	}
	return &copies{conn: c}
}

// copies is a source that needs a buffer all the time.
type copies struct {
	conn upstream.Conn
	buf  []byte
}

func (c *copies) Next() ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, udp.MaxDatagram)
	}
	n, err := c.conn.Read(c.buf)
	return c.buf[:n], err
}

func (c *copies) Release() {}
