package upstream

import (
	"errors"
	"io"
	"net"
	"sync"
)

// MaxFirst is the most that a First reads.
const MaxFirst = 32 << 10

// First is the first bytes of a visitor, read once while the connection to a service is being made and held until it
// is certain which service gets them.
//
// From ReadFirst on, the connection's read side belongs to the First; Rest hands it on.
type First struct {
	ready chan struct{}
	buf   []byte
	err   error

	mu     sync.Mutex
	failed func()
}

// ReadFirst starts the one read of conn, of at most limit and MaxFirst bytes. The goroutine that reads ends when the
// read returns; to end it early the owner closes conn or gives it a deadline.
func ReadFirst(conn net.Conn, limit int) *First {
	f := &First{ready: make(chan struct{})}
	go f.read(conn, min(max(limit, 1), MaxFirst))
	return f
}

func (f *First) read(conn net.Conn, limit int) {
	buf := make([]byte, limit)
	n := 0
	for n == 0 && f.err == nil {
		n, f.err = conn.Read(buf)
	}
	f.buf = buf[:n]
	close(f.ready)
	f.report()
}

// report calls the function that waits for a failure, if there is both.
func (f *First) report() {
	f.mu.Lock()
	failed := f.failed
	f.failed = nil
	f.mu.Unlock()
	if failed != nil && f.err != nil && !errors.Is(f.err, io.EOF) {
		failed()
	}
}

// Ready is closed when the bytes are there, or the visitor has ended or failed.
func (f *First) Ready() <-chan struct{} { return f.ready }

// Bytes waits for the read and gives what it gave: bytes, or an error, or both; io.EOF is a visitor that has ended its
// side before sending more. The bytes must not be changed.
func (f *First) Bytes() ([]byte, error) {
	<-f.ready
	return f.buf, f.err
}

// Wait waits for the end of the read.
func (f *First) Wait() { <-f.ready }

// OnFailure has fn called, at most once, when the visitor fails before its first bytes are there (a reset, not an
// orderly end), so that nothing need be dialled for it any more. There is one fn: a later one replaces an earlier.
func (f *First) OnFailure(fn func()) {
	f.mu.Lock()
	f.failed = fn
	f.mu.Unlock()
	select {
	case <-f.ready:
		f.report()
	default: // the reader will report
	}
}
