package proxy

import (
	"errors"
	"io"
	"syscall"

	"culvert/internal/nowait"
	"culvert/internal/upstream"
)

const (
	// heavyPiece is what must come at once for a pipe to be cheaper than a buffer.
	heavyPiece = 8 << 10
	// heavyAfter is how much of such pieces has to come, with few smaller ones between, before a pipe is borrowed, and
	// lightBelow what is left of that, after smaller ones, when it is not worth it any more.
	heavyAfter = 256 << 10
	lightBelow = 64 << 10
)

// weigh takes a piece that moved into account: many large ones make the direction heavy, a few small ones light again.
func (d *direction) weigh(n int) {
	if n < heavyPiece {
		d.weight /= 2
		return
	}
	d.weight = min(d.weight+n, heavyAfter)
}

// heavy says whether the direction is to go through a pipe.
func (d *direction) heavy() bool {
	return nowait.Splices && d.weight >= heavyAfter && !d.unfit
}

// splice moves what comes through a pipe until the direction is over, or until that is not worth it any more or cannot be
// done. It needs the direction's ferry. The pipe is borrowed while there is something to move, and nothing is in it when
// splice returns without an error.
func (d *direction) splice() (over bool, readErr, writeErr error) {
	s := splicer{d: d, pipes: &d.relay.hands.pipes}
	s.in, s.out = s.fillNow, s.drainNow
	defer s.release()
	for d.weight >= lightBelow {
		switch n, err := s.fill(); {
		case err != nil:
			return s.notFilled(err)
		case n == 0:
			return true, unlessEnd(upstream.EndOfRead(d.src)), nil
		default:
			d.weigh(n)
		}
		if err := s.drain(); err != nil {
			return true, nil, err
		}
	}
	return false, nil, nil
}

// splicer is what a direction needs to splice.
type splicer struct {
	d     *direction
	pipes *pipes
	pipe  *pipe // borrowed; nil while there is nothing to move
	held  int   // bytes in it

	in, out func(fd uintptr) bool // fillNow and drainNow, bound once
	n       int                   // what they moved, or
	err     error                 // why they did not
}

var errNoPipe = errors.New("no pipe to be had")

// fill waits for bytes and moves what is there into the pipe; 0 is the end.
func (s *splicer) fill() (int, error) {
	s.n, s.err = 0, nil
	if err := s.d.ferry.src.Read(s.in); err != nil { // closed, or out of time
		return 0, err
	}
	s.held = s.n
	return s.n, s.err
}

// fillNow says whether the wait is over. The pipe is lent for no longer than there is something to move.
func (s *splicer) fillNow(fd uintptr) bool {
	if s.pipe == nil {
		if s.pipe = s.pipes.borrow(); s.pipe == nil {
			s.err = errNoPipe
			return true
		}
	}
	var again bool
	s.n, again, s.err = nowait.Splice(fd, s.pipe.in, pipeSize)
	if again {
		s.release()
	}
	return !again
}

// notFilled says what the failure of a fill means: only that of the source itself ends the direction.
func (s *splicer) notFilled(err error) (over bool, readErr, writeErr error) {
	d := s.d
	var errno syscall.Errno
	switch {
	case errors.Is(err, errNoPipe):
		d.weight = 0 // it may prove heavy again, when there may be one
		return false, nil, nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EPERM):
		d.unfit = true
		return false, nil, nil
	case errors.As(err, &errno):
		return true, opError("read", "splice", d.src, errno), nil
	default:
		return true, err, nil
	}
}

// drain moves all that is in the pipe to the destination.
func (s *splicer) drain() error {
	for s.held > 0 {
		s.n, s.err = 0, nil
		if err := s.d.ferry.dst.Write(s.out); err != nil {
			return err
		}
		switch {
		case errors.Is(s.err, syscall.EINVAL), errors.Is(s.err, syscall.ENOSYS), errors.Is(s.err, syscall.EPERM):
			s.d.unfit, s.d.weight = true, 0
			return s.drainByHand()
		case s.err != nil:
			return opError("write", "splice", s.d.dst, s.err)
		case s.n == 0:
			return io.ErrNoProgress
		}
		s.held -= s.n
		s.d.moved(s.n)
	}
	return nil
}

// drainNow says whether something has moved, or failed.
func (s *splicer) drainNow(fd uintptr) bool {
	var again bool
	s.n, again, s.err = nowait.Splice(s.pipe.out, fd, s.held)
	return !again
}

// drainByHand copies what is in the pipe to a destination that takes nothing from pipes.
func (s *splicer) drainByHand() error {
	buf := getBuffer()
	defer putBuffer(buf)
	for s.held > 0 {
		n, err := s.pipe.read(buf[:min(s.held, len(buf))])
		if err != nil || n == 0 {
			return opError("read", "pipe", s.d.src, errors.Join(err, io.ErrUnexpectedEOF))
		}
		s.held -= n
		if err := s.d.write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// release gives the pipe back, if there is one.
func (s *splicer) release() {
	if s.pipe != nil {
		s.pipes.giveBack(s.pipe, s.held == 0)
		s.pipe = nil
	}
}
