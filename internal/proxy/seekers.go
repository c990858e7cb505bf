package proxy

import "sync"

// maxSeekers is for how many flows a member is sought at the same time; that takes stack, and at a distant client time.
const maxSeekers = 256

// seekers are the goroutines that find members for flows: as many as are needed, up to maxSeekers. A flow that has to wait
// for one takes no stack meanwhile. The zero value is ready.
type seekers struct {
	work *sync.WaitGroup // what they are counted in

	mu    sync.Mutex
	queue []func()
	busy  int
}

// seek has f called, soon, by one of them.
func (s *seekers) seek(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, f)
	if s.busy < maxSeekers {
		s.busy++
		s.work.Go(s.run)
	}
}

func (s *seekers) run() {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.queue = nil // what a flood has made large is given back
			s.busy--
			s.mu.Unlock()
			return
		}
		f := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.mu.Unlock()
		f()
	}
}
