package mux

import (
	"errors"
	"io"
	"syscall"

	"culvert/internal/nowait"
)

// ending is a source that knows more of an end of data than its descriptor: io.EOF, or that it was aborted.
type ending interface{ EndOfRead() error }

// Pull sends on the stream what src has, until src ends, which is nil and nil, or fails, or until the stream takes no more.
// It holds no memory while src has nothing to say, if src gives its descriptor (syscall.Conn). moved is called with the
// size of each piece that was taken. Pull does not end the stream's direction.
func (st *Stream) Pull(src io.Reader, moved func(int)) (readErr, writeErr error) {
	r := newPuller(src)
	for {
		if err := st.waitRoom(); err != nil {
			return nil, err
		}
		c, err := r.read()
		if c != nil {
			n := len(c.buf)
			if err := st.enqueueOwned(c); err != nil {
				return nil, err
			}
			if moved != nil {
				moved(n)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

func (st *Stream) waitRoom() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.awaitRoom()
}

// enqueueOwned sends a chunk of the largest size: as it is, or copied behind others if it is mostly empty.
func (st *Stream) enqueueOwned(c *chunk) error {
	if len(c.buf) > chunkMiddle {
		return st.enqueue(nil, c)
	}
	defer c.release()
	return st.enqueue(c.buf, nil)
}

// puller reads a source into chunks of the largest size, which it borrows only when there is something to read.
type puller struct {
	src io.Reader
	raw syscall.RawConn // nil if src has none
	c   *chunk
	err error
	f   func(fd uintptr) bool
}

func newPuller(src io.Reader) *puller {
	p := &puller{src: src}
	sc, ok := src.(syscall.Conn)
	if !ok || !nowait.Works {
		return p
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return p
	}
	p.raw = raw
	p.f = func(fd uintptr) bool {
		c := newChunk(chunkLarge)
		n, again, err := nowait.Read(fd, c.buf[:chunkLarge])
		if again {
			c.release()
			return false
		}
		c.buf = c.buf[:max(n, 0)]
		p.c, p.err = c, err
		return true
	}
	return p
}

// read gives a chunk that is not empty, or nil, and io.EOF or another error behind it.
func (p *puller) read() (*chunk, error) {
	if p.raw == nil {
		return p.readPlain()
	}
	p.c, p.err = nil, nil
	err := p.raw.Read(p.f)
	c := p.c
	p.c = nil
	if err == nil {
		err = p.err
	}
	if c != nil && len(c.buf) == 0 {
		c.release()
		c = nil
		if err == nil {
			err = io.EOF
			if e, ok := p.src.(ending); ok {
				err = e.EndOfRead()
			}
		}
	}
	return c, err
}

func (p *puller) readPlain() (*chunk, error) {
	c := newChunk(chunkLarge)
	n, err := p.src.Read(c.buf[:chunkLarge])
	if n == 0 {
		c.release()
		return nil, err
	}
	c.buf = c.buf[:n]
	return c, err
}
