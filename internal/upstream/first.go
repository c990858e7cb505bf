package upstream

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// First is the first bytes of a visitor, read once while the connection to a service is being made and held until it
// is certain which service gets them. While the visitor says nothing it holds no buffer, and once there is something
// just what was said.
//
// From ReadFirst on, the connection's read side belongs to the First; Stop gives it back.
type First struct {
	ready   chan struct{}
	buf     []byte
	err     error
	reader  Reader
	watch   Watch
	stopped atomic.Bool

	mu     sync.Mutex
	failed func()
}

// Begun is how a visitor's connection has begun before ReadFirst. The zero Begun is one of which nothing is known.
type Begun struct {
	Read  []byte // what was read of it already; it must not be changed
	Guard Guard  // judges what it says, from Read on; nil lets everything pass
	// Hold is how long what the guard is not certain of is held back; 200 ms if zero.
	Hold time.Duration
}

// ReadFirst starts the one read of conn, of at most limit and MaxRead bytes, unless there is something of before. What is
// there already is read at once; otherwise a goroutine waits for it, which ends with the read or by Stop.
//
// With a guard it reads on while that is not certain. What the guard says against the visitor is the First's error.
func ReadFirst(conn net.Conn, limit int, before Begun) *First {
	f := &First{ready: make(chan struct{})}
	f.reader.init(conn, limit)
	if before.Guard != nil {
		f.watch = Watch{guard: before.Guard, hold: cmp.Or(before.Hold, defaultHold)}
	}
	p, err := before.Read, error(nil)
	if len(p) > 0 {
		p, err = f.watch.Judge(p)
	}
	if len(p) == 0 && err == nil {
		p, err = f.now()
	}
	if len(p) > 0 || err != nil {
		f.take(p, err)
		return f
	}
	go f.wait()
	return f
}

// now reads what is there already.
func (f *First) now() ([]byte, error) {
	p, err := f.reader.Now()
	if len(p) == 0 {
		if err != nil && f.watch.held > 0 {
			p = f.watch.letGo()
		}
		return p, err
	}
	return f.watch.Judge(p)
}

func (f *First) wait() {
	var p []byte
	var err error
	for len(p) == 0 && err == nil {
		p, err = f.watch.Next(&f.reader)
	}
	if f.stopped.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	f.take(p, err)
	f.report()
}

// take keeps what was read.
func (f *First) take(p []byte, err error) {
	f.buf, f.err = bytes.Clone(p), err
	f.reader.Release()
	close(f.ready)
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

// Ready is closed when the bytes are there, or the visitor has ended or failed, or Stop was called.
func (f *First) Ready() <-chan struct{} { return f.ready }

// Bytes waits for the read and gives what it gave: bytes, or an error, or both; io.EOF is a visitor that has ended its
// side before sending more. After a Stop that came first it is neither. The bytes must not be changed.
func (f *First) Bytes() ([]byte, error) {
	<-f.ready
	return f.buf, f.err
}

// Wait waits for the end of the read.
func (f *First) Wait() { <-f.ready }

// Stop ends the wait for the visitor's bytes, gives what Bytes gives, and hands the connection's read side to the caller:
// no goroutine of the First is left. It moves the connection's read deadline and leaves it without one.
// There may be one Stop, when nobody else asks any more.
func (f *First) Stop() ([]byte, error) {
	select {
	case <-f.ready:
	default:
		f.stopped.Store(true)
		_ = f.reader.conn.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection, which ends the wait too
		<-f.ready
		_ = f.reader.conn.SetReadDeadline(time.Time{})
	}
	return f.buf, f.err
}

// Watch is how the guard goes on with what comes after the First's bytes. It is the caller's after a Stop; nothing need be
// watched if it is Certain.
func (f *First) Watch() *Watch { return &f.watch }

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
