package epoll

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Epoll is the kernel's list of descriptors that are waited for. It is safe for concurrent use. Descriptors that are closed
// leave it by themselves.
type Epoll struct {
	file *os.File
	raw  syscall.RawConn
}

// New makes an empty list. It is an error where the kernel has no room for it, or for the runtime to wait for it.
func New() (*Epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(fd, true) // package os has the runtime wait only for what is
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // fails where the runtime cannot wait for it, as at max_user_watches
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Epoll{file, raw}, nil
}

// Each has Run tell the name whenever there is something to read of a descriptor: bytes, an end or an error.
func (e *Epoll) Each(fd int, name uint64) error { return e.add(fd, name, unix.EPOLLIN) }

// Once is Each for the next time alone. The descriptor may be in the list from before, by another name.
func (e *Epoll) Once(fd int, name uint64) error {
	return e.add(fd, name, unix.EPOLLIN|unix.EPOLLONESHOT)
}

func (e *Epoll) add(fd int, name uint64, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(uint32(name)), Pad: int32(uint32(name >> 32))}
	var failed error
	err := e.raw.Control(func(list uintptr) {
		failed = unix.EpollCtl(int(list), unix.EPOLL_CTL_ADD, fd, &event)
		if failed == unix.EEXIST {
			failed = unix.EpollCtl(int(list), unix.EPOLL_CTL_MOD, fd, &event)
		}
	})
	if err == nil {
		err = os.NewSyscallError("epoll_ctl", failed)
	}
	return err
}

// Run tells names until Close. A name may be told that was replaced a moment ago, or whose descriptor was closed.
func (e *Epoll) Run(tell func(name uint64)) {
	var events [64]unix.EpollEvent
	n := 0
	look := func(list uintptr) bool {
		for {
			var err error
			if n, err = unix.EpollWait(int(list), events[:], 0); err != unix.EINTR {
				return n > 0
			}
		}
	}
	for e.raw.Read(look) == nil {
		for _, event := range events[:n] {
			tell(uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32)
		}
	}
}

// Close ends Run, which may still be about to tell something.
func (e *Epoll) Close() error { return e.file.Close() }
