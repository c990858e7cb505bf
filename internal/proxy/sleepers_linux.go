package proxy

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sleepers are directions on which nothing moves. One goroutine waits for all of them, by an epoll of its own, so that an
// idle connection has neither goroutine nor stack. Goroutine and epoll are there while somebody sleeps. The zero value is
// ready for use, and safe for concurrent use.
type sleepers struct {
	mu     sync.Mutex
	asleep map[uint64]*direction // by names that are never used again, as numbers of descriptors are
	last   uint64                // name that was given
	epoll  *os.File              // nil while nobody sleeps
	fd     int                   // of epoll
}

// put has a direction wake up once there is something to read of its source: bytes, an end or an error. It says whether
// that can be done: not of a source that is closed.
func (s *sleepers) put(d *direction) bool {
	src, ok := rawConn(d.src)
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoll == nil && !s.open() {
		return false
	}
	s.last++
	s.asleep[s.last], d.asleep = d, s.last
	var failed error
	err := src.Control(func(fd uintptr) { failed = s.await(int(fd), s.last) })
	if err != nil || failed != nil {
		s.remove(d)
		return false
	}
	return true
}

// await has the epoll tell, once, that there is something to read. A descriptor that has slept before is known to it.
func (s *sleepers) await(fd int, name uint64) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(name)), Pad: int32(uint32(name >> 32))}
	err := unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, fd, &e)
	if err == unix.EEXIST {
		err = unix.EpollCtl(s.fd, unix.EPOLL_CTL_MOD, fd, &e)
	}
	return err
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
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	_ = unix.SetNonblock(fd, true) // package os has the runtime wait only for what is
	s.asleep, s.fd, s.epoll = make(map[uint64]*direction), fd, os.NewFile(uintptr(fd), "epoll")
	events, err := s.epoll.SyscallConn()
	if err == nil {
		err = s.epoll.SetReadDeadline(time.Time{}) // fails where the runtime cannot wait for it, as at max_user_watches
	}
	if err != nil {
		_ = s.epoll.Close()
		s.epoll = nil
		return false
	}
	go s.wait(events)
	return true
}

// wait wakes who has something to read, until the epoll is closed.
func (s *sleepers) wait(epoll syscall.RawConn) {
	var events [64]unix.EpollEvent
	for {
		n := 0
		if epoll.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n != 0
		}) != nil {
			return
		}
		for _, e := range events[:max(0, n)] {
			s.mu.Lock()
			d := s.asleep[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]
			s.mu.Unlock()
			if d != nil {
				s.rouse(d)
			}
		}
	}
}
