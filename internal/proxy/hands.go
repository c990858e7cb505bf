package proxy

import (
	"sync"
	"time"
)

// hands is goroutines that do one thing after the other, so that a stack which has grown to what a dial or a write through
// TLS needs is used again: growing it costs more than all else that a new goroutine does. Who has nothing to do for a while
// ends. The zero value is ready for use, and safe for concurrent use; a nil *hands keeps nobody.
//
// With them come the pipes that heavy directions borrow.
type hands struct {
	pipes pipes

	mu       sync.Mutex
	idle     []chan *task // who was busy last is last
	spare    int          // how many of them were idle all the time since the last dismissal
	sweeping bool         // a dismissal is to come
}

type task struct {
	do   func()
	done sync.WaitGroup
}

// spareTime is how long, at least, a goroutine without anything to do is kept.
const spareTime = 100 * time.Millisecond

// do has a goroutine do something and waits for it.
func (h *hands) do(what func()) {
	t := &task{do: what}
	t.done.Add(1)
	h.give(t)
	t.done.Wait()
}

// start has a goroutine do something and does not wait for it.
func (h *hands) start(what func()) {
	t := &task{do: what}
	t.done.Add(1)
	h.give(t)
}

func (h *hands) give(t *task) {
	if next := h.take(); next != nil {
		next <- t
	} else {
		go h.work(t)
	}
}

func (h *hands) work(t *task) {
	next := make(chan *task, 1)
	for ; t != nil; t = <-next {
		t.do()
		kept := h.keep(next) // before the caller goes on, who may be next
		t.done.Done()
		if !kept {
			return
		}
	}
}

func (h *hands) take() (next chan *task) {
	if h == nil {
		return nil
	}
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

func (h *hands) keep(next chan *task) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = append(h.idle, next)
	if !h.sweeping {
		h.sweeping = true
		time.AfterFunc(spareTime, h.dismiss)
	}
	return true
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
