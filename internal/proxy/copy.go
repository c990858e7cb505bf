package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"culvert/internal/upstream"
)

// pusher is a connection that writes what comes on it to another one by itself, without a goroutine of ours. done is
// called once, in a goroutine that must not be held: with nil and nil at the end, with an error of the one that is read or
// of the one that is written.
type pusher interface {
	Push(dst net.Conn, moved func(int), done func(readErr, writeErr error))
}

// puller is a connection that takes in what another one says, until that one ends (nil and nil) or either fails. It holds
// no buffer while there is nothing. An end that a descriptor gives may be a reset that a writer heard of first: it asks
// the source's EndOfRead.
type puller interface {
	Pull(src io.Reader, moved func(int)) (readErr, writeErr error)
}

// direction is one of a relay's two: what src says goes to dst.
type direction struct {
	relay    *relay
	dst, src upstream.Conn
	way      Direction

	// Of the goroutine that copies:
	ferry  *ferry // nil while nothing moves
	bytes  int64  // that moved
	weight int    // bytes of the large ones among the last
	unfit  bool   // for a pipe
	over   bool

	pieces atomic.Uint32 // that moved
	asleep uint64        // of the sleepers: its name among them
	stuck  stuck         // of who looks for what is stuck
}

// share has somebody else see one direction to its end, and gives the other one.
func (r *relay) share() *direction {
	if p, ok := r.b.(pusher); ok {
		r.out.push(p)
		return &r.in
	}
	if p, ok := r.a.(pusher); ok && len(r.first) == 0 && r.firstErr == nil {
		r.in.push(p)
		return &r.out
	}
	r.hands.start(r.out.run)
	return &r.in
}

// push has the source see the direction to its end.
func (d *direction) push(src pusher) { src.Push(d.dst, d.moved, d.pushed) }

// pushed is called when the source has seen the direction to its end, in a goroutine of the source.
func (d *direction) pushed(readErr, writeErr error) {
	ended := isSocket(d.dst) && d.end(readErr, writeErr)
	d.relay.hands.start(func() { // an end over TLS and a reset may wait for others, which the source's goroutine must not
		if !ended && (isSocket(d.dst) || !d.end(readErr, writeErr)) {
			d.relay.reset()
		}
		d.relay.wayOver()
	})
}

// How long nothing moves before no goroutine waits for the direction any more: the shorter time at first, because many
// connections are made and then idle, and twice as long each time that something has moved.
const (
	dozeSoon = 50 * time.Millisecond
	dozeLate = 800 * time.Millisecond
)

// run sees the direction to its end, or has it sleep when nothing has moved for a while.
func (d *direction) run() {
	d.attend()
	if d.over {
		d.relay.wayOver()
		return
	}
	if !d.relay.hands.sleepers.put(d) {
		go func() {
			_ = upstream.Await(d.src) // an error comes again
			d.wake()
		}()
	}
}

// wake has a direction that slept go on.
func (d *direction) wake() { d.relay.hands.start(d.run) }

// attend copies until the direction is over, or until nothing has moved for a while.
func (d *direction) attend() {
	dozes := upstream.Awaitable(d.src)
	for wait := dozeSoon; !d.over; wait = min(2*wait, dozeLate) {
		before := d.pieces.Load()
		if dozes {
			_ = d.src.SetReadDeadline(time.Now().Add(wait)) // fails on a closed connection, as the read will
		}
		readErr, writeErr := d.copy()
		if dozes && writeErr == nil && errors.Is(readErr, os.ErrDeadlineExceeded) {
			if d.pieces.Load() == before {
				d.ferry = nil
				_ = d.src.SetReadDeadline(time.Time{})
				return
			}
			continue
		}
		d.over = true
		if !d.end(readErr, writeErr) {
			d.relay.reset()
		}
	}
}

// copy copies until the source ends, which is nil and nil, or fails, or until the destination does not listen.
func (d *direction) copy() (readErr, writeErr error) {
	if d.way == In {
		if over, readErr, writeErr := d.begin(); over {
			return readErr, writeErr
		}
	}
	if p, ok := d.dst.(puller); ok {
		return p.Pull(d.src, d.moved)
	}
	return d.transfer()
}

// begin passes on what was read of the visitor before the relay began, and says whether that was all.
func (d *direction) begin() (over bool, readErr, writeErr error) {
	r := d.relay
	if len(r.first) > 0 {
		first := r.first
		r.first = nil
		if err := d.write(first); err != nil {
			return true, nil, err
		}
	}
	if r.firstErr != nil {
		return true, unlessEnd(r.firstErr), nil
	}
	if r.guard.Certain() {
		return false, nil, nil
	}
	return d.guarded()
}

// guarded passes on what the visitor says until it is certain that nothing has to look at it any more.
func (d *direction) guarded() (over bool, readErr, writeErr error) {
	guard := d.relay.guard
	r := upstream.NewReader(d.src, upstream.MaxRead)
	defer r.Release()
	for !guard.Certain() {
		p, err := guard.Next(r)
		if len(p) > 0 {
			if writeErr := d.write(p); writeErr != nil {
				return true, nil, writeErr
			}
		}
		if err != nil {
			return true, unlessEnd(err), nil
		}
	}
	return false, nil, nil
}

func (d *direction) write(p []byte) error {
	if f := d.descriptors(); f != nil {
		return f.write(p)
	}
	n, err := d.dst.Write(p)
	d.moved(n)
	return err
}

// transfer copies by hand what a puller copies by itself.
func (d *direction) transfer() (readErr, writeErr error) {
	if f := d.descriptors(); f != nil {
		return f.run()
	}
	r := upstream.NewReader(d.src, upstream.MaxRead)
	defer r.Release()
	for {
		p, readErr := r.Next()
		if len(p) > 0 {
			if err := d.write(p); err != nil {
				return nil, err
			}
		}
		if readErr != nil {
			return unlessEnd(readErr), nil
		}
		r.Release() // before the wait for more
	}
}

func unlessEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (d *direction) moved(n int) {
	r := d.relay
	d.pieces.Add(1)
	d.bytes += int64(n)
	r.idle.moved()
	if r.count != nil && n > 0 {
		r.count(d.way, n)
	}
	if t := r.still.Load(); t != nil {
		t.Reset(r.halfClosed)
	}
}

// end takes the end of the direction down: nil and nil if the source has ended, else why it failed or why the destination
// does not listen any more. False means that both sides are to be reset. Where the destination is a socket it does not
// wait for anybody.
func (d *direction) end(readErr, writeErr error) (orderly bool) {
	r := d.relay
	r.note(d.ender(writeErr), cmp.Or(writeErr, readErr))
	switch {
	case writeErr != nil: // what the destination still says is passed on before the reset
		r.fail(fmt.Errorf("write: %w", writeErr))
	case readErr != nil:
		r.fail(fmt.Errorf("read: %w", readErr))
		return false
	case r.failure() != nil: // the source ends after it stopped listening: that is no orderly end
		return false
	case r.still.Load() != nil && isSocket(d.dst): // is closed at once, which says the same
	default:
		if err := d.dst.CloseWrite(); err != nil {
			r.fail(fmt.Errorf("end: %w", err))
		}
	}
	r.countDown()
	return true
}

// ender is the side whose doing the end of the direction is.
func (d *direction) ender(writeErr error) ender {
	if (d.way == In) == (writeErr == nil) {
		return endVisitor
	}
	return endService
}

// isSocket says whether the ends of a connection's directions are the kernel's.
func isSocket(c upstream.Conn) bool {
	_, ok := c.(syscall.Conn)
	return ok
}
