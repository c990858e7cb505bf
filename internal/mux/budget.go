package mux

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-yamux/v5"
)

// Budget bounds the memory that the receive windows of all sessions of a process may grow to.
// Every stream gets its first 256 KiB; what is beyond comes out of the budget.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used is how much of the budget is granted at the moment, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) span() (yamux.MemoryManager, error) { return &span{budget: b}, nil }

var errBudget = errors.New("window budget used up")

// span is one stream's share.
type span struct {
	budget *Budget

	mu   sync.Mutex
	held int64
	over bool
}

// firstWindow is the priority with which yamux reserves a stream's initial window. Refusing that one would end the
// whole session, so it is always granted; the number of streams is bounded by Config.MaxStreams.
const firstWindow = 255

func (s *span) ReserveMemory(size int, prio uint8) error {
	if prio == firstWindow {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over { // yamux grows windows of streams that have ended and are still read
		return errBudget
	}
	if s.budget.used.Add(int64(size)) > s.budget.limit {
		s.budget.used.Add(-int64(size))
		return errBudget
	}
	s.held += int64(size)
	return nil
}

func (s *span) ReleaseMemory(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= int64(size)
	s.budget.used.Add(-int64(size))
}

func (s *span) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.budget.used.Add(-s.held)
	s.held = 0
}
