package proxy

import (
	"sync"
	"time"
)

const (
	// pipeSize is how much a pipe holds, the most that the kernel gives to everyone. Less is more system calls and more
	// wake-ups: 256 KiB cost a fifth more CPU a byte.
	pipeSize = 1024 << 10
	// maxPipes is how many pipes one pool lends at most. Who gets none copies.
	maxPipes = 64
)

// pipe is a pipe of the kernel, through which bytes go from one socket to another without a copy of ours. It is empty
// whenever nobody has borrowed it.
type pipe struct{ in, out uintptr }

// pipes lends pipes: opening one costs more than what it saves for a single piece. The zero value is ready for use, and
// safe for concurrent use. Pipes that nobody needs for a while are closed.
type pipes struct {
	mu       sync.Mutex
	idle     []*pipe
	open     int  // idle or lent
	spare    int  // how many were idle all the time since the last closing
	sweeping bool // a closing is to come
}

// borrow gives an empty pipe, or nil if there is none to be had.
func (s *pipes) borrow() *pipe {
	s.mu.Lock()
	if last := len(s.idle) - 1; last >= 0 {
		p := s.idle[last]
		s.idle = s.idle[:last]
		s.spare = min(s.spare, last)
		s.mu.Unlock()
		return p
	}
	if s.open >= maxPipes {
		s.mu.Unlock()
		return nil
	}
	s.open++
	s.mu.Unlock()
	p := newPipe()
	if p == nil {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}
	return p
}

// giveBack takes a pipe back; one that is not empty is closed.
func (s *pipes) giveBack(p *pipe, empty bool) {
	if !empty {
		p.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !empty {
		s.open--
		return
	}
	s.idle = append(s.idle, p)
	if !s.sweeping {
		s.sweeping = true
		time.AfterFunc(spareTime, s.sweep)
	}
}

// sweep closes the pipes that nobody needed since the last time.
func (s *pipes) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.idle[:s.spare] {
		p.close()
	}
	s.open -= s.spare
	s.idle = append(s.idle[:0:0], s.idle[s.spare:]...)
	s.spare = len(s.idle)
	s.sweeping = s.spare > 0
	if s.sweeping {
		time.AfterFunc(spareTime, s.sweep)
	}
}
