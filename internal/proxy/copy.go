package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"

	"culvert/internal/upstream"
)

// pusher is a connection that writes what comes on it to another one by itself, without a goroutine of ours. done is
// called once, in a goroutine that must not be held: with nil and nil at the end, with an error of the one that is read or
// of the one that is written.
type pusher interface {
	Push(dst net.Conn, moved func(int), done func(readErr, writeErr error))
}

// puller is a connection that takes in what another one says, until that one ends (nil and nil) or either fails. It holds
// no buffer while there is nothing.
type puller interface {
	Pull(src io.Reader, moved func(int)) (readErr, writeErr error)
}

// both sees both directions to their ends, one of them in this goroutine.
func (r *relay) both() {
	if p, ok := r.b.(pusher); ok {
		r.push(r.a, p, Out)
		r.pass(r.b, r.a, In)
		return
	}
	if p, ok := r.a.(pusher); ok && len(r.first) == 0 && r.firstErr == nil {
		r.push(r.b, p, In)
		r.pass(r.a, r.b, Out)
		return
	}
	r.other.Go(func() { r.pass(r.a, r.b, Out) })
	r.pass(r.b, r.a, In)
}

// push has src see one direction to its end.
func (r *relay) push(dst upstream.Conn, src pusher, d Direction) {
	r.other.Add(1)
	src.Push(dst, func(n int) { r.moved(d, n) }, func(readErr, writeErr error) {
		heard, err := outcome(readErr, writeErr)
		if isSocket(dst) && r.end(dst, heard, err) {
			r.other.Done()
			return
		}
		go func() { // an end over TLS and a reset may wait for others, which the source's goroutine must not
			defer r.other.Done()
			if isSocket(dst) || !r.end(dst, heard, err) {
				r.reset()
			}
		}()
	})
}

// pass sees one direction to its end.
func (r *relay) pass(dst, src upstream.Conn, d Direction) {
	heard, err := r.copy(dst, src, d)
	if !r.end(dst, heard, err) {
		r.reset()
	}
}

// copy copies until src ends, which is nil, or fails, or until dst does not listen: then heard is false.
func (r *relay) copy(dst, src upstream.Conn, d Direction) (heard bool, err error) {
	moved := func(n int) { r.moved(d, n) }
	if d == In && len(r.first) > 0 {
		n, err := dst.Write(r.first)
		r.first = nil
		moved(n)
		if err != nil {
			return outcome(nil, err)
		}
	}
	if d == In && r.firstErr != nil {
		return outcome(unlessEnd(r.firstErr), nil)
	}
	if p, ok := dst.(puller); ok {
		readErr, writeErr := p.Pull(src, moved)
		if readErr == nil && writeErr == nil { // what the descriptor says may be a reset that a writer heard of first
			readErr = unlessEnd(upstream.EndOfRead(src))
		}
		return outcome(readErr, writeErr)
	}
	return outcome(transfer(dst, src, moved))
}

// transfer copies by hand what a puller copies by itself.
func transfer(dst, src net.Conn, moved func(int)) (readErr, writeErr error) {
	r := upstream.NewReader(src, upstream.MaxRead)
	defer r.Release()
	for {
		p, readErr := r.Next()
		if len(p) > 0 {
			n, err := dst.Write(p)
			moved(n)
			if err != nil {
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

func outcome(readErr, writeErr error) (heard bool, err error) {
	switch {
	case writeErr != nil:
		return false, fmt.Errorf("write: %w", writeErr)
	case readErr != nil:
		return true, fmt.Errorf("read: %w", readErr)
	default:
		return true, nil
	}
}
