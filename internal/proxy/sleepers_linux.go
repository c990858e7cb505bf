package proxy

import (
	"sync"

	"culvert/internal/epoll"
)

// sleepers are directions on which nothing moves. One goroutine waits for all of them, by an epoll of its own, so that an
// idle connection has neither goroutine nor stack. Goroutine and epoll are there while somebody sleeps. The zero value is
// ready for use, and safe for concurrent use.
type sleepers struct {
	mu     sync.Mutex
	asleep map[uint64]*direction // by names that are never used again, as numbers of descriptors are
	last   uint64                // name that was given
	epoll  *epoll.Epoll          // nil while nobody sleeps
}

// put has a direction wake up once there is something to read of its source: bytes, an end or an error. It says whether
// that can be done: not of a source that is closed.
func (s *sleepers) put(d *direction) bool {
	src, ok := rawConn(d.src)
	if !ok {
		return false
	}
	list, name := s.enter(d)
	if list == nil {
		return false
	}
	// Not with mu held: all the others would wait for the system call. d may wake meanwhile.
	var failed error
	err := src.Control(func(fd uintptr) { failed = list.Once(int(fd), name) })
	if err == nil && failed == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asleep[name] != d {
		return true // somebody has woken it already
	}
	s.remove(d)
	return false
}

// enter gives a direction a name among the sleepers, and the list of them; nil if there is none.
func (s *sleepers) enter(d *direction) (list *epoll.Epoll, name uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoll == nil && !s.open() {
		return nil, 0
	}
	s.last++
	s.asleep[s.last], d.asleep = d, s.last
	return s.epoll, s.last
}

// has says whether a direction sleeps.
func (s *sleepers) has(d *direction) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.asleep != 0
}

// rouse wakes a direction whose source was closed, of which the kernel tells nothing, if it sleeps.
func (s *sleepers) rouse(d *direction) {
	s.mu.Lock()
	slept := s.remove(d)
	s.mu.Unlock()
	if slept {
		d.wake()
	}
}

// remove says whether the direction slept. The caller holds mu.
func (s *sleepers) remove(d *direction) bool {
	if d.asleep == 0 {
		return false
	}
	delete(s.asleep, d.asleep)
	d.asleep = 0
	if len(s.asleep) == 0 {
		_ = s.epoll.Close() // ends its goroutine
		s.asleep, s.epoll = nil, nil
	}
	return true
}

// open begins to wait. The caller holds mu.
func (s *sleepers) open() bool {
	e, err := epoll.New()
	if err != nil {
		return false
	}
	s.asleep, s.epoll = make(map[uint64]*direction), e
	go e.Run(s.told)
	return true
}

// told wakes who has something to read.
func (s *sleepers) told(name uint64) {
	s.mu.Lock()
	d := s.asleep[name]
	s.mu.Unlock()
	if d != nil {
		s.rouse(d)
	}
}
