package proxy

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"sync/atomic"
)

// maxHeld is how much of a request's body is held for a second attempt. http.Transport reads this much before it writes
// anything.
const maxHeld = 32 << 10

// heldBody is a visitor's request body. What is read of it before anything was sent is held, so that an attempt on a
// connection that was dead already costs nothing. One attempt reads at a time.
type heldBody struct {
	src     io.Reader
	metrics *Metrics
	held    []byte
	partial bool        // more was read than is held
	broken  atomic.Bool // the visitor did not send what it announced
}

func (b *heldBody) failed() bool { return b.broken.Load() }

// whole says whether the body can be read from its beginning once more.
func (b *heldBody) whole() bool { return !b.partial && !b.failed() }

func (b *heldBody) read(p []byte, sent bool) (int, error) {
	n, err := b.src.Read(p)
	b.metrics.httpBytes(In, n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.broken.Store(true)
	}
	switch {
	case n == 0 || b.partial:
	case sent || len(b.held)+n > maxHeld:
		b.partial, b.held = true, nil
	default:
		b.held = append(b.held, p[:n]...)
	}
	return n, err
}

// bodyView is the body as one attempt reads it: from the beginning.
type bodyView struct {
	held    *heldBody
	attempt *attempt
	in, out *http.Request // for the trailers
	pos     int
	closed  atomic.Bool
}

func (v *bodyView) Read(p []byte) (int, error) {
	if v.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if v.pos < len(v.held.held) {
		n := copy(p, v.held.held[v.pos:])
		v.pos += n
		return n, nil
	}
	n, err := v.held.read(p, v.attempt.sent())
	v.pos += n
	if errors.Is(err, io.EOF) {
		// The trailers are known now. Those that were announced go along, but for what the rewrite took out.
		maps.DeleteFunc(v.out.Trailer, func(name string, _ []string) bool { return len(v.in.Trailer[name]) == 0 })
		for name := range v.out.Trailer {
			v.out.Trailer[name] = v.in.Trailer[name]
		}
	}
	return n, err
}

// Close ends this attempt's reading. The body itself belongs to the server that the visitor is connected to.
func (v *bodyView) Close() error {
	v.closed.Store(true)
	return nil
}
