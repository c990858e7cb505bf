package proxy

import (
	"fmt"
	"syscall"
	"time"
)

// Nobody reads of a side while what it said before waits for the other side to take it. So its reset would go unnoticed for as
// long as that takes, and with a service that hangs such connections would pile up. Now and then somebody looks.

// lookPause is the time between two looks.
const lookPause = 10 * time.Second

// stuck is what the last look at a direction has found.
type stuck struct {
	pieces uint32 // that had moved, both ways
	ended  time.Duration
}

// lookLater has connections looked at for as long as some are open.
func (t *TCP) lookLater() {
	if t.looking.CompareAndSwap(false, true) {
		time.AfterFunc(lookPause, t.look)
	}
}

func (t *TCP) look() {
	t.looking.Store(false) // first: who comes from here on sees to it that there is another look
	open := false
	for _, p := range t.open.list(func(p *passage) bool {
		open = true
		in, out := p.in.look(), p.out.look()
		return in || out
	}) {
		p.reset()
	}
	if open {
		t.lookLater()
	}
}

// look says whether the direction is stuck for good, and notes why: its source has been reset, or has ended and what it said
// has not been taken for as long as half a connection may stand still.
func (d *direction) look() bool {
	r, last := d.relay, d.stuck
	d.stuck = stuck{pieces: r.in.pieces.Load() + r.out.pieces.Load()} // who still gets an answer is not stuck
	if d.stuck.pieces != last.pieces || r.hands.sleepers.has(d) {
		return false
	}
	var err error
	switch stateOf(d.src) {
	case gone:
		err = syscall.ECONNRESET
	case ended:
		if r.halfClosed <= 0 || r.still.Load() != nil { // that end, or another, was passed on: who looks after it is still
			return false
		}
		if d.stuck.ended = last.ended + lookPause; d.stuck.ended < r.halfClosed {
			return false
		}
		err = fmt.Errorf("ended, and what it said was not taken for %s", r.halfClosed)
	default:
		return false
	}
	r.note(d.ender(nil), err)
	r.fail(fmt.Errorf("read: %w", err))
	return true
}

// state is what has become of a side of whom nobody reads.
type state uint8

const (
	present state = iota // or nobody knows
	ended                // it says nothing more
	gone                 // it was reset, or has not answered for too long
)
