package proxy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// idleWatch ends a relay on which nothing moves. It looks once per time-out, so that bytes that move cost next to nothing; a
// relay ends when nothing has moved for at least the time-out and for less than twice as long.
type idleWatch struct {
	after  time.Duration // 0: never
	active atomic.Bool   // something has moved since the last look

	mu    sync.Mutex
	timer *time.Timer // nil once stopped, or before the start
}

func (w *idleWatch) moved() {
	if w.after > 0 && !w.active.Load() {
		w.active.Store(true)
	}
}

func (w *idleWatch) start(r *relay) {
	if w.after <= 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.after, func() { w.look(r) })
}

func (w *idleWatch) look(r *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.timer == nil:
	case w.active.Swap(false):
		w.timer.Reset(w.after)
	default:
		w.timer = nil
		err := fmt.Errorf("idle for %s", w.after)
		r.note(endServer, err)
		r.fail(err)
		r.reset() // stop waits for it
	}
}

func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}
