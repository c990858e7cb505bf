package upstream

import (
	"errors"
	"os"
	"time"
)

// Guard judges what a visitor says, from its first byte on and all of it each time, until it is certain: then more is
// false. An error means that the visitor is to be refused.
type Guard = func(p []byte) (more bool, err error)

// defaultHold is how long bytes are held back of which a guard is not certain. It delays a visitor whose first bytes
// happen to be those of what the guard looks for, as an empty line is, and then says nothing more.
const defaultHold = 200 * time.Millisecond

// Watch has a guard judge a visitor's bytes as they come, and holds back what is not certain until it is, or for a short
// time. What comes after that is judged still, together with what was let go: what the guard refuses never passes whole.
//
// The zero Watch lets everything pass. It is for one goroutine at a time.
type Watch struct {
	guard Guard
	hold  time.Duration
	seen  []byte
	held  int       // of seen, the last ones: not passed on yet
	until time.Time // when they are let go
	err   error     // what the guard said, once and for all
}

// Certain says whether everything may pass from here on, without a look at it.
func (w *Watch) Certain() bool { return w == nil || w.guard == nil }

// Judge takes the visitor's next bytes and gives those that may pass, which may be none, or some from before too.
func (w *Watch) Judge(p []byte) ([]byte, error) {
	if w.Certain() {
		return p, nil
	}
	if w.err != nil {
		return nil, w.err
	}
	w.seen = append(w.seen, p...)
	more, err := w.guard(w.seen)
	if err != nil {
		w.seen, w.held, w.err = nil, 0, err
		return nil, err
	}
	if w.held == 0 {
		w.until = time.Now().Add(w.hold)
	}
	w.held += len(p)
	if more {
		return nil, nil
	}
	pass := w.letGo()
	*w = Watch{}
	return pass, nil
}

func (w *Watch) letGo() []byte {
	pass := w.seen[len(w.seen)-w.held:]
	w.held = 0
	return pass
}

// Next waits for the visitor's next bytes that may pass. What r's Next reads, it judges; the error is that of either, and
// bytes may come with it. While bytes are held it moves r's read deadline, which it then leaves lifted. A deadline that
// ends the wait before leaves them held for the next call.
func (w *Watch) Next(r *Reader) ([]byte, error) {
	for {
		if w != nil && w.err != nil {
			return nil, w.err
		}
		if w != nil && w.held > 0 {
			_ = r.conn.SetReadDeadline(w.until) // fails on a closed connection, as the read will
		}
		p, err := r.Next()
		if w.Certain() {
			return p, err
		}
		if len(p) > 0 {
			held := w.held > 0
			pass, refusal := w.Judge(p)
			if held && w.held == 0 {
				_ = r.conn.SetReadDeadline(time.Time{})
			}
			if refusal != nil || len(pass) > 0 {
				return pass, errors.Join(refusal, err)
			}
		}
		switch {
		case err == nil:
		case w.held == 0:
			return nil, err
		case !errors.Is(err, os.ErrDeadlineExceeded): // it ends: that was all
			return w.letGo(), err
		case time.Now().Before(w.until): // somebody else's deadline
			return nil, err
		default:
			_ = r.conn.SetReadDeadline(time.Time{})
			return w.letGo(), nil
		}
	}
}
