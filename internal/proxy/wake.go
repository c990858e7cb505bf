package proxy

import "sync"

// wake wakes all who wait. The zero value is ready for use, and safe for concurrent use.
type wake struct {
	mu sync.Mutex
	ch chan struct{} // nil while nobody waits
}

// next is closed by the next call of all.
func (w *wake) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch == nil {
		w.ch = make(chan struct{})
	}
	return w.ch
}

func (w *wake) all() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch != nil {
		close(w.ch)
		w.ch = nil
	}
}
