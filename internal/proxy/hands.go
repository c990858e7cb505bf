package proxy

import (
	"sync"
	"time"
)

// hands is goroutines that do one thing after the other, so that a stack which has grown to what a dial or a write through
// TLS needs is used again: growing it costs more than all else that a new goroutine does. Who has nothing to do for a while
// ends. The zero value is ready for use, and safe for concurrent use.
//
// With them come the pipes that heavy directions borrow, and those directions that sleep.
type hands struct {
	pipes    pipes
	sleepers sleepers

	mu       sync.Mutex
	idle     []chan func() // who was busy last is last
	spare    int           // how many of them were idle all the time since the last dismissal
	sweeping bool          // a dismissal is to come
}

// spareTime is how long, at least, a goroutine without anything to do is kept.
const spareTime = 100 * time.Millisecond

// start has a goroutine do something and does not wait for it.
func (h *hands) start(do func()) {
	if next := h.take(); next != nil {
		next <- do
	} else {
		go h.work(do)
	}
}

func (h *hands) work(do func()) {
	next := make(chan func(), 1)
	for ; do != nil; do = <-next {
		do()
		h.keep(next)
	}
}

func (h *hands) take() (next chan func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := len(h.idle) - 1
	if last < 0 {
		return nil
	}
	next = h.idle[last]
	h.idle = h.idle[:last]
	h.spare = min(h.spare, last)
	return next
}

func (h *hands) keep(next chan func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = append(h.idle, next)
	if !h.sweeping {
		h.sweeping = true
		time.AfterFunc(spareTime, h.dismiss)
	}
}

// dismiss ends those that had nothing to do since the last time.
func (h *hands) dismiss() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, next := range h.idle[:h.spare] {
		close(next)
	}
	h.idle = append(h.idle[:0:0], h.idle[h.spare:]...)
	h.spare = len(h.idle)
	h.sweeping = h.spare > 0
	if h.sweeping {
		time.AfterFunc(spareTime, h.dismiss)
	}
}
